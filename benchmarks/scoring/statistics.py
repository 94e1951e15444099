"""What is reported of scores over tasks and runs, by the definitions of Agarwal et al. 2021 (arXiv:2108.13264).

Scores are [tasks, runs]: a task is a dataset, a run one training seed, its score the mean over its episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
Scores = NDArray[np.float64]


class Estimate(NamedTuple):
    """A number and its 95 % interval from the stratified bootstrap."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: Scores) -> float:
    """The mean of the middle half of all runs of all tasks: a quarter is cut off at each end.

    As `scipy.stats.trim_mean` with 0.25 does it, the number cut off at each end is rounded down.
    """
    values = np.sort(scores, axis=None)
    cut = len(values) // 4
    return float(values[cut : len(values) - cut].mean())


def probability_of_improvement(scores: Scores, others: Scores) -> float:
    """How probably a run of the first beats one of the second on the same task, averaged over tasks; a tie is half.

    The Mann-Whitney U statistic of each task, divided by the number of pairs.
    """
    wins = scores[:, :, None] > others[:, None, :]
    ties = scores[:, :, None] == others[:, None, :]
    return float((wins + 0.5 * ties).mean(axis=(1, 2)).mean())


def estimate(function: Callable[..., float], *scores: Scores, seed: int = 0) -> Estimate:
    """The function's value, and the 95 % percentile interval over runs drawn again within each task.

    Args:
        function: Of one or several arrays [tasks, runs].
        scores: Its arguments, each resampled by itself.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(NUM_RESAMPLES):
        drawn = [np.take_along_axis(each, rng.integers(each.shape[1], size=each.shape), axis=1) for each in scores]
        found.append(function(*drawn))
    low, high = np.quantile(found, (0.025, 0.975))
    return Estimate(function(*scores), float(low), float(high))
