"""How large the features of vectors are: the first layer of a network sums them as they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offrl.replay.store import FrameStore
from offrl.spec import TaskSpec

LARGE_FEATURE = 100.0
"""Beyond it a feature drowns the others: networks learn from numbers of about 1."""

_NUM_VALUES = 2**22  # of so many a look is taken: all of most tables


def largest_features(store: FrameStore, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64] | None:
    """The largest absolute value of each feature as networks see it, [D], of some rows; None for pictures.

    Args:
        store: The data.
        rows: Of which; None for all.
    """
    if store.spec.is_pixels:
        return None
    values = sample_vectors(store, rows) * store.spec.scale + store.spec.offset
    largest: NDArray[np.float64] = np.abs(values).max(axis=0)
    return largest


def sample_vectors(store: FrameStore, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Observations of vectors as they were logged, [n, D]: all of some rows, or, of many, some drawn evenly.

    Args:
        store: The data.
        rows: Of which; None for all.
    """
    rows = np.arange(len(store)) if rows is None else rows
    most = max(1, _NUM_VALUES // store.frames.shape[1])
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, size=most, replace=False))
    return store.frames_at(store.last[rows]).astype(np.float64)


def named(largest: NDArray[np.float64], spec: TaskSpec, most: int = 3) -> str | None:
    """Those that are too large, in words; None where none is."""
    large = np.flatnonzero(largest > LARGE_FEATURE)
    if not large.size:
        return None
    shown = [f"{spec.feature(index)} (up to {largest[index]:.3g})" for index in large[:most]] + ["..."] * (
        large.size > most
    )
    return f"{large.size} of {len(largest)} features are beyond {LARGE_FEATURE:g}: {', '.join(shown)}"
