"""The stacked layout on disk: every row with its whole observation and the next one."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.datasets._episodes import segments
from offrl.replay.store import FrameStore
from offrl.shards.manifest import ShardRecord, file_sha256
from offrl.system.files import replacing

_CHUNK = 256  # rows whose stacks are in memory at once


def stacked_shards(store: FrameStore, max_bytes: int) -> Iterator[list[range]]:
    """Which segments go into each shard, so that reading the shards finds these very segments again.

    Segments stay whole. A reader links rows that continue each other, so where two segments would be taken for one, the
    second begins a shard.

    Args:
        store: the data.
        max_bytes: of the observations in a shard, before compression, unless one segment alone has more.
    """
    row_bytes = 2 * store.frames[:1].nbytes * store.spec.stack
    shard: list[range] = []
    for rows in segments(store):
        if shard and (
            (rows.stop - shard[0].start) * row_bytes > max_bytes or _would_be_linked(store, shard[-1].stop - 1)
        ):
            yield shard
            shard = []
        shard.append(rows)
    yield shard


def _would_be_linked(store: FrameStore, row: int) -> bool:
    """Whether a reader takes the row after `row` for its continuation."""
    if store.terminated[row]:
        return False
    observation, after = store.observations(np.array([row, row + 1]))
    led_to = store.next_observations(np.array([row]))[0]
    spec = store.spec
    moved_on = not spec.is_pixels or np.array_equal(led_to[: -spec.channels], observation[spec.channels :])
    return bool(moved_on and np.array_equal(led_to, after))


def write_stacked_shard(path: Path, store: FrameStore, shard: list[range], *, compress: bool = True) -> ShardRecord:
    """Writes segments that lie together in the store as one shard; equal data gives equal bytes.

    The file appears whole or not at all, in a directory that is new. `dones` is true where the episode terminated.

    Args:
        path: the file.
        store: the data.
        shard: the segments, as `stacked_shards` gives them.
        compress: deflate; else the arrays are stored as they are.
    """
    rows = range(shard[0].start, shard[-1].stop)
    span = slice(rows.start, rows.stop)
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with replacing(path, sweeps=False) as partial, zipfile.ZipFile(partial, "w", method) as archive:
        _write_stacks(archive, "states", store, rows, store.observations)
        _write_array(archive, "actions", store.actions[span])
        _write_stacks(archive, "next_states", store, rows, store.next_observations)
        _write_array(archive, "rewards", store.rewards[span])
        _write_array(archive, "dones", store.terminated[span])
    return ShardRecord(
        name=path.name,
        sha256=file_sha256(path),
        num_transitions=len(rows),
        num_episodes=len(shard),
        num_frames=2 * len(rows) * store.spec.stack,
    )


def _write_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _write_stacks(
    archive: zipfile.ZipFile,
    name: str,
    store: FrameStore,
    rows: range,
    gather: Callable[[NDArray[np.int64]], NDArray[Any]],
) -> None:
    """A member of stacks that are never all in memory: they are 2 S times as large as the frames."""
    about = {
        "descr": np.lib.format.dtype_to_descr(store.frames.dtype),
        "fortran_order": False,
        "shape": (len(rows), *store.spec.observation_shape),
    }
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, about)
        for start in range(rows.start, rows.stop, _CHUNK):
            member.write(gather(np.arange(start, min(start + _CHUNK, rows.stop))).tobytes())
