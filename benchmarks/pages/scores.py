"""Scores on the pages: of one training run, and of all algorithms on the five kinds of datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.pages.kept import (
    all_kept,
    difference_text,
    interval_of,
    interval_text,
    is_there,
    kept,
    machine_text,
    mean_and_interval,
    missing,
    table,
)
from benchmarks.readme import is_of_earlier_recipe
from benchmarks.scoring.aggregate import BETTER, OVER_ALL
from benchmarks.scoring.peers import below
from offrl.statistics import Interval

BENCHMARKS = {
    "demo": "CarRacing: the demo",
    "full": "CarRacing: the full size",
    "cartpole": "CartPole",
}
PLOTS = {
    "scores": "Every episode's return, its mean and 95 % interval, for each policy",
    "dataset_returns": "Histogram of the returns of the dataset's episodes",
}


def benchmarks() -> str:
    """Each stored result as a section; a missing one says how to produce it."""
    return "\n\n".join(f"### {title}\n\n{_benchmark(name)}" for name, title in BENCHMARKS.items())


def _benchmark(name: str) -> str:
    result = kept(f"{name}/evaluation.json")
    if result is None:
        return missing(name)
    policies = result.get("policies") or {"BCQ": result["BCQ"]}
    dataset = result.get("dataset") or {"mean": result["dataset_mean"]["mean"], **interval_of(result["dataset_mean"])}
    rows = [_score_row("the dataset", dataset), *(_score_row(policy, score) for policy, score in policies.items())]
    head = ("policy", "mean return", "95 % interval", "median", "episodes", "finished laps")
    filled = [column for column in zip(head, *rows, strict=True) if any(column[1:])]
    first, *others = zip(*filled, strict=True)
    parts = [table(first, others)]
    if "bcq_minus_bc" in result:
        difference = result["bcq_minus_bc"]
        ends = difference["low"], difference["high"]
        parts.append(
            "BCQ minus BC on the same seeds: "
            f"**{difference['mean']:.1f}**, {interval_text(ends, len(_seeds(policies)))}."
        )
    parts.append(_origin(result, policies))
    parts += [
        f"![{text}](benchmarks/{name}/{plot}.png)"
        for plot, text in PLOTS.items()
        if is_there(f"{name}/plots/{plot}.png")
    ]
    return "\n\n".join(parts)


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
    earlier = (
        "An earlier recipe, before the example's own was changed. " if size and is_of_earlier_recipe(result) else ""
    )
    sizes = f"{earlier}{size['transitions']:,} transitions, {size['updates']:,} updates. " if size else ""
    return (
        f"`{result['command']}`: {sizes}Seeds {min(seeds):,} to {max(seeds):,}. "
        f"{minutes:.1f} minutes in total on {machine_text(result['machine'])}."
    )


def shelf() -> str:
    """Scores of all algorithms on the five kinds of datasets of each environment, and over all environments."""
    results = all_kept("scores")
    over_all = results.pop(OVER_ALL, None)
    if not results:
        return missing("scores")
    parts = []
    for name, found in results.items():
        # What is compared with other libraries has runs of the same cells, which have a table of their own.
        is_shown = "peers" in found and name.removesuffix("-peers") in results
        parts.append(f"### {found['environment']}{_beside(found)}\n\n{_shelf(name, found, with_table=not is_shown)}")
    return "\n\n".join([*parts, *([] if over_all is None else _over_all(over_all))])


def _beside(found: Mapping[str, Any]) -> str:
    gpu = f", on {found['machine']['gpu']}" if found.get("device", "cpu") != "cpu" else ""
    return f"{gpu}{', beside other libraries' if 'peers' in found else ''}"


def _shelf(name: str, found: Mapping[str, Any], *, with_table: bool) -> str:
    datasets = found["datasets"]
    kinds = [name.rpartition("/")[2] for name in datasets]
    head = ("algorithm", *kinds, "interquartile mean", "better than BC", "seconds of one core")
    rows = [
        ("*mean of the data*", *(f"{about['mean_return']:.1f}" for about in datasets.values()), "", "", ""),
        ("*TQ*", *(f"{about['tq']:.2f}" for about in datasets.values()), "", "", ""),
        ("*SACo*", *(f"{about['saco']:.2f}" for about in datasets.values()), "", "", ""),
    ]
    for algorithm, row in found["algorithms"].items():
        improved = _estimate(row[BETTER]) if BETTER in row else ""
        seconds = "" if row["cpu_seconds_per_run"] is None else f"{row['cpu_seconds_per_run']:.0f}"
        cells = [mean_and_interval(row["cells"][dataset]) for dataset in datasets]
        rows.append((algorithm, *cells, _estimate(row["interquartile_mean"]), improved, seconds))
    scale = next(iter(found["datasets"].values()))
    text = "Ours minus other libraries'" if "peers" in found else "Interquartile mean of each algorithm"
    first, last = found["evaluation_seeds"]
    return (
        f"{table(head, rows) if with_table else ''}\n\n"
        f"![{text}](benchmarks/scores/{name}.png)\n\n"
        f"Random actions return {scale['random_return']:.1f}, the best online policy {scale['best_return']:.1f}. "
        f"{found['runs']} training runs a cell, "
        f"{found['updates']:,} updates each, datasets of {found['transitions']:,} transitions, batch size "
        f"{found['batch_size']}, the same settings everywhere, 10 % of the episodes held out; {last - first + 1} "
        f"episodes a run. `{found['command']}`. {machine_text(found['machine'])}."
        f"{_peers(found.get('peers', {}))}{_rliable(found.get('rliable'))}"
    )


def _over_all(found: Mapping[str, Any]) -> list[str]:
    """The aggregates over the datasets of all environments, of the algorithms that each has."""
    rows = [
        (name, _estimate(row["interquartile_mean"]), _estimate(row[BETTER]) if BETTER in row else "")
        for name, row in found["algorithms"].items()
    ]
    return [
        "### All environments",
        f"{', '.join(found['environments'])}, {found['runs']} runs of each cell.{_rliable(found.get('rliable'))}",
        f"![Interquartile mean of each algorithm](benchmarks/scores/{OVER_ALL}.png)",
        table(("algorithm", "interquartile mean", "better than BC"), rows),
    ]


def _peers(peers: Mapping[str, Any]) -> str:
    """Tables of ours minus each other library's."""
    parts = []
    for library, columns in peers.items():
        for settings, rows in columns.items():
            names = list(dict.fromkeys(name for row in rows.values() for name in row["cells"]))
            cells = [
                (name.rpartition("/")[2], *(_difference(row["cells"].get(name)) for row in rows.values()))
                for name in names
            ]
            took = [row["time_over_ours"] for row in rows.values()]
            times = ("its seconds of one core over ours", *("" if each is None else f"{each:.2f}" for each in took))
            whose = (
                "with our learning rate, discount, network and target rule"
                if settings == "ours"
                else "with its defaults"
            )
            parts.append(f"\n\nOurs minus {library}'s, {whose}:\n\n{table(('dataset', *rows), [*cells, times])}")
    if not parts:
        return ""
    worse = [f"{each.algorithm} of {each.library} on {each.dataset}" for each in below(peers, "ours")]
    return (
        "".join(parts) + "\n\nMean over training runs and its 95 % interval (Welch); * marks p < 0.05 after Holm's "
        "correction for all cells of this environment with the same settings. With ours, offrl is below another "
        f"library in {len(worse) or 'none'} of them{': ' * bool(worse)}{', '.join(worse)}."
    )


def _difference(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    return difference_text(cell["ours_minus_theirs"], star="*" if cell.get("p_holm", 1) < 0.05 else "")


def _rliable(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    return (
        f" rliable {found['version']} computes the same {found['aggregates']} aggregates, with a largest difference of "
        f"{found['largest_difference']:.0e}."
    )


def _estimate(found: Mapping[str, float]) -> str:
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
