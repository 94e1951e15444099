"""Scores of algorithms over the datasets of several environments, from the results of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.scoring.statistics import Scores, estimate, interquartile_mean, probability_of_improvement

BASELINE = "bc"
BETTER = "probability_of_improvement_over_bc"
OVER_ALL = "all"
"""What the result over all environments is kept as."""


def aggregates(scores: Mapping[str, Scores]) -> dict[str, dict[str, Any]]:
    """The interquartile mean of each algorithm's scores [datasets, runs], and how likely a run is better than BC's."""
    found: dict[str, dict[str, Any]] = {}
    for name, each in scores.items():
        found[name] = {"interquartile_mean": estimate(interquartile_mean, each)._asdict()}
        if name != BASELINE and BASELINE in scores:
            found[name][BETTER] = estimate(probability_of_improvement, each, scores[BASELINE])._asdict()
    return found


def pooled(results: Sequence[Mapping[str, Any]]) -> dict[str, Scores]:
    """Scores over the datasets of all results, of the algorithms that each has, in as many runs as the fewest."""
    shared = [name for name in results[0]["algorithms"] if all(name in found["algorithms"] for found in results)]
    fewest = min(found["runs"] for found in results)
    return {name: np.concatenate([_normalised(found, name)[:, :fewest] for found in results]) for name in shared}


def _normalised(found: Mapping[str, Any], algorithm: str) -> Scores:
    """Scores [datasets, runs] of an algorithm, 0 for random and 1 for the best online policy."""
    cells = found["algorithms"][algorithm]["cells"]
    rows = []
    for dataset, about in found["datasets"].items():
        low, high = about["random_return"], about["best_return"]
        rows.append([(run - low) / (high - low) for run in cells[dataset]["runs"]])
    return np.array(rows)
