"""The README's table of results, and what the example says of its score, made from benchmarks/results/."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from benchmarks.driving import example
from benchmarks.laps import means_by_seed, means_on, points_lost, scores_of
from benchmarks.machines import processors
from offrl.envs import SCORE_SEEDS
from offrl.statistics import Interval, crossed_interval, t_interval

ROOT = Path(__file__).parent.parent
_PLACE = re.compile(r"(<!-- results -->\n).*?(<!-- end of results -->)", re.DOTALL)
_HEADLINE = re.compile(r"(<!-- headline -->\n).*?(<!-- end of headline -->)", re.DOTALL)
_OVER_RUNS = re.compile(r"^(OVER_RUNS: .*? = ).*$", re.MULTILINE)
_EXACT = "offrl, float32"
_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 10: "ten", 15: "fifteen"}


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def headline(results: Path) -> str:
    """What the demo scores over several training runs, in a sentence."""
    found = _read(results / "demo" / "runs.json")
    if "bcq" not in found.get("algorithms", {}):
        return ""
    bcq, data = found["algorithms"]["bcq"], _read(results / "demo" / "evaluation.json")["dataset"]
    runs, episodes = bcq["runs"], bcq["episodes"] // bcq["runs"]
    bounds = Interval(bcq["mean"], *(bcq["t_interval_95"] or (None, None))).bounds(bcq["seeds"], "seed", ".0f")
    interval = f"95 % interval over the seeds {bounds}" if bcq["t_interval_95"] else bounds
    scores = scores_of(bcq)
    crossed = None if scores is None else crossed_interval(scores)
    if crossed is not None and crossed.low is not None:
        interval += f", for other tracks as well {crossed.bounds(runs, form='.0f')}"
    return (
        f"`make demo` ({found['transitions']:,} transitions, {found['updates']:,} updates, 8 to 40 minutes on "
        f"2 cores), over **{_NUMBERS.get(runs, runs)} training runs**{_of_seeds(bcq)} on the same {episodes} tracks: "
        f"**BCQ {bcq['mean']:.0f}** on average, {bcq['lowest']:.0f} in the worst run and {bcq['highest']:.0f} in the "
        f"best ({interval}); {bcq['laps_with_every_tile']:,} of "
        f"{bcq['episodes']:,} laps without a missed tile. The data: {data['mean']:.0f}."
        f"{_longer(results)}{_shipped(results)}\n"
    )


def _of_seeds(row: Mapping[str, Any]) -> str:
    """Where seeds were trained several times, on several machines or in several precisions."""
    return (
        ""
        if row["seeds"] == row["runs"]
        else f" of {_NUMBERS.get(row['seeds'], row['seeds'])} seed{'s' * (row['seeds'] > 1)}"
    )


def _longer(results: Path) -> str:
    """What the full size scores over its own runs, in a sentence."""
    found = _read(results / "full" / "runs.json")
    bcq = found.get("algorithms", {}).get("bcq")
    if bcq is None:
        return ""
    return (
        f" With `ARGS=--full` ({found['transitions']:,} transitions, {found['updates']:,} updates) "
        f"{_NUMBERS.get(bcq['runs'], bcq['runs'])} run{'s' * (bcq['runs'] > 1)}{_of_seeds(bcq)} score "
        f"{bcq['lowest']:.0f} to {bcq['highest']:.0f}."
    )


def _shipped(results: Path) -> str:
    found = _read(results / "shipped.json")
    if not found:
        return ""
    earlier = " of an earlier recipe" if is_of_earlier_recipe(found) else ""
    return (
        f" [A policy{earlier}](offrl/hub/models/carracing-bcq.md) that scores {found['mean']:.0f} over "
        f"{found['episodes']} of these tracks comes with offrl: `.venv/bin/offrl watch carracing-bcq`."
    )


def beside_expert(expert: Mapping[str, Any] | None, found: Mapping[str, Any]) -> str:
    """By how much BCQ's runs are below the scripted expert on the same tracks, in a sentence; "" where not known."""
    bcq = found.get("algorithms", {}).get("bcq")
    if not expert or bcq is None:
        return ""
    seeds = {episode["seed"] for episode in expert["per_episode"]}
    if any({episode["seed"] for episode in run["per_episode"]} != seeds for run in bcq["per_run"].values()):
        return ""
    below = t_interval([expert["mean"] - mean for mean in means_by_seed(bcq["per_run"]).values()])
    return (
        f"The scripted expert, which knows the track, scores {expert['mean']:.1f} on the same tracks "
        f"({expert['finished']} of {expert['episodes']} laps, {expert['mean_length']:.0f} steps): BCQ's runs are "
        f"{below.mean:.1f} below it ({below.bounds(bcq['seeds'], 'seed')})."
    )


