"""What the site takes from the code and from benchmarks/results/ when it is built, so that it cannot be out of date.

A line `<!-- offrl: NAME ARGUMENT -->` on a page is replaced by what the function of that name returns.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.readme import RUN_COLUMNS, over_runs
from offrl.statistics import Interval

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
BENCHMARKS = {
    "demo": "CarRacing: the demo",
    "full": "CarRacing: the full size",
    "cartpole": "CartPole",
}
PLOTS = {
    "scores": "Every episode's return, its mean and 95 % interval, for each policy",
    "dataset_returns": "Histogram of the returns of the dataset's episodes",
}
CARD_PLOTS = {
    "returns": "Histogram of the returns",
    "actions": "Use of each action",
    "samples": "Stacks of frames and their actions",
}
CHARTS = {
    "leaderboard": ("carracing/leaderboard.png",),
    "train": ("train/results.png", "train/cuda.png"),
    "growth": ("growth/growth.png",),
    "inference": ("inference/inference.png",),
    "profile": ("profile/profile.png",),
    "data": ("data.png",),
    "precision": ("precision.png",),
    "quick": ("quick.png",),
}
_MARKER = re.compile(r"^<!-- offrl: ([\w-]+) ?(\S*) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs with each page."""
    return _MARKER.sub(lambda marker: _GENERATORS[marker[1]](*filter(None, [marker[2]])), markdown)


def on_files(files: Any, config: Any) -> Any:
    """Called by MkDocs with what the site is made of: adds the benchmarks' plots."""
    from mkdocs.structure.files import File

    for name in BENCHMARKS:
        for plot in PLOTS:
            path = RESULTS / name / "plots" / f"{plot}.png"
            if path.is_file():
                files.append(File.generated(config, f"benchmarks/{name}/{plot}.png", abs_src_path=str(path)))
    charts = [RESULTS / chart for found in CHARTS.values() for chart in found]
    for path in [*sorted(RESULTS.glob("datasets/*/*.png")), *filter(Path.is_file, charts)]:
        files.append(File.generated(config, f"benchmarks/{path.relative_to(RESULTS)}", abs_src_path=str(path)))
    return files


def training_runs() -> str:
    """The example's recipe over several training runs."""
    found = {title: _kept(f"{size}/runs.json") for size, title in (("demo", "The demo"), ("full", "The full size"))}
    parts = []
    for title, result in found.items():
        if result is not None:
            rows = [(name.upper(), *over_runs(row)) for name, row in result["algorithms"].items()]
            parts += [f"{title}: {_sizes(result)}", _table(("algorithm", *RUN_COLUMNS), rows)]
    return "\n\n".join(parts)


def _sizes(found: Mapping[str, Any]) -> str:
    """How the runs of a table were made."""
    held_out = f"{found['held_out']:.0%} of the episodes held out, " if found.get("held_out") else ""
    return (
        f"{found['transitions']:,} transitions, {held_out}{found['updates']:,} updates, discount "
        f"{found['discount']:g}; each run on the same tracks, `{found['seeds']}` (`{found['command']}`, one thread "
        f"each, {found['precision']}, {found['machine']['processor']})."
    )


def leaderboard() -> str:
    """Every algorithm on carracing/mixed over training runs, beside BC."""
    found = _kept("carracing/leaderboard.json")
    if found is None:
        return _missing("leaderboard")
    algorithms = found["algorithms"]
    rows = [
        (
            name.upper(),
            *over_runs(row),
            f"{row['steps_of_finished_laps']:.0f}" if row["laps_with_every_tile"] else "",
            _over_runs(row["minus_bc"]) if "minus_bc" in row else "",
        )
        for name, row in algorithms.items()
    ]
    done = sum(row["runs"] for row in algorithms.values())
    planned = found["runs"] * found["planned_algorithms"]
    unfinished = f" {done} of {planned} runs so far." if done < planned else ""
    head = ("algorithm", *RUN_COLUMNS, "steps of a finished lap", "minus BC (95 % t interval)")
    return "\n\n".join(
        [
            f"`{found['dataset']}`, whose mean return is {found['dataset_mean']:.0f}: {_sizes(found)}{unfinished}",
            _table(head, rows),
            _charts("leaderboard", "Mean return of each training run of each algorithm"),
        ]
    )


def time_to_score() -> str:
    """Seconds to a driving policy, beside others."""
    found = _kept("time_to_score.json")
    if found is None:
        return _missing("time-to-score")
    ours = found["rows"]["offrl"]["seconds"]
    rows = []
    for name, row in found["rows"].items():
        times = f"{row['seconds'] / ours:.1f}"
        best = max((point["score"] for point in row["curve"]), default=math.nan)
        taken = (
            (f"{row['seconds']:.0f}", times) if row["has_reached"] else (f"not in {row['seconds']:.0f}", f"> {times}")
        )
        rows.append((name, *taken, f"{row['updates']:,}", f"{best:.0f}"))
    head = ("trained by", f"seconds to {found['score']:g}", "times ours", "updates", "best mean on the way")
    return (
        f"{_table(head, rows)}\n\n{found['transitions']:,} transitions, tracks `{found['tracks']}`, stopped at "
        f"{found['at_most']:g} times our time. `{found['command']}`. {_machine(found['machine'])}."
    )


