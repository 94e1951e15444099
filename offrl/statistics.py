"""Means with bootstrap confidence intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Interval(NamedTuple):
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"


def bootstrap_mean(values: ArrayLike, num_resamples: int = 10_000) -> Interval:
    """The mean of independent values and its 95 % percentile bootstrap interval (Efron 1979).

    The resampling is seeded, so the same values give the same interval. No values give NaN. Above 10,000 values the
    means are as good as normally distributed, and 1.96 standard errors take the place of resampling.

    Args:
        values: [N] floats.
        num_resamples: how often N values are drawn with replacement.
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    if len(sample) == 0:
        return Interval(np.nan, np.nan, np.nan)
    if len(sample) > 10_000:
        half = 1.96 * float(sample.std()) / len(sample) ** 0.5
        return Interval(float(sample.mean()), float(sample.mean()) - half, float(sample.mean()) + half)
    rng = np.random.default_rng(0)
    # In slices: 10,000 resamples of 10,000 values would otherwise take most of a gigabyte.
    means = np.concatenate(
        [sample[rng.integers(len(sample), size=(100, len(sample)))].mean(axis=1) for _ in range(num_resamples // 100)]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(sample.mean()), float(low), float(high))
