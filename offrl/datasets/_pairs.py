"""State-action pairs as keys: what tells two of them apart, and how many different ones there are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from offrl.replay._windows import stack_windows
from offrl.replay.store import FrameStore

_FRAME_HASH_BYTES = 16
_CHUNK_FRAMES = 4096
_CHUNK_ROWS = 65_536
_NUM_BINS = 100


def unique_pairs(store: FrameStore, states: Callable[[NDArray[np.int64]], NDArray[np.uint8]]) -> int:
    """How many different pairs there are of `states` of transitions [B], uint8 [B, K], and their actions."""
    pairs = np.empty(len(store), np.uint64)
    for rows in _chunks(len(store), _CHUNK_ROWS):
        actions = np.ascontiguousarray(store.actions[rows]).view(np.uint8).reshape(len(rows), -1)
        keys = np.concatenate([states(rows), actions], axis=1)
        digests = b"".join(hashlib.blake2b(key.data, digest_size=8).digest() for key in keys)
        pairs[rows] = np.frombuffer(digests, np.uint64)
    return len(np.unique(pairs))


def _chunks(length: int, size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, length, size):
        yield np.arange(start, min(start + size, length))


def feature_ranges(store: FrameStore) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The lowest and the highest value of each feature of the observations that actions were taken in."""
    parts = [store.frames_at(store.last[rows]) for rows in _chunks(len(store), _CHUNK_ROWS)]
    low = np.min([part.min(axis=0) for part in parts], axis=0)
    high = np.max([part.max(axis=0) for part in parts], axis=0)
    return tuple(low.tolist()), tuple(high.tolist())


def cells(
    store: FrameStore, low: NDArray[np.float64], high: NDArray[np.float64], rows: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """The bin of each feature of transitions `rows` [B], 0 .. 101: 0 under the range, 101 over it. [B, D]."""
    values = store.frames_at(store.last[rows]).astype(np.float64)
    width = np.where(high > low, high - low, 1.0)
    bins = np.minimum(np.floor((values - low) / width * _NUM_BINS), _NUM_BINS - 1)  # the highest value has no own bin
    bins[values < low] = -1
    bins[values > high] = _NUM_BINS
    return (bins + 1).astype(np.uint8)


def frame_hashes(store: FrameStore, progress: bool) -> NDArray[np.uint8]:
    """Of each frame, uint8 [F, 16]; a stack's hash is of those of its frames, so that each is read once."""
    num_frames = len(store.frames)
    hashes = np.empty((num_frames, _FRAME_HASH_BYTES), np.uint8)
    bar: Any = tqdm(
        total=num_frames, desc="unique pairs", unit=" frames", disable=None if progress else True, leave=False
    )
    with bar:
        for rows in _chunks(num_frames, _CHUNK_FRAMES):
            chunk = np.ascontiguousarray(store.frames_between(int(rows[0]), int(rows[-1]) + 1)).reshape(len(rows), -1)
            digests = (hashlib.blake2b(frame.data, digest_size=_FRAME_HASH_BYTES).digest() for frame in chunk)
            hashes[rows] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _FRAME_HASH_BYTES)
            bar.update(len(rows))
    return hashes


def stack_hashes(store: FrameStore, frames: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The hashes of the frames of each stack of transitions `rows` [B], oldest first. [B, S * 16]."""
    windows = stack_windows(store.last[rows], store.first[rows], store.spec.stack)
    return frames[windows].reshape(len(rows), -1)