def tried() -> str:
    """Recipes for CarRacing beside the example's, over training runs on seeds for tuning."""
    found = _kept("carracing/recipes.json")
    if found is None:
        return _missing("recipes")
    rows = sorted(found["recipes"].items(), key=lambda row: -float(row[1]["mean"]))
    cells = [
        (name, row["why"], *over_runs(row), _welch(row["minus_as_it_was"]) if "minus_as_it_was" in row else "")
        for name, row in rows
    ]
    head = ("recipe", "what differs", *RUN_COLUMNS, "minus the first (95 % Welch interval)")
    return (
        f"{_table(head, cells)}\n\nEach run on the same tracks, `{found['seeds']}`, one thread each, "
        f"{found['precision']}. `{found['command']}`. {_machine(found['machine'])}."
    )


def bound() -> str:
    """The best laps that a search finds for each track, beside the scripted expert's."""
    found = _kept("carracing/bound.json")
    if found is None:
        return _missing("bound")
    names = {"expert": "`EXPERT`, the same settings on every track", "best": "the best settings found for each track"}
    rows = [
        (title, _over_runs(found[name]), f"{found[name]['mean_steps']:.0f}", str(found[name]["finished"]))
        for name, title in names.items()
    ]
    head = ("driver", "mean return (95 % interval over tracks)", "steps of a lap", "finished laps")
    after = ", ".join(f"{mean:.1f} after {count}" for count, mean in found["mean_best_after_laps"].items())
    return (
        f"{_table(head, rows)}\n\nPaired by track, the search adds {_over_runs(found['best_minus_expert'])}. "
        f"{len(found['tracks'])} tracks, `{found['seeds']}`, {found['laps_a_track']} laps driven on each; mean of the "
        f"best so far: {after}. `{found['command']}`. {_machine(found['machine'])}."
    )


def settings(path: str) -> str:
    """The settings of a dataclass or function as a table: name, default, and what its docstring says of it."""
    from offrl.cli.settings import read_section

    module, name = path.split(":")
    subject = getattr(import_module(module), name)
    parameters = inspect.signature(subject).parameters
    sections = [read_section(inspect.getdoc(subject), section) for section in ("Args", "Attributes")]
    rows = [
        (f"`{field}`", f"`{_default(subject, parameters[field])}`", meaning)
        for field, meaning in (sections[0] or sections[1]).items()
        if field in parameters and parameters[field].default is not inspect.Parameter.empty
    ]
    return _table_of_names((f"`{name}`", "default", "meaning"), rows)


def _default(subject: Any, parameter: inspect.Parameter) -> str:
    for field in dataclasses.fields(subject) if dataclasses.is_dataclass(subject) else ():
        if field.name == parameter.name and field.default_factory is not dataclasses.MISSING:
            return repr(field.default_factory())
    return repr(parameter.default)


def actions() -> str:
    """CarRacing's action table."""
    from offrl.envs.car_racing import ACTION_NAMES, ACTION_TABLE

    rows = [
        (str(index), name, *(f"{value:g}" for value in vector))
        for index, (name, vector) in enumerate(zip(ACTION_NAMES, ACTION_TABLE, strict=True))
    ]
    return _table(("index", "in words", "steer", "gas", "brake"), rows)


def verified_versions() -> str:
    """The versions of Gymnasium that CarRacing is drawn fast for."""
    from offrl.envs.car_racing import VERIFIED_VERSIONS

    return "\n".join(f"- Gymnasium {version}" for version in VERIFIED_VERSIONS)


def commands() -> str:
    """The help of `offrl` and of each of its commands."""
    import click

    from offrl.cli import main

    context = click.Context(main, info_name="offrl", max_content_width=100)
    parts = [f"## offrl\n\n```text\n{main.get_help(context)}\n```"]
    for name, command in main.commands.items():
        text = command.get_help(click.Context(command, info_name=name, parent=context))
        parts.append(f"## offrl {name}\n\n```text\n{text}\n```")
    return "\n\n".join(parts)


def public_names() -> str:
    """The names of `offrl`, each linked to where it is described."""
    import offrl

    rows = []
    for name in offrl.__all__:
        value = getattr(offrl, name)
        if not name.startswith("_") and not inspect.ismodule(value):
            summary = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")
            rows.append((f"[`offrl.{name}`][{value.__module__}.{value.__qualname__}]", summary))
    return _table_of_names(("name", "description"), rows)


def benchmarks() -> str:
    """Each stored result as a section; a missing one says how to produce it."""
    return "\n\n".join(f"### {title}\n\n{_benchmark(name)}" for name, title in BENCHMARKS.items())


