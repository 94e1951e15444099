"""Whether two sets of training runs differ: Welch's t test (Welch 1947), and Holm's correction for many (Holm 1979).

Welch's and no permutation test: of five runs against five a permutation test has 252 splits, so that its p-value is
never under 0.008, and after the correction for some dozens of cells nothing could ever be found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from offrl.statistics import t_p_value, t_quantile


class Difference(NamedTuple):
    """The mean of the first minus the mean of the second, with its 95 % interval, None where a side has one run.

    `p` is the two-sided p-value of no difference, likewise.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None


def welch(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """The difference of two means of independent runs, whose variances need not be equal."""
    mean = float(np.mean(ours) - np.mean(theirs))
    if min(len(ours), len(theirs)) < 2:
        return Difference(mean, None, None, None)
    parts = [float(np.var(runs, ddof=1)) / len(runs) for runs in (ours, theirs)]
    error = math.sqrt(sum(parts))
    if error == 0:  # every run has the same score, such as an environment's highest
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    sizes = (len(ours) - 1, len(theirs) - 1)
    degrees = sum(parts) ** 2 / sum(part**2 / size for part, size in zip(parts, sizes, strict=True))
    half = t_quantile(degrees) * error
    return Difference(mean, mean - half, mean + half, t_p_value(mean / error, degrees))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number: the k-th smallest times how many are left, never falling, up to 1."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = highest
    return corrected
