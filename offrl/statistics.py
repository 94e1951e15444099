"""Means with 95 % intervals: over episodes by the bootstrap, over training runs by Student's t."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

LEAST_VALUES = 5
"""From fewer values there is no bootstrap interval: it would be far too narrow for the 95 % that it claims."""


class Interval(NamedTuple):
    """A mean and its 95 % interval, whose ends are None where the values are too few for one."""

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.1f} (too few for an interval)"
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"

    def bounds(self, num_values: int, unit: str = "episode", form: str = ".1f") -> str:
        """The interval in words: "10.0 to 40.0", or "2 episodes: too few for an interval".

        Args:
            num_values: how many values the mean is of.
            unit: what a value is of, in the singular.
            form: the numbers' format.
        """
        if self.low is None or self.high is None:
            return f"{num_values:,} {unit}{'' if num_values == 1 else 's'}: too few for an interval"
        return f"{self.low:{form}} to {self.high:{form}}"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `interval_95` is None where there is no interval."""
        ends = None if self.low is None or self.high is None else [self.low, self.high]
        return {"mean": self.mean, "interval_95": ends}


def bootstrap_mean(values: ArrayLike, num_resamples: int = 10_000) -> Interval:
    """The mean of independent values and its 95 % percentile bootstrap interval (Efron 1979).

    The resampling is seeded, so the same values give the same interval. Fewer than five values have a mean and no
    interval; no values give NaN. Above 10,000 values the means are as good as normally distributed, and 1.96 standard
    errors take the place of resampling.

    Args:
        values: [N] floats.
        num_resamples: how often N values are drawn with replacement.
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    if len(sample) < LEAST_VALUES:
        return Interval(float(sample.mean()) if len(sample) else np.nan, None, None)
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


def t_interval(values: ArrayLike) -> Interval:
    """The mean of independent values and its 95 % Student t interval (Student 1908).

    Made for few values of about a normal distribution, such as the mean scores of several training runs: unlike the
    bootstrap's, its width allows for the standard deviation being estimated from those few. One value has no interval.

    Args:
        values: [N] floats, N over 0.
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    mean = float(sample.mean())
    if len(sample) < 2:
        return Interval(mean, None, None)
    half = t_quantile(len(sample) - 1) * float(sample.std(ddof=1)) / len(sample) ** 0.5
    return Interval(mean, mean - half, mean + half)


@cache
def t_quantile(degrees_of_freedom: int) -> float:
    """The t that Student's distribution exceeds, up or down, with a probability of 5 %: its 97.5 % quantile.

    Found by bisection: for whole degrees of freedom, the probability is a finite sum of sines and cosines.

    Args:
        degrees_of_freedom: 1 or more.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # halvings: more than a float has bits
        middle = (low + high) / 2
        low, high = (middle, high) if _t_probability(middle, degrees_of_freedom) < 0.95 else (low, middle)
    return math.tan(low) * math.sqrt(degrees_of_freedom)


def _t_probability(angle: float, degrees_of_freedom: int) -> float:
    """P(|T| < t) at angle = atan(t / sqrt(degrees of freedom)): Abramowitz & Stegun 1964, 26.7.3 and 26.7.4."""
    is_odd = degrees_of_freedom % 2
    term = math.cos(angle) if is_odd else 1.0
    total = term if degrees_of_freedom > 1 else 0.0
    for k in range(2 + is_odd, degrees_of_freedom, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        total += term
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if is_odd else total