def _benchmark(name: str) -> str:
    result = _kept(f"{name}/evaluation.json")
    if result is None:
        return _missing(name)
    policies = result.get("policies") or {"BCQ": result["BCQ"]}
    dataset = result.get("dataset") or {"mean": result["dataset_mean"]["mean"], **_interval(result["dataset_mean"])}
    rows = [_score_row("the dataset", dataset), *(_score_row(policy, score) for policy, score in policies.items())]
    head = ("policy", "mean return", "95 % interval", "median", "episodes", "finished laps")
    filled = [column for column in zip(head, *rows, strict=True) if any(column[1:])]
    first, *others = zip(*filled, strict=True)
    parts = [_table(first, others)]
    if "bcq_minus_bc" in result:
        difference = result["bcq_minus_bc"]
        parts.append(
            "BCQ minus BC on the same seeds: "
            f"**{difference['mean']:.1f}**, {_bounds((difference['low'], difference['high']), len(_seeds(policies)))}."
        )
    parts.append(_origin(result, policies))
    parts += [
        f"![{text}](benchmarks/{name}/{plot}.png)"
        for plot, text in PLOTS.items()
        if (RESULTS / name / "plots" / f"{plot}.png").is_file()
    ]
    return "\n\n".join(parts)


def speed(name: str) -> str:
    """A kept measurement of speed: both ways, their ratio, how it was made."""
    found = _kept(f"speed/{name}.json")
    if found is None:
        return _missing(name)
    rows = [(label, f"{rate:,.0f}") for label, rate in found["rows"].items()]
    return "\n\n".join(
        [
            f"**{found['ratio']:.2f} times**: {found['ratio_of']}.",
            _table(("implementation", found["unit"]), rows),
            f"`{found['command']}`: {found['notes']}. {_machine(found['machine'])}.",
        ]
    )


def train() -> str:
    """Updates per second of each implementation, on the CPU and, where it was measured, on a GPU."""
    parts = [_train(found) for found in (_kept("train/results.json"), _kept("train/cuda.json")) if found]
    return "\n\n".join([*parts, _charts("train", "Updates per second")]) if parts else _missing("train --peers")


def _train(found: Mapping[str, Any]) -> str:
    rows = []
    for name, way in found["ways"].items():
        versions = ", ".join(f"{package} {version}" for package, version in way.get("versions", {}).items())
        notes = way["notes"] + (f" ({versions})" if versions else "")
        if "gflop" in way:
            rate = way["updates_per_second"] * way["gflop"] / 1000
            notes += f"; {way['precision']}{', compiled' if way['compile'] == 'on' else ''}, {rate:.3g} TFLOP/s"
        rows.append(
            (name, f"{way['updates_per_second']:,.1f}", _times(way["ratio"]), f"{way['parameters'] / 1e6:.2f} M", notes)
        )
    first = next(iter(found["ways"]))
    rounds = len(found["ways"][first]["rates"])
    head = ("implementation", "updates/s", f"speed-up of {first}", "weights", "description")
    waits = found["ways"][first].get("data_wait")
    roofline = found["matrix_teraflops"]
    wait = "" if waits is None else f" {first} waits for data {waits:.1%} of the time."
    return "\n\n".join(
        [
            f'<div class="described" markdown>\n\n{_table(head, rows)}\n\n</div>',
            f"Medians of {rounds} alternating slices of each implementation; in brackets the smallest and largest "
            f"ratio within a round. Batch {found['batch_size']}, {' x '.join(map(str, found['observation']))} uint8, "
            f"{found['actions']} actions, {found['transitions']:,} transitions, {found['threads']} threads, "
            f"{found['device']}.{wait} TFLOP/s count the network's matrix products; matrix products alone reach "
            f"{roofline['fp32']:.3g} here in float32 and {roofline['bf16']:.3g} in bf16. `{found['command']}`. "
            f"{_machine(found['machine'], found['device'])}.",
        ]
    )


def growth() -> str:
    """What an update costs with more data, a larger batch, more actions."""
    found = _kept("growth/results.json")
    if found is None:
        return _missing("growth")
    parts = []
    labels = {
        "transitions": "transitions, store read beforehand",
        "transitions_not_in_memory": "transitions, store not cached at first",
        "batch_size": "batch size",
        "actions": "actions",
    }
    for axis, label in labels.items():
        rows = [
            (
                f"{int(size):,}",
                f"{row['updates_per_second']:,.1f}",
                f"{row['milliseconds']:,.1f}",
                f"{row['memory_mib']:,.0f}",
            )
            for size, row in found[axis].items()
        ]
        parts.append(_table((label, "updates/s", "ms per update", "MiB"), rows))
    parts.append(
        "Memory is the resident memory of the process without mapped files. The stores hold noise, on disk and "
        f"memory-mapped; batch size and actions are varied on one synthetic batch. `{found['command']}`. "
        f"{_machine(found['machine'], found['device'])}."
    )
    return "\n\n".join([*parts, _charts("growth", "Time and memory of an update against data, batch size and actions")])


def inference() -> str:
    """How fast a trained policy answers, as torch and as ONNX files."""
    found = _kept("inference/results.json")
    if found is None:
        return _missing("inference")
    rows = [
        (
            name,
            f"{row['batch_1_milliseconds']:.2f}",
            f"{row['batch_64_per_second']:,.0f}",
            f"{row['equal_actions']:.2%}",
            f"{row['megabytes']:.1f}" if "megabytes" in row else "",
        )
        for name, row in found["ways"].items()
    ]
    head = ("runtime", "ms for 1 observation", "observations/s in batches of 64", "same action as torch", "file in MB")
    origin = f"Actions on {found['observations']:,} observations of the dataset. `{found['command']}`."
    return "\n\n".join(
        [_table(head, rows), f"{origin} {_machine(found['machine'])}.", _charts("inference", "Observations per second")]
    )


