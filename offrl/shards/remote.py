"""Datasets that lie elsewhere (s3://, gs://, any fsspec address): fetched whole, verified, and kept in the cache."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tqdm import tqdm

from offrl.errors import ConfigError, DatasetError, InUseError
from offrl.shards._file_systems import _Remote, is_remote, redacted
from offrl.shards.manifest import MANIFEST_NAME
from offrl.system.files import cache_home, parse_size, replacing
from offrl.system.json_files import read_json, write_sealed_json
from offrl.system.locks import locked

LIMIT_VARIABLE = "OFFRL_CACHE_LIMIT"
DEFAULT_LIMIT = "100G"
_STATE_NAME = ".remote.json"
_FOLDER_NAME = "remote"


def local_copy(
    source: Path | str,
    *,
    cache: Path | str | None = None,
    limit: int | None = None,
    skip_bad_shards: bool = False,
    progress: bool = True,
) -> Path:
    """The directory where the shards of `source` lie: itself, where it is a path, else a copy in the cache.

    Whole files are fetched into `<cache>/remote/`, those that are there in the version that lies at the address
    excepted: by the manifest's sha256, else by the ETag, time of change and size that the file system tells. An
    interrupted fetch goes on from the whole files. The copies together keep to the limit: those not used for the
    longest time are removed, never one that is being fetched.

    Args:
        source: a path, or an address of fsspec's, such as s3://bucket/folder.
        cache: a directory; default: $OFFRL_CACHE, else ~/.cache/offrl.
        limit: of all copies and the stores in them, in bytes; default: $OFFRL_CACHE_LIMIT, else 100G.
        skip_bad_shards: keep what is not as the manifest says, or go without it, for `ingest` to set it aside.
        progress: show a bar on stderr where that is a terminal.

    Raises:
        ConfigError: an address of an unknown kind, one given as a pathlib.Path, or a malformed $OFFRL_CACHE_LIMIT.
        MissingDependencyError: the package for this kind of address is not installed.
        DatasetError: nothing there, it cannot be reached, is damaged or larger than the limit, or the cache cannot be
            written.
    """
    if not is_remote(source):
        return _path(Path(source))
    if str(source).lower().startswith("file://"):
        return Path(url2pathname(urlsplit(str(source)).path))
    limit = _limit() if limit is None else limit
    remote = _Remote.find(str(source), skip_bad_shards)
    copy = _copy_of(remote.name, cache)
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with locked(_lock(copy), target=copy, wait=True):
            _update(copy, remote, limit, skip_bad_shards, progress)
    except OSError as error:
        raise DatasetError(
            f"the copy cannot be written ({error.strerror or error})",
            where=copy,
            expected="a writable directory with room for it",
            hint="free some space, or set OFFRL_CACHE to another directory",
        ) from error
    return copy


def fetched_copy(source: Path | str) -> Path | None:
    """The copy in the default cache, finished or not, of a dataset elsewhere; None for a path, and where there is none.

    Nothing is loaded.
    """
    copy = _copy_of(redacted(source), None) if is_remote(source) else None
    return copy if copy is not None and (copy / _STATE_NAME).is_file() else None


def _copy_of(name: str, cache: Path | str | None) -> Path:
    """Where the copy of an address lies: under a readable name, and another for each address."""
    readable = re.sub(r"[^\w.-]+", "-", name)[-60:].strip("-.")
    folder = f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return (cache_home() if cache is None else Path(cache)) / _FOLDER_NAME / folder


def _path(path: Path) -> Path:
    if path.parts and re.fullmatch(r"[a-z][a-z0-9+.-]+:", path.parts[0]) and not path.exists():
        raise ConfigError(
            "an address as a pathlib.Path, which loses a slash",
            where=path.parts[0],
            expected="a text",
            hint='pass it as it is: "s3://bucket/folder"',
        )
    return path


def _limit() -> int:
    text = os.environ.get(LIMIT_VARIABLE) or DEFAULT_LIMIT
    try:
        return parse_size(text)
    except ValueError:
        raise ConfigError(f"{text!r}", where=LIMIT_VARIABLE, expected="a size such as 500M or 1.5G") from None


def _update(copy: Path, remote: _Remote, limit: int, skip_bad_shards: bool, progress: bool) -> None:
    """Makes the copy equal to what lies at the address; the caller holds its lock."""
    copy.mkdir(exist_ok=True)
    state = copy / _STATE_NAME
    versions = _read_versions(state)
    missing = []
    for name, file in remote.files.items():
        good = (file.version, file.damaged) if skip_bad_shards else (file.version,)
        if versions.get(name) not in good or not _is_whole(copy / name, file.size):
            missing.append(name)
    if missing:
        _make_room(copy, remote, limit)
        shutil.rmtree(copy / ".store", ignore_errors=True)  # made from what is replaced now
    for path in copy.iterdir():
        is_stray = path.suffix == ".npz" and path.name not in remote.files
        if is_stray or path.suffix == ".partial":  # of a killed process
            path.unlink()
    with tqdm(
        desc=f"fetch {remote.name}",
        total=sum(file.size for file in remote.files.values()),
        initial=sum(file.size for name, file in remote.files.items() if name not in missing),
        unit="B",
        unit_scale=True,
        disable=None if progress and missing else True,
    ) as bar:
        for name in missing:
            versions[name] = remote.fetch(name, copy / name, skip_bad_shards, _callback(bar))
            write_sealed_json(state, {"source": remote.name, "versions": versions})
    _place_manifest(copy, remote.manifest)
    write_sealed_json(state, {"source": remote.name, "versions": {name: versions[name] for name in remote.files}})


def _callback(bar: tqdm[Any]) -> Any:
    from fsspec.callbacks import Callback

    start = bar.n
    return Callback(hooks={"bar": lambda size, value, **_: bar.update(start + value - bar.n)})


def _place_manifest(copy: Path, data: bytes | None) -> None:
    path = copy / MANIFEST_NAME
    if data is None:
        path.unlink(missing_ok=True)
    elif not path.exists() or path.read_bytes() != data:
        with replacing(path) as part:
            part.write_bytes(data)


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and size in (0, path.stat().st_size)


def _read_versions(state: Path) -> dict[str, str]:
    """Which version of each file the copy has."""
    try:
        return dict(read_json(state)["versions"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _make_room(copy: Path, remote: _Remote, limit: int) -> None:
    """Removes the copies that were not used for the longest time, until this one fits as well.

    Raises:
        DatasetError: it is larger than the limit by itself.
    """
    size = sum(file.size for file in remote.files.values())
    if size > limit:
        raise DatasetError(
            f"takes {tqdm.format_sizeof(size, 'B')}",
            where=remote.name,
            expected=f"at most the {tqdm.format_sizeof(limit, 'B')} that the cache may hold",
            hint=f"set {LIMIT_VARIABLE} to more (100G is its default)",
        )
    others = [path for path in copy.parent.iterdir() if path.is_dir() and path != copy]
    sizes = {path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in others}
    for path in sorted(others, key=_last_use):
        if size + sum(sizes.values()) <= limit:
            return
        with suppress(InUseError), locked(_lock(path), target=path):
            shutil.rmtree(path, ignore_errors=True)
            del sizes[path]


def _last_use(copy: Path) -> float:
    """When its state was written: on every call, also where nothing had to be fetched."""
    state = copy / _STATE_NAME
    return state.stat().st_mtime if state.exists() else 0.0


def _lock(copy: Path) -> Path:
    return copy.with_name(f".{copy.name}.lock")  # beside the copy, which may be removed as a whole
