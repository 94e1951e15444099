"""What training runs score on CarRacing, and where the points are lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offrl.statistics import t_interval

NEARLY = 1000 - 1000 / 250 * 3 - 100
"""About what a lap scores that misses three of 250 tiles and drives on to the time limit."""


def summary(evaluations: Mapping[Any, Mapping[str, Any]]) -> dict[str, Any]:
    """Of the evaluations by training seed: the mean of the runs' means, its t interval, and where scores are lost.

    Runs of one seed, on several processors or in several precisions, begin with the same weights and see the same
    batches: in the mean and its interval they count as one.
    """
    means = [found["mean"] for found in evaluations.values()]
    interval = t_interval([*means_by_seed(evaluations).values()])
    episodes = [row for found in evaluations.values() for row in found["per_episode"]]
    finished = [row for row in episodes if row["finished"]]
    missed = [row for row in episodes if _only_misses(row)]
    return {
        "runs": len(means),
        "seeds": len(means_by_seed(evaluations)),
        "mean": interval.mean,
        "t_interval_95": None if interval.low is None else [interval.low, interval.high],
        "lowest": min(means),
        "highest": max(means),
        "episodes": len(episodes),
        "laps_with_every_tile": len(finished),
        "laps_that_miss_one_to_three_tiles": len(missed),
        "others": len(episodes) - len(finished) - len(missed),
        "steps_of_finished_laps": sum(row["length"] for row in finished) / max(len(finished), 1),
        "per_run": {
            str(seed): {name: found[name] for name in ("mean", "finished", "mean_length", "per_episode")}
            for seed, found in evaluations.items()
        },
    }


def means_by_seed(evaluations: Mapping[Any, Mapping[str, Any]]) -> dict[int, float]:
    """Training seed -> mean of its runs; keys are seeds, or such as "0, AMD EPYC, bf16"."""
    found = _by_seed(evaluations)
    return {seed: float(np.mean([run["mean"] for run in runs])) for seed, runs in found.items()}


def _by_seed(runs: Mapping[Any, Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    found: dict[int, list[Mapping[str, Any]]] = {}
    for key, run in runs.items():
        found.setdefault(seed_of(key), []).append(run)
    return found


def seed_of(key: Any) -> int:
    """The training seed in a key of `per_run`: itself, or what comes first in one such as "0, AMD EPYC, bf16"."""
    return int(str(key).partition(", ")[0])


def _only_misses(row: Mapping[str, Any]) -> bool:
    return not row["finished"] and bool(row["score"] >= NEARLY)


class Lost(NamedTuple):
    """What laps without every tile cost, against the mean of the laps with every tile.

    Attributes:
        laps: How many there are.
        points: That an episode loses by them, on average over all episodes.
    """

    laps: int
    points: float


def points_lost(row: Mapping[str, Any], bounds: Sequence[float] = (NEARLY,)) -> list[Lost] | None:
    """Where the runs of a `summary` lose their points.

    Args:
        row: The summary.
        bounds: Scores, falling.

    Returns:
        Of the laps without every tile that score at least the first bound, of the others that score at least the
        second, and so on; last of the rest. None where no lap has every tile.
    """
    episodes = [episode for run in row["per_run"].values() for episode in run["per_episode"]]
    finished = [episode["score"] for episode in episodes if episode["finished"]]
    if not finished:
        return None
    whole = float(np.mean(finished))
    parts: list[list[float]] = [[] for _ in range(len(bounds) + 1)]
    for episode in episodes:
        if not episode["finished"]:
            parts[sum(episode["score"] < bound for bound in bounds)].append(whole - episode["score"])
    return [Lost(len(part), sum(part) / len(episodes)) for part in parts]


def scores_of(row: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """The mean score of each training seed's runs (rows) on each track (columns, by ascending seed), of a `summary`.

    None where the runs were not driven on the same tracks.
    """
    by_seed = [
        [{episode["seed"]: episode["score"] for episode in run["per_episode"]} for run in runs]
        for runs in _by_seed(row["per_run"]).values()
    ]
    tracks = sorted(by_seed[0][0])
    if any(sorted(run) != tracks for runs in by_seed for run in runs):
        return None
    return np.array([[np.mean([run[track] for run in runs]) for track in tracks] for runs in by_seed])


def means_on(row: Mapping[str, Any], seeds: set[int]) -> Iterator[float]:
    """Each run's mean score on some of the tracks that it was driven on."""
    for run in row["per_run"].values():
        yield float(np.mean([episode["score"] for episode in run["per_episode"] if episode["seed"] in seeds]))


def show(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the summaries, the best first."""
    width = max(map(len, rows))
    for name, row in sorted(rows.items(), key=lambda row: -float(row[1]["mean"])):
        laps = f"{row['laps_with_every_tile']} of {row['episodes']} laps with every tile"
        spread = f"{row['lowest']:.1f} to {row['highest']:.1f}"
        lost = points_lost(row)
        where = ""
        if lost is not None:
            where = f"; points lost: {lost[0].points:.1f} by missed tiles, {lost[1].points:.1f} by worse"
        runs = f"{row['runs']} runs of {row['seeds']} seeds"
        print(f"{name:{width}} {row['mean']:7.1f} over {runs}, {spread}, {laps}{where}")