def _runs(results: Path) -> list[str]:
    """The tables over training runs, and where scores are lost."""
    lines = []
    for size, title in (("demo", "`make demo`"), ("full", "`make demo ARGS=--full`")):
        found = _read(results / size / "runs.json")
        if not found:
            continue
        lines += [
            f"{title}'s recipe over several training runs (`{found['command']}`, one thread each, "
            f"torch {found['machine']['versions']['torch']}; {processors(found['algorithms'].values())}):",
            "",
            _row("algorithm", *RUN_COLUMNS),
            "|---" * (1 + len(RUN_COLUMNS)) + "|",
            *(_row(name.upper(), *over_runs(row)) for name, row in found["algorithms"].items()),
            "",
            f"{LOST} {beside_expert(_read(results / 'expert.json'), found)}".strip(),
            "",
        ]
    return lines


LOST = "*Points*: what such laps cost an episode on average, against the mean of the laps with every tile."


RUN_COLUMNS = (
    "runs",
    "mean (95 % t interval)",
    "lowest, highest",
    "laps with every tile",
    "miss one to three tiles or so",
    "lose more",
)


def over_runs(row: dict[str, Any]) -> tuple[str, ...]:
    """The cells of `RUN_COLUMNS` for an algorithm in the JSON of `demo-runs`."""
    bounds = Interval(row["mean"], *(row["t_interval_95"] or (None, None))).bounds(row["seeds"], "seed")
    lost = points_lost(row)
    steps = f", {row['steps_of_finished_laps']:.0f} steps" if row["laps_with_every_tile"] else ""
    return (
        f"{row['runs']}{_of_seeds(row)}",
        f"{row['mean']:.1f} ({bounds})",
        f"{row['lowest']:.1f}, {row['highest']:.1f}",
        f"{row['laps_with_every_tile']:,} of {row['episodes']:,}{steps}",
        f"{row['laps_that_miss_one_to_three_tiles']}{'' if lost is None else f': {lost[0].points:.1f} points'}",
        f"{row['others']}{'' if lost is None else f': {lost[1].points:.1f} points'}",
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _peers(results: Path) -> list[str]:
    """Training speed beside other libraries, a column for each kind of processor, each of one run."""
    every = [_read(path) for path in sorted((results / "train").glob("*.json"))]
    names = ("offrl", "d3rlpy", "Tianshou", "notebook loop")
    measured = [found for found in every if found["device"] == "cpu" and {*names, _EXACT} <= set(found["ways"])]
    if not measured:
        return []
    first = measured[0]
    lines = [
        f"Training speed of discrete BCQ in updates a second, and how many times as fast offrl is: batches of "
        f"{first['batch_size']}, 4 x 96 x 96, {first['actions']} actions, {first['threads']} cores "
        f"(`{first['command']}`):",
        "",
        _row("library", *(found["machine"]["processor"] for found in measured)),
        _row(*["---"] * (1 + len(measured))),
    ]
    for name in names:
        ways = [found["ways"][name] for found in measured]
        times = [
            "" if name == "offrl" else ": {median:.1f} times ({low:.1f} to {high:.1f})".format(**way["ratio"])
            for way in ways
        ]
        lines.append(
            _row(name, *(f"{way['updates_per_second']:.1f}{text}" for way, text in zip(ways, times, strict=True)))
        )
    exact = " and ".join(f"{found['ways'][_EXACT]['updates_per_second']:.1f}" for found in measured)
    lines += [
        "",
        f"offrl trains in bf16 there, as it chooses by itself, the others in float32. In float32 it makes {exact}.",
    ]
    return [*lines, ""]


def results_text(results: Path) -> str:
    """Markdown: the CarRacing table of each size that was measured with today's recipe, CartPole, and where."""
    lines = _runs(results)
    for name, title in (
        ("demo", "`make demo`, one training run"),
        ("full", "`make demo ARGS=--full`, one training run"),
    ):
        found = _read(results / name / "evaluation.json")
        if found and not is_of_earlier_recipe(found):
            lines += [*_car_racing(title, found, _read(results / name / "runs.json")), ""]
    path = results / "cartpole" / "evaluation.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        lines += [
            f"CartPole, from data that the library collects: dataset {found['dataset_mean']['mean']:.0f}, BCQ "
            f"{found['BCQ']['mean']:.0f} of 500 over {found['BCQ']['episodes']} episodes of one training run, "
            f"{found['seconds']:.0f} seconds in all (`{found['command']}`).",
            "",
        ]
    lines += _peers(results)
    return "\n".join(lines).strip() + "\n"


