"""A run's numbers, read back from its CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offrl.errors import RunError
from offrl.runs._tables import read_table
from offrl.statistics import t_quantile


def read_metrics(path: str | Path) -> dict[str, NDArray[np.float64]]:
    """The columns [N] of a run's metrics.csv, timings.csv or evaluations.csv; none where no row was written yet.

    Raises:
        RunError: the file is missing, no table of numbers, or was changed since the run's `logs.json` or its newest
            checkpoint was written.
    """
    try:
        content = read_table(Path(path)).decode()
        header, *rows = list(csv.reader(io.StringIO(content, newline=""))) or [[]]
        table: NDArray[Any] = np.array([[float(value) for value in row] for row in rows])
        return {name: table[:, index] for index, name in enumerate(header)} if rows else {}
    except OSError as error:
        raise RunError(f"cannot be read ({error.strerror})", where=path, expected="a run's metrics.csv") from error
    except (ValueError, IndexError, csv.Error) as error:
        raise RunError(f"not a table of numbers ({error})", where=path, expected="a run's metrics.csv") from error


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred running mean over a twentieth of the run, over fewer values at its two ends. [N] -> [N]."""
    window = np.ones(2 * (len(values) // 40) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


class Curve(NamedTuple):
    """A number over gradient steps, over one or several training runs.

    Attributes:
        steps: at which all of the runs have it, [N].
        mean: over the runs, [N].
        low: where the band around the mean begins, [N]; None where there is none.
        high: where it ends.
    """

    steps: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None


def metric_curve(runs: Sequence[Mapping[str, NDArray[np.float64]]], name: str) -> Curve:
    """A column of metrics.csv over training runs: the mean of the smoothed values; from the lowest run to the highest.

    Values that are not finite are left out. One run has no band.

    Args:
        runs: the columns of each run, which has `step` and `name`.
        name: the column.
    """
    steps, values = _at_common_steps([(x, smooth(y) if len(y) else y) for x, y in _finite(runs, name)])
    if len(values) < 2:
        return Curve(steps, values.mean(axis=0))
    return Curve(steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0))


def score_curve(runs: Sequence[Mapping[str, NDArray[np.float64]]], name: str = "score") -> Curve:
    """A column of evaluations.csv over training runs: the mean, not smoothed, and Student's 95 % t interval over runs.

    One run has no band: its episodes say nothing of other training seeds.

    Args:
        runs: the columns of each run, which has `step` and `name`.
        name: the column.
    """
    steps, values = _at_common_steps(_finite(runs, name))
    mean = values.mean(axis=0)
    if len(values) < 2:
        return Curve(steps, mean)
    half = t_quantile(len(values) - 1) * values.std(axis=0, ddof=1) / len(values) ** 0.5
    return Curve(steps, mean, mean - half, mean + half)


def view_of(curves: Sequence[Curve]) -> tuple[float, float]:
    """From where to where the values of a picture reach: all means, and bands up to half as far again.

    The t interval of two training runs can be a dozen times as wide as the runs are apart: drawn whole, it would
    flatten every line.
    """
    means = np.concatenate([curve.mean for curve in curves])
    low, high = (float(means.min()), float(means.max())) if means.size else (0.0, 1.0)
    ends = [end for curve in curves if curve.low is not None for end in (curve.low, curve.high) if end is not None]
    if not ends:
        return low, high
    # Of a single evaluation, or of equal ones, there is no distance to take half of: there the band is seen whole.
    reach = 0.5 * (high - low) or np.inf
    seen = np.clip(np.concatenate(ends), low - reach, high + reach)
    return min(low, float(seen.min())), max(high, float(seen.max()))


Line = tuple[NDArray[np.float64], NDArray[np.float64]]


def _finite(runs: Sequence[Mapping[str, NDArray[np.float64]]], name: str) -> list[Line]:
    kept = [np.isfinite(run[name]) for run in runs]
    return [(run["step"][finite], run[name][finite]) for run, finite in zip(runs, kept, strict=True)]


def _at_common_steps(lines: Sequence[Line]) -> Line:
    """The steps [N] that all lines have, and their values there [R, N]."""
    steps = reduce(np.intersect1d, [x for x, _ in lines])
    return steps, np.stack([y[np.isin(x, steps)] for x, y in lines])
