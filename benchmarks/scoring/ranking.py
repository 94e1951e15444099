"""How well numbers rank policies whose true values are known."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np
from numpy.typing import NDArray

from benchmarks.scoring.statistics import Estimate

NUM_RESAMPLES = 2000
Values = NDArray[np.float64]


def spearman(estimates: Values, truth: Values) -> float:
    """Spearman's rank correlation; equal numbers share the mean of their ranks. NaN where all of one are equal."""
    ours, theirs = ranks(estimates), ranks(truth)
    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return float("nan")
    return float(np.corrcoef(ours, theirs)[0, 1])


def ranks(values: Values) -> Values:
    """1 for the least; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2)[inverse]


def spearman_interval(estimates: Values, truth: Values, seed: int = 0) -> Estimate:
    """Spearman's rank correlation with its 95 % percentile interval over candidates drawn again."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(NUM_RESAMPLES):
        drawn = rng.integers(len(truth), size=len(truth))
        found.append(spearman(estimates[drawn], truth[drawn]))
    low, high = np.nanquantile(found, (0.025, 0.975)) if not np.isnan(found).all() else (np.nan, np.nan)
    return Estimate(spearman(estimates, truth), float(low), float(high))


def regret(estimates: Values, truth: Values, k: int) -> float:
    """What is lost by taking the truly best of the `k` with the highest estimates, as a share of the truth's range."""
    chosen = np.argsort(-estimates, kind="stable")[:k]
    return float((truth.max() - truth[chosen].max()) / np.ptp(truth))


def chosen_over_best(estimates: Values, truth: Values) -> float:
    """The true value of the one with the highest estimate, divided by that of the best: 1 is right."""
    return float(truth[np.argmax(estimates)] / truth.max())


def binomial_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share (Clopper & Pearson 1934), by bisection of the binomial distribution."""

    def upper_tail(share: float) -> float:  # P(X >= successes)
        return sum(comb(trials, i) * share**i * (1 - share) ** (trials - i) for i in range(successes, trials + 1))

    def lower_tail(share: float) -> float:  # P(X <= successes)
        return sum(comb(trials, i) * share**i * (1 - share) ** (trials - i) for i in range(successes + 1))

    low = 0.0 if successes == 0 else _bisect(lambda share: upper_tail(share) < 0.025)
    high = 1.0 if successes == trials else _bisect(lambda share: lower_tail(share) > 0.025)
    return low, high


def _bisect(is_below: Callable[[float], bool]) -> float:
    """The share at which it stops to be true."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return low
