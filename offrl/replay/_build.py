"""The shards of a dataset, copied one after the other into a frame store."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np
from tqdm import tqdm

from offrl.errors import DatasetError
from offrl.replay._ingest_warnings import _warnings
from offrl.replay._writer import StoreWriter
from offrl.replay.store import IngestReport
from offrl.shards._frames_layout import read_frames
from offrl.shards._npz import NpzReader, open_npz
from offrl.shards._stacked_layout import read_stacked
from offrl.shards.download import MARKER_NAME
from offrl.shards.layouts import Dones, Layout, ShardRows, detect_layout
from offrl.shards.manifest import MANIFEST_NAME, Manifest, file_sha256
from offrl.spec import TaskSpec, default_action_names
from offrl.system.files import sync
from offrl.system.json_files import read_json, write_sealed_json
from offrl.system.workers import available_memory, num_cores

_MOST_READERS = 8
_IN_FLIGHT = 3
"""Sizes of a shard that reading, checking and holding it take; floats of pixels are turned into gray levels."""


_SAVE_BYTES = 64 * 2**20  # of frames between two records of how far an ingest has come


_PROGRESS_NAME = "progress.json"


@dataclass(frozen=True)
class _Dataset:
    directory: Path
    paths: tuple[Path, ...]
    manifest: Manifest | None
    spec: TaskSpec | None
    fetched: Mapping[str, str]
    """File -> SHA-256, where no manifest says it and the dataset was fetched."""


def _build(dataset: _Dataset, dones: Dones, skip_bad_shards: bool, store: Path, progress: bool) -> set[str]:
    """Writes the store beside its place and renames it; the caller holds the lock.

    An error leaves nothing behind. An interruption, a kill or a power cut leave what is done, to go on from.

    Returns:
        The fingerprints of stores of these shards, whatever their dones mean.
    """
    partial = store.with_name(f"{store.name}.partial")
    try:
        tally, writer = _begun(partial, skip_bad_shards)
        with writer:
            _copy_shards(dataset, dones, skip_bad_shards, tally, writer, progress)
        (partial / _PROGRESS_NAME).unlink(missing_ok=True)
        sync(partial)
        shutil.rmtree(store, ignore_errors=True)  # damaged, or without shards that were set aside
        partial.rename(store)
        sync(store.parent)
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return {_fingerprint(tally, each) for each in get_args(Dones)}


@dataclass
class _Tally:
    """What the shards so far have told."""

    num_read: int = 0
    layout: Layout | None = None
    shape: tuple[int, ...] | None = None
    highest_action: int = 0
    num_terminated: int = 0
    num_reversed: int = 0
    rounding_error: float = 0.0
    unexplained_error: float = 0.0
    hashes: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def add(self, shard: _Shard) -> None:
        rows = shard.rows
        self.layout, self.shape = shard.layout, rows.observation_shape
        self.highest_action = max(self.highest_action, int(rows.actions.max(initial=0)))
        self.num_terminated += int(rows.terminated.sum())
        self.num_reversed += rows.newest_first
        self.rounding_error = max(self.rounding_error, rows.largest_rounding_error)
        if not rows.is_unrounded_gray:
            self.unexplained_error = max(self.unexplained_error, rows.largest_rounding_error)
        self.hashes.append(shard.sha256)


def _begun(partial: Path, skip_bad_shards: bool) -> tuple[_Tally, StoreWriter]:
    """A store to write, from where one that was interrupted stands."""
    try:
        state = read_json(partial / _PROGRESS_NAME)
        shape = state["tally"]["shape"]
        tally = _Tally(**{**state["tally"], "shape": None if shape is None else tuple(shape)})
        if skip_bad_shards or not tally.skipped:
            return tally, StoreWriter(partial, state["writer"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        pass  # none, or not to be trusted
    shutil.rmtree(partial, ignore_errors=True)
    return _Tally(), StoreWriter(partial)


def _copy_shards(
    dataset: _Dataset, dones: Dones, skip_bad_shards: bool, tally: _Tally, writer: StoreWriter, progress: bool
) -> None:
    spec = dataset.spec
    num_actions = None if spec is None else spec.num_actions
    if spec is not None:
        tally.shape = spec.observation_shape
    unsaved = 0
    bar = tqdm(
        total=len(dataset.paths),
        initial=tally.num_read,
        desc="ingest",
        unit="shard",
        disable=None if progress else True,
    )
    with bar, closing(_read_in_order(dataset, dones, tally)) as shards:
        for shard in shards:
            path = dataset.paths[tally.num_read]
            tally.num_read += 1
            bar.update()
            if isinstance(shard, DatasetError):
                if not skip_bad_shards:
                    raise shard
                tally.skipped.append((path.name, str(shard)))
                continue
            writer.append(shard.rows, num_actions)
            tally.add(shard)
            unsaved += shard.rows.observations.nbytes
            if unsaved >= _SAVE_BYTES:
                state = {"tally": asdict(tally), "writer": writer.state()}
                write_sealed_json(writer.path / _PROGRESS_NAME, state)
                unsaved = 0
    if tally.layout is None or tally.shape is None or not writer.num_transitions:
        raise DatasetError(
            "the shards hold no transitions", where=dataset.directory, expected="1 or more", hint="collect data first"
        )
    if spec is None:
        spec = _inferred_spec(tally.shape, tally.highest_action + 1)
    report = IngestReport(
        layout=tally.layout,
        num_shards=len(dataset.paths) - len(tally.skipped),
        num_transitions=writer.num_transitions,
        num_segments=writer.num_segments,
        num_frames=writer.num_frames,
        largest_rounding_error=tally.rounding_error,
        warnings=tuple(_warnings(tally, writer.num_transitions)),
        skipped=tuple(tally.skipped),
    )
    writer.finish(spec, report, _fingerprint(tally, dones))


def _fingerprint(tally: _Tally, dones: Dones) -> str:
    return hashlib.sha256(json.dumps([tally.layout, dones, tally.hashes]).encode()).hexdigest()


@dataclass(frozen=True)
class _Shard:
    """One shard, read and checked."""

    sha256: str
    layout: Layout
    rows: ShardRows
    unpacked_bytes: int


def _read_in_order(dataset: _Dataset, dones: Dones, tally: _Tally) -> Generator[_Shard | DatasetError, None, None]:
    """The shards from `tally.num_read` on, or what is wrong with them; several are read at once.

    Threads are enough: hashing, inflating and comparing leave Python's lock to others. Together they keep to half of
    the memory that is free, as far as shards are like those before them.
    """
    upcoming = iter(range(tally.num_read, len(dataset.paths)))
    readers = min(num_cores(), _MOST_READERS)
    with ThreadPoolExecutor(readers, thread_name_prefix="offrl-ingest") as pool:
        pending: deque[Future[_Shard]] = deque()
        largest = 1
        try:
            while True:
                # The first good shard says what the others have to be like, so it is read alone.
                room = available_memory() // (2 * _IN_FLIGHT * largest) + len(pending)
                ahead = 1 if tally.layout is None else min(readers + 1, max(1, room))
                for index in islice(upcoming, ahead - len(pending)):
                    pending.append(pool.submit(_read, dataset, index, dones, tally.layout, tally.shape))
                if not pending:
                    return
                try:
                    shard = pending.popleft().result()
                except DatasetError as error:
                    yield error
                else:
                    largest = max(largest, shard.unpacked_bytes)
                    yield shard
        finally:
            for future in pending:
                future.cancel()


def _read(dataset: _Dataset, index: int, dones: Dones, layout: Layout | None, shape: tuple[int, ...] | None) -> _Shard:
    spec = dataset.spec
    sha256 = _verified_sha256(dataset, index)
    with open_npz(dataset.paths[index]) as shard:
        found = detect_layout(shard)
        if layout not in (None, found):
            raise shard.fault(
                f"is in the {found} layout", expected=f"{layout}, like the shards before it", hint="move it away"
            )
        rows = _read_shard(shard, found, spec, shape, None if spec is None else spec.num_actions, dones)
        unpacked_bytes = shard.unpacked_bytes
    if dataset.manifest is not None:
        _require_recorded(dataset.paths[index], dataset.manifest, index, found, rows)
    return _Shard(sha256, found, rows, unpacked_bytes)


def _read_shard(
    shard: NpzReader,
    layout: Layout,
    spec: TaskSpec | None,
    shape: tuple[int, ...] | None,
    num_actions: int | None,
    dones: Dones,
) -> ShardRows:
    if layout == "stacked":
        return read_stacked(shard, shape, num_actions, dones, 1 if spec is None else spec.channels)
    if spec is None:
        raise DatasetError(
            "no such file",
            where=shard.path.parent / MANIFEST_NAME,
            expected="the manifest of a frames dataset, which says how many frames make an observation",
            hint="restore it, or pass spec=",
        )
    return read_frames(shard, spec)


def _verified_sha256(dataset: _Dataset, index: int) -> str:
    path = dataset.paths[index]
    try:
        found = file_sha256(path)
    except OSError as error:
        raise DatasetError(
            f"cannot be read ({error.strerror})", where=path, expected="a shard", hint="restore it or re-create it"
        ) from error
    if dataset.manifest is not None:
        expected, by = dataset.manifest.shards[index].sha256, MANIFEST_NAME
    else:
        expected, by = dataset.fetched.get(path.name, found), MARKER_NAME
    if found != expected:
        raise DatasetError(
            f"sha256 is {found}",
            where=path,
            expected=f"{expected}, as {by} says",
            hint="the file was changed or damaged since it was written: restore it or collect the data again"
            if by == MANIFEST_NAME
            else f"the file was changed since it was fetched: remove the directory and fetch it again, or delete {by}",
        )
    return found


def _require_recorded(path: Path, manifest: Manifest, index: int, layout: Layout, rows: ShardRows) -> None:
    """Raises DatasetError unless the shard is of the layout and has the counts that the manifest says."""
    record = manifest.shards[index]
    facts: list[tuple[str, object, object]] = [
        ("layout", layout, manifest.layout),
        ("num_transitions", len(rows), record.num_transitions),
    ]
    if layout == "frames":
        facts.append(("num_episodes", len(np.unique(rows.segment_end)), record.num_episodes))
        facts.append(("num_frames", len(rows.observations), record.num_frames))
    else:  # what is an episode there depends on `dones`
        facts.append(("num_frames", 2 * manifest.spec.stack * len(rows), record.num_frames))
    for name, found, expected in facts:
        if found != expected:
            raise DatasetError(
                f"{name} is {found}",
                where=path,
                expected=f"{expected}, as {MANIFEST_NAME} says",
                hint="the manifest was changed or is of other data: restore it, or collect the data again",
            )


def _inferred_spec(shape: tuple[int, ...], num_actions: int) -> TaskSpec:
    names = default_action_names(max(num_actions, 2))
    if len(shape) == 1:
        return TaskSpec.vector(shape[0], names)
    stack, height, width = shape
    return TaskSpec.pixels((stack, height, width), names)