def profile() -> str:
    """Where the time of one update goes."""
    found = _kept("profile/results.json")
    if found is None:
        return _missing("profile")
    parts = list(next(iter(found["rows"].values())))
    rows = [
        (name, *(f"{row[part]:.1f}" for part in parts), f"{sum(row.values()):.1f}")
        for name, row in found["rows"].items()
    ]
    return "\n\n".join(
        [
            _table(("milliseconds", *parts, "total"), rows),
            f"Batch {found['batch_size']}, {found['threads']} threads, {found['device']}, uncompiled. "
            f"`{found['command']}`. {_machine(found['machine'], found['device'])}.",
            _charts("profile", "Milliseconds of each part of an update"),
        ]
    )


def precision() -> str:
    """Losses and scores of the same runs in float32 and bf16."""
    found = _kept("precision.json")
    if found is None:
        return _missing("precision")
    rows, differences = [], []
    for task, result in found["tasks"].items():
        rows += [
            (task, way, ", ".join(f"{run['mean']:.1f}" for run in runs), str(len(runs[0]["scores"])))
            for way, runs in result["runs"].items()
        ]
        score = result["score_difference"]
        differences.append(
            f"- {task}: bf16 minus float32 **{score['mean']:+.1f}**, "
            f"{_bounds((score['low'], score['high']), len(rows[-1][2].split(',')), 'run', '+.1f')}; the mean losses "
            f"differ by {result['loss_difference']:.2%} at most"
        )
    return "\n\n".join(
        [
            _table(("task", "precision", "mean return of each run", "episodes of each"), rows),
            "\n".join(differences),
            f"`{found['command']}`. {_machine(found['machine'])}.",
            _charts("precision", "Mean returns in both precisions"),
        ]
    )


def quick() -> str:
    """The ratios that CI compares with."""
    found = _kept("quick.json")
    if found is None:
        return _missing("quick --record")
    rows = [
        (processor, name, f"{ratio['median']:.2f}", f"{ratio['low']:.2f} to {ratio['high']:.2f}")
        for processor, ratios in found["processors"].items()
        for name, ratio in ratios.items()
    ]
    head = ("processor", "measurement", "speed-up over the plain implementation", "range over the rounds")
    origin = f"`{found['command']}`. The latest was measured on {_machine(found['machine'])}."
    return "\n\n".join([_table(head, rows), origin, _charts("quick", "Speed-up over the plain implementation")])


def data() -> str:
    """Batches a second beside plain numpy and others, and what training from each store waits, reads and holds."""
    found = _kept("data.json")
    if found is None:
        return _missing("data --peers")
    gathered = [
        (label, name, f"{way['updates_per_second']:,.0f}", _times(way["ratio"]))
        for label, ways in found["gathering"].items()
        for name, way in ways.items()
    ]
    trained = [
        (
            label,
            f"{row['updates_per_second']:.1f}",
            f"{row['data_wait']:.1%}",
            f"{row['read_mib']:,.0f}",
            f"{row['anonymous_mib']:,.0f}",
            f"{row['mapped_file_mib']:,.0f}",
        )
        for label, row in found["training"].items()
    ]
    ways = "\n".join(f"- {name}: {meaning}" for name, meaning in found["ways"].items())
    return "\n\n".join(
        [
            _table(("data", "implementation", "batches/s", "speed-up of offrl"), gathered),
            ways,
            "BCQ trained from each store, whose files are not in memory at first:",
            _table(("data", "updates/s", "waits for data", "MiB read from disk", "MiB held", "MiB mapped"), trained),
            "*Held* is resident memory without mapped file pages, which the system takes back when it needs them. "
            f"Batches of {found['batch_size']}. `{found['command']}`. {_machine(found['machine'])}.",
            _charts("data", "Batches per second"),
        ]
    )


