"""Any dataset -> FrameStore, once: a second call opens what the first one made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Collection, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import get_args

from offrl.errors import ConfigError, DatasetError
from offrl.replay._build import _build, _Dataset
from offrl.replay.store import STORE_NAME, STORE_VERSION, UNCHECKED_VERSION, FrameStore, Tier
from offrl.shards.arrays import require_directory
from offrl.shards.download import fetched_hashes
from offrl.shards.layouts import Dones
from offrl.shards.manifest import MANIFEST_NAME, Manifest
from offrl.shards.remote import local_copy
from offrl.spec import TaskSpec
from offrl.system.files import cache_home
from offrl.system.json_files import read_json
from offrl.system.locks import clear_after_kill, locked

_LOCK_NAME = "lock"


def ingest(
    directory: Path | str,
    *,
    spec: TaskSpec | None = None,
    dones: Dones = "terminated",
    skip_bad_shards: bool = False,
    cache: Path | str | None = None,
    tier: Tier = "auto",
    progress: bool = True,
) -> FrameStore:
    """Turns a directory of shards, in either layout, into a FrameStore, or opens the one made before.

    The store lies in `<directory>/.store/<key>/`, or, where that cannot be written, in `<cache>/<key>/`. It appears
    whole or not at all; after an interruption the next call goes on where the last one stood. A shard's end ends a
    segment.

    Args:
        directory: the shards (`*.npz`), and for the frames layout `manifest.json`; or its address elsewhere, such as
            s3://bucket/folder, see `offrl.shards.remote`.
        spec: the task; needed where no manifest says it, except for the stacked layout, whose spec is otherwise read
            off the data (the highest action there is the last one, and the actions are nameless).
        dones: stacked layout only: whether true in `dones` says that the episode "terminated" or "not_done".
        skip_bad_shards: set damaged shards aside, and say so in the store's report, instead of stopping at the first.
        cache: where to put the store; default: beside the data, else $OFFRL_CACHE, else ~/.cache/offrl.
        tier: see `FrameStore.open`.
        progress: show a bar on stderr where that is a terminal.

    Raises:
        ConfigError: an unknown value of `dones` or `tier`.
        DatasetError: a missing, damaged or inconsistent dataset (with `skip_bad_shards`: no good shard); nothing is
            left behind.
        SpecMismatchError: `spec` differs from the manifest's.
    """
    if dones not in get_args(Dones):
        raise ConfigError(f"{dones!r}", where="dones", expected=f"one of {', '.join(get_args(Dones))}")
    if tier not in get_args(Tier):  # before the work, not after it
        raise ConfigError(f"{tier!r}", where="tier", expected=f"one of {', '.join(get_args(Tier))}")
    directory = local_copy(directory, cache=cache, skip_bad_shards=skip_bad_shards, progress=progress)
    dataset = _find_dataset(Path(directory), spec)
    key = _key(dataset, dones)
    roots = _roots(dataset) if cache is None else [Path(cache)]
    if (kept := _kept(dataset, dones, roots, tier, skip_bad_shards)) is not None:
        for root in roots:
            clear_after_kill(root / _LOCK_NAME)
        return kept
    root = next((root for root in roots if _is_writable(root)), roots[-1])
    try:
        with locked(root / _LOCK_NAME, target=root / key, wait=True):
            # Another process may have built it while this one waited.
            if (made := _made(root / key, dataset, tier, skip_bad_shards)) is not None:
                return made
            fingerprints = _build(dataset, dones, skip_bad_shards, root / key, progress)
            if root == dataset.directory / ".store":
                _remove_others(root, fingerprints)
    except OSError as error:
        raise DatasetError(
            f"the frame store cannot be written ({error})",
            where=root,
            expected="a writable directory with room for it",
            hint="free some space, or set OFFRL_CACHE to another directory",
        ) from error
    store = FrameStore.open(root / key, tier)
    for line in store.report.warnings:
        warnings.warn(f"{dataset.directory}: {line}", stacklevel=2)
    return store


def find_store(
    directory: Path,
    *,
    spec: TaskSpec | None = None,
    dones: Dones = "terminated",
    skip_bad_shards: bool = False,
    tier: Tier = "mmap",
) -> FrameStore | None:
    """The frame store that an `ingest` with these arguments has left; None where there is none. Writes nothing.

    Args:
        directory: The shards, on this machine.
        spec: See `ingest`, as for the next three.
        dones: Likewise.
        skip_bad_shards: Likewise.
        tier: Likewise.

    Raises:
        DatasetError: No such dataset, or a damaged manifest.
        SpecMismatchError: `spec` differs from the manifest's.
    """
    dataset = _find_dataset(directory, spec)
    return _kept(dataset, dones, _roots(dataset), tier, skip_bad_shards)


def _roots(dataset: _Dataset) -> list[Path]:
    """Where stores of a dataset are kept, unless somebody names another place."""
    return [dataset.directory / ".store", cache_home()]


def _kept(
    dataset: _Dataset, dones: Dones, roots: Sequence[Path], tier: Tier, skip_bad_shards: bool
) -> FrameStore | None:
    """The first store that is there and whole, also one of an earlier version."""
    keys = [_key(dataset, dones, version) for version in (STORE_VERSION, UNCHECKED_VERSION)]
    found = (_made(root / key, dataset, tier, skip_bad_shards) for root in roots for key in keys)
    return next((store for store in found if store is not None), None)


def _find_dataset(directory: Path, spec: TaskSpec | None) -> _Dataset:
    require_directory(directory)
    if (directory / MANIFEST_NAME).exists():
        manifest = Manifest.load(directory)
        if spec is not None:
            spec.require_same(
                manifest.spec,
                where=directory / MANIFEST_NAME,
                hint="pass no spec to take the data's own, or point at data of this task",
                legal_actions=False,
            )
        if not manifest.complete:
            warnings.warn(
                f"{directory}: the collection was interrupted; only the finished shards are read", stacklevel=3
            )
        paths = tuple(directory / shard.name for shard in manifest.shards)
        if manifest.complete and (strays := _shard_paths(directory) - {*paths}):
            warnings.warn(
                f"{directory}: {MANIFEST_NAME} does not name {', '.join(sorted(path.name for path in strays))}, which "
                "is not read",
                stacklevel=3,
            )
        spec = manifest.spec
    else:
        manifest = None
        paths = tuple(sorted(_shard_paths(directory)))
    if not paths:
        hint = "check the path, or collect data first; offrl convert makes shards of other formats"
        if any(each.suffix.lower() in (".csv", ".parquet") for each in directory.iterdir()):
            hint = f"it holds tables: offrl convert {directory} DIRECTORY --to frames makes a dataset of them"
        raise DatasetError("holds no shards", where=directory, expected="*.npz files", hint=hint)
    # Which actions are legal is for a replay to say: a store is the same whatever is learned from it.
    spec = None if spec is None else spec.without_legal_actions()
    return _Dataset(directory, paths, manifest, spec, {} if manifest is not None else fetched_hashes(directory))


def _shard_paths(directory: Path) -> set[Path]:
    return {path for path in directory.glob("*.npz") if not path.name.startswith(".")}


def _key(dataset: _Dataset, dones: Dones, version: int = STORE_VERSION) -> str:
    """Names a store by all that it depends on, without reading the shards."""
    if dataset.manifest is not None:
        files: list[object] = [dataset.manifest.layout, *map(astuple, dataset.manifest.shards)]
    else:
        files = [_version(path) for path in dataset.paths]
    spec = None if dataset.spec is None else dataset.spec.to_dict()
    return hashlib.sha256(json.dumps([version, files, spec, dones]).encode()).hexdigest()[:16]


def _version(path: Path) -> tuple[str, int, int]:
    """What changes when a file does."""
    try:
        stat = path.stat()
    except OSError:  # a link to nowhere, say: reading it tells what is wrong
        return path.name, -1, -1
    return path.name, stat.st_size, stat.st_mtime_ns


def _made(store: Path, dataset: _Dataset, tier: Tier, skip_bad_shards: bool) -> FrameStore | None:
    """The store where it is there and whole.

    One that lacks bad shards only counts for who asks for that, and as long as nobody touched these shards.
    """
    if not (store / STORE_NAME).is_file():
        return None
    try:
        found = FrameStore.open(store, tier)
    except DatasetError:
        return None  # nothing in it that the shards cannot give again
    lacking = [dataset.directory / name for name, _ in found.report.skipped]
    made_at = (store / STORE_NAME).stat().st_mtime_ns
    if lacking and not (skip_bad_shards and all(_changed_at(path) < made_at for path in lacking)):
        return None
    return found


def _changed_at(path: Path) -> int:
    """When a file was last written, moved or copied here, in nanoseconds; 0 where there is none."""
    try:
        return path.stat().st_ctime_ns
    except OSError:
        return 0


def _remove_others(root: Path, fingerprints: Collection[str]) -> None:
    """Removes stores of what a dataset was before: it has changed, and nothing opens them any more.

    Who has one of them open goes on reading it. The caller holds the lock.
    """
    for store in root.iterdir():
        if (store / STORE_NAME).is_file() and _fingerprint(store) not in fingerprints:
            shutil.rmtree(store, ignore_errors=True)


def _fingerprint(store: Path) -> str | None:
    try:
        return str(read_json(store / STORE_NAME)["fingerprint"])
    except (OSError, ValueError, KeyError):
        return None  # damaged: nothing in it that the shards cannot give again


def _is_writable(root: Path) -> bool:
    """Whether `root` can be written, or, where it does not exist, made."""
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    return os.access(existing, os.W_OK)
