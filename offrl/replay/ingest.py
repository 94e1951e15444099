"""Any dataset -> FrameStore, once: a second call opens what the first one made."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, get_args

from tqdm import tqdm

from offrl.errors import ConfigError, DatasetError
from offrl.replay.layouts import Dones, Layout, ShardRows, detect_layout, read_frames, read_stacked
from offrl.replay.npz import NpzReader, open_npz
from offrl.replay.remote import local_copy
from offrl.replay.shards import MANIFEST_NAME, Manifest, file_sha256
from offrl.replay.store import STORE_NAME, STORE_VERSION, FrameStore, IngestReport, Tier
from offrl.replay.writer import StoreWriter
from offrl.spec import TaskSpec, default_action_names

_ROUNDING_TOLERANCE = 0.05  # gray levels; gray / 128 - 1 is exact even in float16


def ingest(
    directory: Path | str,
    *,
    spec: TaskSpec | None = None,
    dones: Dones = "terminated",
    cache: Path | str | None = None,
    tier: Tier = "auto",
    progress: bool = True,
) -> FrameStore:
    """Turns a directory of shards, in either layout, into a FrameStore, or opens the one made before.

    The store lies in `<directory>/.store/<key>/`, or, where that cannot be written, in `<cache>/<key>/`. It appears
    whole or not at all. A shard's end ends a segment.

    Args:
        directory: the shards (`*.npz`), and for the frames layout `manifest.json`; or its address elsewhere, such as
            s3://bucket/folder, see `offrl.replay.remote`.
        spec: the task; needed where no manifest says it, except for the stacked layout, whose spec is otherwise read
            off the data (the highest action there is the last one, and the actions are nameless).
        dones: stacked layout only: whether true in `dones` says that the episode "terminated" or "not_done".
        cache: where to put the store; default: beside the data, else $OFFRL_CACHE, else ~/.cache/offrl.
        tier: see `FrameStore.open`.
        progress: show a bar on stderr where that is a terminal.

    Raises:
        ConfigError: an unknown value of `dones` or `tier`.
        DatasetError: a missing, damaged or inconsistent dataset; nothing is left behind.
        SpecMismatchError: `spec` differs from the manifest's.
    """
    if dones not in get_args(Dones):
        raise ConfigError(f"{dones!r}", where="dones", expected=f"one of {', '.join(get_args(Dones))}")
    if tier not in get_args(Tier):  # before the work, not after it
        raise ConfigError(f"{tier!r}", where="tier", expected=f"one of {', '.join(get_args(Tier))}")
    directory = local_copy(directory, cache=cache, progress=progress)
    dataset = _find_dataset(Path(directory), spec)
    key = _key(dataset, dones)
    roots = [Path(cache)] if cache is not None else [dataset.directory / ".store", _cache_home()]
    for root in roots:
        if (root / key / STORE_NAME).is_file():
            return FrameStore.open(root / key, tier)
    root = next((root for root in roots if _is_writable(root)), roots[-1])
    try:
        with _locked(root):
            # Another process may have built it while this one waited.
            fresh = not (root / key / STORE_NAME).is_file()
            if fresh:
                _build(dataset, dones, root / key, progress)
    except OSError as error:
        raise DatasetError(
            f"the frame store cannot be written ({error})",
            where=root,
            expected="a writable directory with room for it",
            mend="free some space, or set OFFRL_CACHE to another directory",
        ) from error
    store = FrameStore.open(root / key, tier)
    if fresh:
        for line in store.report.warnings:
            warnings.warn(f"{dataset.directory}: {line}", stacklevel=2)
    return store


@dataclass(frozen=True)
class _Dataset:
    directory: Path
    paths: tuple[Path, ...]
    manifest: Manifest | None
    spec: TaskSpec | None


def _find_dataset(directory: Path, spec: TaskSpec | None) -> _Dataset:
    if not directory.is_dir():
        what = "is not a directory" if directory.exists() else "no such directory"
        raise DatasetError(
            what, where=directory, expected="a directory of .npz shards", mend="check the path, or collect data first"
        )
    if (directory / MANIFEST_NAME).exists():
        manifest = Manifest.load(directory)
        if spec is not None:
            spec.require_same(
                manifest.spec,
                where=directory / MANIFEST_NAME,
                mend="pass no spec to take the data's own, or point at data of this task",
            )
        if not manifest.complete:
            warnings.warn(
                f"{directory}: the collection was interrupted; only the finished shards are read", stacklevel=3
            )
        paths = tuple(directory / shard.name for shard in manifest.shards)
        spec = manifest.spec
    else:
        manifest = None
        paths = tuple(sorted(path for path in directory.glob("*.npz") if not path.name.startswith(".")))
    if not paths:
        raise DatasetError(
            "holds no shards", where=directory, expected="*.npz files", mend="check the path, or collect data first"
        )
    return _Dataset(directory, paths, manifest, spec)


def _key(dataset: _Dataset, dones: Dones) -> str:
    """Names a store by all that it depends on, without reading the shards."""
    if dataset.manifest is not None:
        files: list[object] = [(shard.name, shard.sha256) for shard in dataset.manifest.shards]
    else:
        stats = [(path.name, path.stat()) for path in dataset.paths]
        files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    spec = None if dataset.spec is None else dataset.spec.to_dict()
    return hashlib.sha256(json.dumps([STORE_VERSION, files, spec, dones]).encode()).hexdigest()[:16]


def _cache_home() -> Path:
    return Path(os.environ.get("OFFRL_CACHE") or Path.home() / ".cache" / "offrl")


def _is_writable(root: Path) -> bool:
    """Whether `root` can be written, or, where it does not exist, made."""
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    return os.access(existing, os.W_OK)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One process at a time builds in `root`; the lock of a killed one is free again."""
    lock = root / "lock"
    try:
        while True:
            root.mkdir(parents=True, exist_ok=True)
            with lock.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not _is_still(lock, file):
                    continue  # the one before failed and removed it
                yield
                return
    except BaseException:
        lock.unlink(missing_ok=True)
        with suppress(OSError):  # it holds other stores
            root.rmdir()
        raise