def _times(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _charts(name: str, text: str) -> str:
    drawn = [chart for chart in CHARTS[name] if (RESULTS / chart).is_file()]
    return "\n\n".join(f"![{text}](benchmarks/{chart})" for chart in drawn)


def identity() -> str:
    """What the byte-for-byte comparison of CarRacing's frames found, for each version of Gymnasium."""
    found = _kept("identity.json")
    if found is None:
        return _missing("identity")
    rows = [
        (_drawn_with(result), name, str(way["tracks"]), str(result["steps"]), str(len(way["different"])))
        for result in found["versions"]
        for name, way in result["ways"].items()
    ]
    head = ("Gymnasium", "actions", "tracks", "steps on each", "tracks with any difference")
    return f"{_table(head, rows)}\n\n`{found['command']}`. {_machine(found['machine'])}."


def obp() -> str:
    """Estimates of our estimators and of obp's, for each log of the Open Bandit sample."""
    found = _kept("obp.json")
    if found is None:
        return _missing("obp")
    names = {"random": "uniform", "bts": "Thompson sampling"}
    rows = [
        (
            row["campaign"],
            names[row["logger"]],
            f"{row['rounds']:,}",
            row["estimator"],
            f"{row['offrl']:.6f}",
            f"{row['obp']:.6f}",
            f"{row['difference']:.0e}",
        )
        for row in found["estimates"]
    ]
    head = ("campaign", "logged by", "rounds", "estimator", "offrl", f"obp {found['versions']['obp']}", "difference")
    note = f"Largest difference {found['largest_difference']:.1e}; {found['tolerance']:g} is allowed."
    return f"{_table(head, rows)}\n\n{note} `{found['command']}`. {_machine(found['machine'])}."


def judged() -> str:
    """How well offline estimates ranked policies whose true values are known, for each task and set of candidates."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((RESULTS / "ope").glob("*.json"))]
    if not results:
        return _missing("ope")
    head = (
        "estimator or statistic",
        "Spearman's rho",
        "rho in the better half",
        "regret@1",
        "regret@3",
        "chosen / best",
        "95 % intervals that hold",
        "without a remark",
    )
    parts = []
    for found in results:
        rows = [_ranked(name, row) for name, row in found["rankings"].items()]
        better = sum(each["return"] > found["data_mean_return"] for each in found["candidates"])
        parts.append(
            f"**{found['task']}**, {found['set']} set: {len(found['candidates'])} candidates, {better} of them better "
            f"than the data's mean return of {found['data_mean_return']:.1f}. {found['transitions']:,} transitions in "
            f"{found['episodes']:,} episodes, {found['held_out']:.0%} held out; values with a discount of "
            f"{found['discount']:g}; behaviour probabilities {found['behaviour_probabilities']}; true values from "
            f"{found['episodes_played']} episodes each.\n\n{_table(head, rows)}\n\n"
            f"On one thread, {_costs(found)} `{found['command']}`. {_machine(found['machine'])}."
        )
    return "\n\n".join(parts)


def _costs(found: Mapping[str, Any]) -> str:
    """Of the estimates, beside that of training one of the candidates."""
    seconds, training = found["seconds"], found["seconds_of_training_a_run"]
    fit = seconds["one fit of fqe for all"]
    return (
        f"one fit of {found['updates']:,} updates with the values of all candidates by `fqe` took {fit:.0f} s, "
        f"{fit / training:.1f} times the {training:.0f} s of training one candidate's run; all estimators with "
        f"{found['refits']} fits {seconds['all estimators']:.0f} s, all statistics {seconds['all statistics']:.0f} s."
    )


def gained() -> str:
    """What choosing a checkpoint offline gains over taking the last one, for each task."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((RESULTS / "selection").glob("*.json"))]
    if not results:
        return _missing("select")
    names = list(dict.fromkeys(name for found in results for name in found["gains"]))
    head = ("chosen by", *(f"{found['task']}" for found in results))
    rows = [("the last checkpoint's return", *(_over_runs(found["last"]) for found in results))]
    rows += [(name, *(_gain(found["gains"].get(name)) for found in results)) for name in names]
    parts = [
        f"{found['task']}: {found['runs']} runs of BCQ with {found['updates']:,} updates, {found['checkpoints']} "
        f"checkpoints each, {found['episodes_played']} episodes a checkpoint. `{found['command']}`."
        for found in results
    ]
    return f"{_table(head, rows)}\n\n{' '.join(parts)} {_machine(results[0]['machine'])}."


def _gain(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    low, high = row["interval_95"] or (float("nan"),) * 2
    return f"{row['mean']:+.1f} ({low:+.1f} to {high:+.1f})"


def _ranked(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    of_all = "" if row["candidates"] == 0 else f" ({row['candidates']} candidates)" * (row["candidates"] < 24)
    held, usable = "", ""
    if row.get("intervals"):
        low, high = row["coverage_interval_95"]
        held = f"{row['intervals_that_hold']} of {row['intervals']} ({low:.0%} to {high:.0%})"
    if "without_a_remark" in row:
        usable = str(row["without_a_remark"])
    if row["spearman"] is None:
        return (f"{name}{of_all}", "undefined", "", "", "", "", held, usable)
    low, high = row["spearman_interval_95"]
    upper = row["spearman_among_the_better_half"]
    return (
        f"{name}{of_all}",
        f"{row['spearman']:.2f} ({low:.2f} to {high:.2f})",
        "undefined" if upper is None else f"{upper:.2f}",
        f"{row['regret_at_1']:.2f}",
        f"{row['regret_at_3']:.2f}",
        f"{row['chosen_over_best']:.2f}",
        held,
        usable,
    )


def _drawn_with(result: Mapping[str, Any]) -> str:
    """The version of Gymnasium, and of what it draws with where the result says so."""
    packages = ", ".join(f"{name} {version}" for name, version in result.get("packages", {}).items())
    return f"{result['gymnasium']} ({packages})" if packages else str(result["gymnasium"])


def dataset_cards() -> str:
    """What is in each standard dataset, with pictures."""
    from offrl.collection import RECIPES

    parts = []
    for name, recipe in RECIPES.items():
        folder = name.replace("/", "-")
        parts.append(f"### {name}\n\n{recipe.description.capitalize()}.")
        card = _kept(f"datasets/{folder}/card.json")
        if card is None:
            parts.append(_missing(f"datasets {name}"))
            continue
        bounds = _bounds((card["mean"]["low"], card["mean"]["high"]), card["episodes"], form=".0f")
        parts.append(
            f"Mean return **{card['mean']['mean']:.0f}** ({bounds}), median {card['median']:.0f}, "
            f"{card['share_over_900']:.0%} of the episodes over 900; {card['episodes']} episodes, "
            f"{card['transitions']:,} transitions, {card['terminated']} terminated and {card['truncated']} truncated. "
            f"`{card['command']}`."
        )
        parts += [f"![{text} of {name}](benchmarks/datasets/{folder}/{plot}.png)" for plot, text in CARD_PLOTS.items()]
    return "\n\n".join(parts)


def recipes() -> str:
    """The standard datasets in a table."""
    from offrl.collection import RECIPES

    rows = []
    for name, recipe in RECIPES.items():
        card = _kept(f"datasets/{name.replace('/', '-')}/card.json")
        figures = (f"{card['mean']['mean']:.0f}", f"{card['share_over_900']:.0%}") if card else ("", "")
        rows.append((f"`{name}`", recipe.description, *figures))
    return _table(("name", "what plays", "mean return", "episodes over 900"), rows)


def memory() -> str:
    """What many resets of CarRacing leave in memory."""
    found = _kept("memory.json")
    if found is None:
        return _missing("memory")
    rows = [
        (f"`{name}`", f"{row['before_mib']:.1f}", f"{row['grown_mib']:+.2f}") for name, row in found["rows"].items()
    ]
    head = ("environment", "resident MiB before", f"MiB added by {found['resets']} resets")
    return f"{_table(head, rows)}\n\n`{found['command']}`. {_machine(found['machine'])}."


def corruption() -> str:
    """What became of datasets that were damaged."""
    found = _kept("corruption.json")
    if found is None:
        return _missing("corruption")
    outcomes = ("refused", "equal", "needs a manifest", "failed")
    rows = [(damage, *(f"{row.get(name, 0):,}" for name in outcomes)) for damage, row in found["rows"].items()]
    peak = f"{found['largest_peak_bytes'] / 2**20:.1f} MiB at most while reading"
    return f"{_table(('damage', *outcomes), rows)}\n\n`{found['command']}`. {peak}. {_machine(found['machine'])}."


def damages() -> str:
    """What became of files of every kind that were damaged."""
    found = _kept("damages.json")
    if found is None:
        return _missing("damages")
    outcomes = ("noticed", "harmless", "failed")
    parts = []
    for title, rows in (("file", found["rows"]), ("damage", found["ways"])):
        lines = [(name, *(f"{row.get(outcome, 0):,}" for outcome in outcomes)) for name, row in rows.items()]
        parts.append(_table((title, *outcomes), lines))
    count = f"{found['count']:,} damages, {len(found['failures'])} of them neither noticed nor harmless."
    return "\n\n".join([*parts, f"{count} `{found['command']}`. {_machine(found['machine'])}."])


def faults() -> str:
    """What became of operations that something happened to."""
    found = _kept("faults.json")
    if found is None:
        return _missing("faults")
    rows = []
    for operation, row in found["rows"].items():
        for fault, counts in row.items():
            numbers = (f"{counts.get(outcome, 0):,}" for outcome in found["outcomes"])
            rows.append((operation, found["faults"][fault], f"{sum(counts.values()):,}", *numbers))
    titles = ("operation", "what happened", "tried", *found["outcomes"].values())
    cannot = [f"{found['faults'][fault]}: {reason}." for fault, reason in found["not_possible_here"].items()]
    remarks = " ".join([f"`{found['command']}`.", *(["Not possible there:", *cannot] if cannot else [])])
    return f"{_table(titles, rows)}\n\n{remarks} {_machine(found['machine'])}."


def soak() -> str:
    """What a process held after hours of work."""
    found = _kept("soak.json")
    if found is None:
        return _missing("soak")
    first, last = found["samples"][0], found["samples"][-1]
    titles = {"memory": "memory, MiB", "untrimmed": "with freed memory that malloc keeps, MiB"}
    rows = [(title, *(f"{each[key] / 2**20:,.1f}" for each in (first, last))) for key, title in titles.items()]
    for title, key in (("open files", "descriptors"), ("threads", "threads")):
        rows.append((title, f"{first[key]}", f"{last[key]}"))
    growth = f"from the second tenth of the time to the last, memory changed by {found['growth_of_memory']:+.2%}"
    return (
        f"{_table(('held', 'after one round', 'at the end'), rows)}\n\n{found['rounds']:,} rounds; {growth}. "
        f"`{found['command']}`. {_machine(found['machine'])}."
    )


def shelf() -> str:
    """Scores of all algorithms on the five kinds of datasets."""
    found = _kept("scores/results.json")
    if found is None:
        return _missing("scores")
    datasets = found["datasets"]
    head = ("dataset", "data", *found["algorithms"])
    rows = []
    for name, about in datasets.items():
        cells = [_over_runs(row["cells"][name]) for row in found["algorithms"].values()]
        rows.append((name.replace("/", ", "), f"{about['mean_return']:.1f}", *cells))
    shown = [*found["algorithms"].values()]
    better = "probability_of_improvement_over_bc"
    total = ("interquartile mean", "", *(_estimate(row["interquartile_mean"]) for row in shown))
    improved = ("better than BC", "", *(_estimate(row[better]) if better in row else "" for row in shown))
    seconds = ("seconds of one core", "", *(f"{row['cpu_seconds_per_run']:.0f}" for row in shown))
    first, last = found["evaluation_seeds"]
    return (
        f"{_table(head, [*rows, total, improved, seconds])}\n\n{found['runs']} training runs a cell, "
        f"{found['updates']:,} updates each, datasets of {found['transitions']:,} transitions, batch size "
        f"{found['batch_size']}, the same settings everywhere, 10 % of the episodes held out; {last - first + 1} "
        f"episodes a run. `{found['command']}`. {_machine(found['machine'])}."
        f"{_peers(found.get('peers', {}))}{_rliable(found.get('rliable'))}"
    )


def _peers(peers: Mapping[str, Any]) -> str:
    """Tables of ours minus each other library's."""
    parts = []
    for library, columns in peers.items():
        for settings, rows in columns.items():
            names = list(dict.fromkeys(name for row in rows.values() for name in row["cells"]))
            cells = [
                (name.replace("/", ", "), *(_difference(row["cells"].get(name)) for row in rows.values()))
                for name in names
            ]
            times = ("its seconds of one core over ours", *(f"{row['time_over_ours']:.2f}" for row in rows.values()))
            whose = (
                "with our learning rate, discount, network and target rule"
                if settings == "ours"
                else "with its defaults"
            )
            parts.append(f"\n\nOurs minus {library}'s, {whose}:\n\n{_table(('dataset', *rows), [*cells, times])}")
    if not parts:
        return ""
    return (
        "".join(parts) + "\n\nMean over training runs and its 95 % interval (Welch); * marks p < 0.05 after Holm's "
        "correction for all cells of one column of settings."
    )


def _difference(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    return _welch(cell["ours_minus_theirs"], star="*" if cell.get("p_holm", 1) < 0.05 else "")


def _welch(found: Mapping[str, Any], star: str = "") -> str:
    if found["low"] is None:
        return f"{found['mean']:+.1f}"
    return f"{found['mean']:+.1f}{star} ({found['low']:+.1f} to {found['high']:+.1f})"


def _rliable(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    return (
        f" rliable {found['version']} computes the same {found['aggregates']} aggregates, with a largest difference of "
        f"{found['largest_difference']:.0e}."
    )


def cost(name: str) -> str:
    """The lines that an algorithm consists of, without empty ones: its own files, and what names it elsewhere."""
    root = Path(__file__).parents[1]
    module, _, kind = name.partition(":")
    stem = module.rpartition(".")[2]
    names = re.compile(rf"\b({kind}|{kind}Config|{re.escape(module)})\b")

    def lines(path: str, keep: Callable[[str], Any] = len) -> int:
        return sum(1 for line in (root / path).read_text(encoding="utf-8").splitlines() if keep(line))

    page = (root / "docs" / "algorithms.md").read_text(encoding="utf-8")
    sections = [part.splitlines() for part in re.split(r"^(?=## )", page, flags=re.MULTILINE)]
    own = next(part for part in sections if any(f"settings offrl.algorithms:{kind}Config" in line for line in part))
    rows = [
        (f"offrl/algorithms/{stem}.py", "config and loss", lines(f"offrl/algorithms/{stem}.py")),
        (f"tests/algorithms/test_{stem}.py", "its tests", lines(f"tests/algorithms/test_{stem}.py")),
    ]
    losses = import_module("offrl.losses")
    files = {path.stem: path.read_text(encoding="utf-8") for path in (root / "offrl" / "algorithms").glob("*.py")}
    used = {file: {name for name in losses.__all__ if re.search(rf"\b{name}\b", text)} for file, text in files.items()}
    alone = used[stem].difference(*(found for file, found in used.items() if file != stem))
    equations = "".join(inspect.getsource(getattr(losses, name)) for name in alone).splitlines()
    rows.append(
        ("offrl/losses/", f"equations that it alone uses: {', '.join(sorted(alone))}", len([*filter(None, equations)]))
    )
    imports = re.compile(rf"{re.escape(module)}\b|^(from|import) .*\b{kind}(Config)?\b")
    for path in sorted((root / "offrl").rglob("*.py*")):
        inside = str(path.relative_to(root))
        if path.suffix in (".py", ".pyi") and inside != rows[0][0]:
            what = "its name on the command line" if path.suffix == ".py" else "exports"
            rows.append((inside, what, lines(inside, imports.search)))
    rows += [
        ("docs/api/algorithms.md", "its page of the reference", lines("docs/api/algorithms.md", names.search)),
        (
            "docs/algorithms.md",
            "its rows",
            lines("docs/algorithms.md", lambda line: line[:1] == "|" and names.search(line)),
        ),
        ("docs/algorithms.md", "its section", sum(1 for line in own if line)),
    ]
    return _table(("file", "what", "lines"), [(f"`{file}`", what, str(n)) for file, what, n in rows if n])


def _over_runs(cell: Mapping[str, Any]) -> str:
    if cell["interval_95"] is None:
        return f"{cell['mean']:.1f}"
    low, high = cell["interval_95"]
    return f"{cell['mean']:.1f} ({low:.1f} to {high:.1f})"


def _estimate(found: Mapping[str, float]) -> str:
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def neighbour() -> str:
    """Rates beside a busy process and of two runs side by side."""
    found = _kept("neighbour.json")
    if found is None:
        return _missing("neighbour")
    rows = [(name, f"{row['updates_per_second']:.1f}", _times(row["share"])) for name, row in found["rows"].items()]
    head = ("BCQ on CarRacing, batch 128", "updates per second", "of alone (lowest to highest)")
    return f"{_table(head, rows)}\n\n`{found['command']}`. {_machine(found['machine'])}."


def ranks() -> str:
    """One run on several ranks, several runs side by side, and what signals left."""
    found = _kept("ranks.json")
    if found is None:
        return _missing("ranks")
    rows = []
    for task in found["tasks"].values():
        for way, row in task["ways"].items():
            difference = task["largest_loss_difference"].get(str(row["processes"])) if " on " in way else None
            shown = "" if difference is None else f"{difference:.1e}"
            rows.append((task["environment"], way, str(row["threads"]), f"{row['updates_per_second']:.1f}", shown))
    head = ("data", "way", "threads of each process", "updates per second, all runs", "largest difference of a loss")
    signals = found.get("signals")
    stopped = (
        f"Of {signals['sent']} runs on two ranks that torchrun was told to end with SIGTERM, {signals['saved']} ended "
        f"with a checkpoint of their last update, after {signals['longest_seconds']:.1f} seconds at most.\n\n"
        if signals
        else ""
    )
    return f"{_table(head, rows)}\n\n{stopped}`{found['command']}`. {_machine(found['machine'])}."


def _kept(name: str) -> dict[str, Any] | None:
    """A result that a benchmark wrote, or None if this checkout has none."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _missing(command: str) -> str:
    return f"This checkout has no result. Produce it with `python -m benchmarks {command}`."


def _interval(mean: Mapping[str, Any]) -> dict[str, list[float] | None]:
    return {"interval_95": None if mean["low"] is None else [mean["low"], mean["high"]]}


def _bounds(ends: Sequence[float | None], count: int, unit: str = "episode", form: str = ".1f") -> str:
    """An interval in words, or why there is none."""
    bounds = Interval(math.nan, *ends).bounds(count, unit, form)
    return bounds if ends[0] is None else f"95 % interval {'over the runs ' if unit == 'run' else ''}{bounds}"


def _seeds(policies: Mapping[str, Any]) -> list[int]:
    """The seeds of the episodes that the policies played."""
    return [episode["seed"] for episode in next(iter(policies.values()))["per_episode"]]


def _score_row(name: str, score: Mapping[str, Any]) -> tuple[str, ...]:
    bounds = Interval(score["mean"], *(score["interval_95"] or (None, None))).bounds(score.get("episodes", 0))
    median = f"{score['median']:.1f}" if "median" in score else ""
    finished = str(score.get("finished", ""))
    return name, f"{score['mean']:.1f}", bounds, median, str(score.get("episodes", "")), finished


def _origin(result: Mapping[str, Any], policies: Mapping[str, Any]) -> str:
    """How a result was made: command, seeds, time, machine, versions."""
    seeds = _seeds(policies)
    minutes = result.get("minutes_from_an_empty_folder", result.get("seconds", 0) / 60)
    size = result.get("size")
    sizes = f"{size['transitions']:,} transitions, {size['updates']:,} updates. " if size else ""
    return (
        f"`{result['command']}`: {sizes}Seeds {min(seeds):,} to {max(seeds):,}. "
        f"{minutes:.1f} minutes in total on {_machine(result['machine'])}."
    )


def _machine(machine: Mapping[str, Any], device: str = "auto") -> str:
    where = (device != "cpu" and machine["gpu"]) or f"{machine['cores']} cores ({machine['processor']})"
    names = ("offrl", "torch", "gymnasium", "numpy")
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in names if name in machine["versions"])
    return f"{where}; Python {machine['python']}, {versions}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _table_of_names(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table whose first columns are code that stays on one line."""
    return f'<div class="names" markdown>\n\n{_table(head, rows)}\n\n</div>'


_GENERATORS: dict[str, Callable[..., str]] = {
    "training-runs": training_runs,
    "tried": tried,
    "time-to-score": time_to_score,
    "actions": actions,
    "benchmarks": benchmarks,
    "bound": bound,
    "commands": commands,
    "corruption": corruption,
    "cost": cost,
    "damages": damages,
    "data": data,
    "faults": faults,
    "dataset-cards": dataset_cards,
    "growth": growth,
    "identity": identity,
    "inference": inference,
    "judged": judged,
    "gained": gained,
    "leaderboard": leaderboard,
    "memory": memory,
    "precision": precision,
    "profile": profile,
    "public-names": public_names,
    "quick": quick,
    "neighbour": neighbour,
    "obp": obp,
    "shelf": shelf,
    "ranks": ranks,
    "recipes": recipes,
    "settings": settings,
    "soak": soak,
    "speed": speed,
    "train": train,
    "verified-versions": verified_versions,
}
