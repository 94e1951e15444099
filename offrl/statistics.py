"""Means with 95 % intervals: over episodes by the bootstrap, over training runs by Student's t, over both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offrl.checks import is_whole
from offrl.errors import ConfigError

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


def _decimals(*numbers: float) -> int | None:
    """How many decimals show numbers that stand together; None where only an exponent is short."""
    largest = max((abs(each) for each in numbers if math.isfinite(each)), default=0.0)
    if largest == 0 or 1 <= largest < 1e5:
        return 2
    if 1e5 <= largest < 1e9:
        return 0
    return 3 - math.floor(math.log10(largest)) if 1e-3 <= largest < 1 else None


def number_text(number: float, *, beside: Sequence[float] = (), sign: str = "") -> str:
    """A number as tables show it: "1,234.50", "0.002100", "9.1e+40".

    Args:
        number: The number.
        beside: What it is read together with, so that all have the same decimals; 2 where
            the largest is from 1 to 100,000, above that none, below that as many as show four digits of it.
        sign: "+" shows that of positive numbers, too.
    """
    decimals = _decimals(number, *beside)
    return f"{number:{sign}.4g}" if decimals is None else f"{number:{sign},.{decimals}f}"


def has_spread(values: ArrayLike) -> bool:
    """Whether values differ by more than rounding: what a histogram with several bins can show. [N], one or more."""
    sample = np.asarray(values, dtype=np.float64).ravel()
    return bool(np.ptp(sample) > 1e-9 * np.abs(sample).max())


def bootstrap_mean(values: ArrayLike, num_resamples: int = 10_000) -> Interval:
    """The mean of independent values and its 95 % percentile bootstrap interval (Efron 1979).

    The resampling is seeded, so the same values give the same interval. Fewer than five values have a mean and no
    interval; no values give NaN. Above 10,000 values the means are as good as normally distributed, and 1.96 standard
    errors take the place of resampling.

    Args:
        values: [N] floats.
        num_resamples: how often N values are drawn with replacement, 1 or more.

    Raises:
        ConfigError: fewer resamples.
    """
    if not is_whole(num_resamples) or num_resamples < 1:
        raise ConfigError(
            f"{num_resamples!r}", where="bootstrap_mean.num_resamples", expected="1 or more, a whole number"
        )
    sample = np.asarray(values, dtype=np.float64).ravel()
    if len(sample) < LEAST_VALUES:
        return Interval(float(sample.mean()) if len(sample) else np.nan, None, None)
    if len(sample) > 10_000:
        half = 1.96 * float(sample.std()) / len(sample) ** 0.5
        return Interval(float(sample.mean()), float(sample.mean()) - half, float(sample.mean()) + half)
    rng = np.random.default_rng(0)
    # In slices: 10,000 resamples of 10,000 values would otherwise take most of a gigabyte.
    slices = [min(100, num_resamples - start) for start in range(0, num_resamples, 100)]
    means = np.concatenate(
        [sample[rng.integers(len(sample), size=(count, len(sample)))].mean(axis=1) for count in slices]
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


def crossed_interval(values: ArrayLike) -> Interval:
    """The mean over rows and columns, both drawn at random, such as training runs and the tracks that each drives.

    Student's t interval with the variance of the row means over R plus that of the column means over T, and Welch and
    Satterthwaite's degrees of freedom: it holds for other runs on other tracks. What varies in each cell by itself
    counts twice, so that it is rather too wide. A single row or column has no interval.

    Args:
        values: [R, T] floats.
    """
    table = np.asarray(values, dtype=np.float64)
    mean = float(table.mean())
    if min(table.shape) < 2:
        return Interval(mean, None, None)
    # Squares of squares leave the range of floats long before the values do. A power of two rounds nothing.
    exponent = math.frexp(float(np.abs(table).max()))[1]
    table = np.ldexp(table, -exponent)
    parts = [float(table.mean(axis=1 - axis).var(ddof=1)) / size for axis, size in enumerate(table.shape)]
    if sum(parts) == 0:
        return Interval(mean, mean, mean)
    degrees = sum(parts) ** 2 / sum(part**2 / (size - 1) for part, size in zip(parts, table.shape, strict=True))
    half = t_quantile(degrees) * math.sqrt(sum(parts))
    # With few rows it could else be narrower than theirs alone, which have fewer degrees of freedom.
    alone = [t_quantile(size - 1) * math.sqrt(part) for part, size in zip(parts, table.shape, strict=True)]
    half = math.ldexp(max(half, *alone), exponent)
    return Interval(mean, mean - half, mean + half)


@cache
def t_quantile(degrees_of_freedom: float) -> float:
    """The t that Student's distribution exceeds, up or down, with a probability of 5 %: its 97.5 % quantile.

    Args:
        degrees_of_freedom: 1 or more, not necessarily whole: Welch's test has fractions.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # halvings: more than a float has bits
        middle = (low + high) / 2
        low, high = (middle, high) if _two_sided_tail(middle, degrees_of_freedom) > 0.05 else (low, middle)
    return math.tan(low) * math.sqrt(degrees_of_freedom)


def t_p_value(t: float, degrees_of_freedom: float) -> float:
    """The probability that Student's distribution is as far from 0 as `t`, up or down."""
    return _two_sided_tail(math.atan2(abs(t), math.sqrt(degrees_of_freedom)), degrees_of_freedom)


def _two_sided_tail(angle: float, degrees: float) -> float:
    """P(|T| > t) at angle = atan(t / sqrt(degrees)): there, the density is cos(angle) to the power of degrees - 1."""
    return _integral(angle, degrees) / _integral(0.0, degrees)


def _integral(start: float, degrees: float) -> float:
    nodes, weights = _nodes()
    end = min(math.pi / 2, 40 / math.sqrt(degrees))  # beyond, nothing is left, and the nodes would miss what is before
    half = max(0.0, end - start) / 2
    return float(weights @ np.cos(start + half * (nodes + 1)) ** (degrees - 1)) * half


@cache
def _nodes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of Gauss and Legendre's quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    return nodes, weights