def is_of_earlier_recipe(found: Mapping[str, Any]) -> bool:
    """Whether a run of the example, or the policy that comes with offrl, is from before its recipe was changed."""
    return found.get("recipe") != {"batch_size": example().BATCH_SIZE, **example().REPLAY}


def _car_racing(title: str, found: dict[str, Any], runs: dict[str, Any]) -> list[str]:
    machine = found["machine"]
    rows = {"dataset": found["dataset"], **found["policies"]}
    lines = [
        f"{title}: {found['size']['transitions']:,} transitions, {found['size']['updates']:,} updates each, "
        f"{found['minutes_from_an_empty_folder']:.0f} minutes from an empty folder "
        f"({machine['cores']} cores, {machine['processor']}, torch {machine['versions']['torch']}, "
        f"Gymnasium {machine['versions']['gymnasium']}).",
        "",
        "| policy | mean score | 95 % interval over episodes | finished laps |",
        "|---|---|---|---|",
    ]
    for name, row in rows.items():
        bounds = Interval(row["mean"], *(row["interval_95"] or (None, None))).bounds(row["episodes"])
        finished = f"{row.get('finished', 0)} of {row['episodes']}"
        lines.append(f"| {name} | {row['mean']:.1f} | {bounds} | {finished} |")
    difference = Interval(**found["bcq_minus_bc"])
    bounds = difference.bounds(len(found["policies"]["BCQ"]["per_episode"]), form="+.1f")
    lines += [
        "",
        f"BCQ - BC, paired by seed: {difference.mean:+.1f} ({bounds}).",
    ]
    bcq, seeds = runs.get("algorithms", {}).get("bcq"), {row["seed"] for row in found["policies"]["BCQ"]["per_episode"]}
    if bcq is not None:
        means = [*means_on(bcq, seeds)]
        lines[-1] += (
            f" On these {len(seeds)} tracks BCQ's {_NUMBERS.get(len(means), len(means))} runs of the table above, on "
            f"one thread each, score {min(means):.0f} to {max(means):.0f}."
        )
    return lines


def updated(readme: str, results: Path) -> str:
    """The README with today's results in their places."""
    readme = _HEADLINE.sub(lambda match: f"{match[1]}{headline(results)}{match[2]}", readme)
    return _PLACE.sub(lambda match: f"{match[1]}\n{results_text(results)}\n{match[2]}", readme)


def example_updated(source: str, results: Path) -> str:
    """examples/carracing_bcq.py with the scores over training runs that its table names: it works without results."""
    known = {}
    for size in ("demo", "full"):
        found = _read(results / size / "runs.json")
        if "bcq" in found.get("algorithms", {}):
            seeds = {*SCORE_SEEDS[: example().SIZES[size].episodes]}
            means = [*means_on(found["algorithms"]["bcq"], seeds)]
            known[size] = (len(means), round(min(means)), round(max(means)))
    literal = str(known).replace("'", '"')
    return _OVER_RUNS.sub(lambda match: match[1] + literal, source)


@click.command()
def readme() -> None:
    """Writes the results into the README and into the example."""
    results = ROOT / "benchmarks" / "results"
    for path, update in ((ROOT / "README.md", updated), (ROOT / "examples" / "carracing_bcq.py", example_updated)):
        path.write_text(update(path.read_text(encoding="utf-8"), results), encoding="utf-8")
