"""A run's numbers, read back from its CSV files."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.errors import RunError
from offrl.system.files import open_regular


def read_metrics(path: str | Path) -> dict[str, NDArray[np.float64]]:
    """The columns [N] of a run's metrics.csv or timings.csv, by name; none where no row was written yet.

    Raises:
        RunError: the file is missing, or no table of numbers.
    """
    try:
        with open_regular(Path(path)) as packed, io.TextIOWrapper(packed, encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
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