def _is_still(path: Path, file: IO[str]) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _build(dataset: _Dataset, dones: Dones, store: Path, progress: bool) -> None:
    """Writes the store beside its place and renames it; the caller holds the lock."""
    partial = store.with_name(f"{store.name}.partial")
    for leftover in (partial, store):  # of a killed process, or damaged
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with StoreWriter(partial) as writer:
            _copy_shards(dataset, dones, writer, progress)
        partial.rename(store)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _copy_shards(dataset: _Dataset, dones: Dones, writer: StoreWriter, progress: bool) -> None:
    spec, layout = dataset.spec, None
    shape = None if spec is None else spec.observation_shape
    num_actions = None if spec is None else spec.num_actions
    highest_action, num_terminated, num_reversed, rounding_error = 0, 0, 0, 0.0
    hashes = []
    for index, path in enumerate(tqdm(dataset.paths, "ingest", unit="shard", disable=None if progress else True)):
        hashes.append(_verified_sha256(dataset, index))
        with open_npz(path) as shard:
            found = detect_layout(shard)
            if layout not in (None, found):
                raise shard.fault(
                    f"is in the {found} layout", expected=f"{layout}, like the shards before it", mend="move it away"
                )
            layout = found
            rows = _read_shard(shard, layout, spec, shape, num_actions, dones)
        shape = rows.observation_shape
        writer.append(rows, num_actions)
        highest_action = max(highest_action, int(rows.actions.max(initial=0)))
        num_terminated += int(rows.terminated.sum())
        num_reversed += rows.newest_first
        rounding_error = max(rounding_error, rows.largest_rounding_error)
    if layout is None or shape is None or not writer.num_transitions:
        raise DatasetError(
            "the shards hold no transitions", where=dataset.directory, expected="1 or more", mend="collect data first"
        )
    if spec is None:
        spec = _inferred_spec(shape, highest_action + 1)
    report = IngestReport(
        layout=layout,
        num_shards=len(dataset.paths),
        num_transitions=writer.num_transitions,
        num_segments=writer.num_segments,
        num_frames=writer.num_frames,
        largest_rounding_error=rounding_error,
        warnings=tuple(_warnings(layout, num_terminated / writer.num_transitions, num_reversed, rounding_error)),
    )
    writer.finish(spec, report, hashlib.sha256(json.dumps([layout, dones, hashes]).encode()).hexdigest())


def _read_shard(
    shard: NpzReader,
    layout: Layout,
    spec: TaskSpec | None,
    shape: tuple[int, ...] | None,
    num_actions: int | None,
    dones: Dones,
) -> ShardRows:
    if layout == "stacked":
        return read_stacked(shard, shape, num_actions, dones)
    if spec is None:
        raise DatasetError(
            "no such file",
            where=shard.path.parent / MANIFEST_NAME,
            expected="the manifest of a frames dataset, which says how many frames make an observation",
            mend="restore it, or pass spec=",
        )
    return read_frames(shard, spec)


def _verified_sha256(dataset: _Dataset, index: int) -> str:
    path = dataset.paths[index]
    try:
        found = file_sha256(path)
    except OSError as error:
        raise DatasetError(
            f"cannot be read ({error.strerror})", where=path, expected="a shard", mend="restore it or re-create it"
        ) from error
    if dataset.manifest is not None and found != (expected := dataset.manifest.shards[index].sha256):
        raise DatasetError(
            f"sha256 is {found}",
            where=path,
            expected=f"{expected}, as {MANIFEST_NAME} says",
            mend="the file was changed or damaged since it was written: restore it or collect the data again",
        )
    return found


def _inferred_spec(shape: tuple[int, ...], num_actions: int) -> TaskSpec:
    names = default_action_names(max(num_actions, 2))
    if len(shape) == 1:
        return TaskSpec.vector(shape[0], names)
    stack, height, width = shape
    return TaskSpec.pixels((stack, height, width), names)


def _warnings(layout: Layout, terminated_share: float, num_reversed: int, rounding_error: float) -> Iterator[str]:
    if layout == "stacked" and terminated_share > 0.5:
        yield (
            f"dones is true in {terminated_share:.0%} of the rows; if this logger writes 'not done' there, "
            'pass dones="not_done"'
        )
    if num_reversed:
        yield f"the stacks of {num_reversed} shard(s) look newest first; offrl reads them oldest first"
    if rounding_error > _ROUNDING_TOLERANCE:
        yield (
            f"float pixels are up to {rounding_error:.2g} gray levels off the uint8 kept: they are not gray / 128 - 1"
        )
