"""Datasets that lie elsewhere (s3://, gs://, any fsspec address): fetched whole, verified, and kept in the cache."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from tqdm import tqdm

from offrl.errors import ConfigError, DatasetError, MissingDependencyError, missing_dependency
from offrl.files import cache_home, parse_size, replacing, write_json
from offrl.replay.shards import MANIFEST_NAME, Manifest, file_sha256

LIMIT_VARIABLE = "OFFRL_CACHE_LIMIT"
DEFAULT_LIMIT = "100G"
_STATE_NAME = ".remote.json"
_FOLDER_NAME = "remote"
_WITH_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
# What changes when the bytes do; where there is none of them, the time of the last change has to do.
_VERSIONS = ("ETag", "etag", "md5Hash", "md5", "content_md5", "checksum", "generation", "blob_id", "sha")
_TIMES = ("LastModified", "last_modified", "updated", "modified", "mtime", "modify", "last_write_time", "created")
_Result = TypeVar("_Result")


def is_remote(source: Path | str) -> bool:
    """Whether this is the address of a dataset elsewhere, not a path."""
    return isinstance(source, str) and re.match(r"[a-zA-Z][\w+.-]*(://|::)", source) is not None


def redacted(source: Path | str) -> str:
    """An address without credentials, query and fragment, for records and messages; a path as it is."""
    if not is_remote(source):
        return str(source)
    return "::".join(_split(part)[0] for part in str(source).split("::"))


def _split(url: str) -> tuple[str, list[str]]:
    """What may be shown of an address, and what must not."""
    scheme, separator, rest = url.partition("://")
    # user:secret@, whatever is in the secret; but no port, and none of Azure's container@account.
    found = re.match(r"[^/@]*:(?!\d+(?:/|$)).*@", rest) or re.match(r"[^/@?#]*@", rest)
    user = found[0] if found and scheme not in _WITH_CONTAINERS else ""
    path, *hidden = re.split(r"[?#]", rest.removeprefix(user), maxsplit=1)
    secrets = [user.rstrip("@"), *user.rstrip("@").split(":")[1:], *hidden, *re.split(r"[?#&=]", "".join(hidden))]
    secrets += [unquote(secret) for secret in secrets]
    return f"{scheme}{separator}{path}".rstrip("/"), [secret for secret in secrets if len(secret) > 3]


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
        with _locked(copy):
            _update(copy, remote, limit, skip_bad_shards, progress)
    except OSError as error:
        raise DatasetError(
            f"the copy cannot be written ({error.strerror or error})",
            where=copy,
            expected="a writable directory with room for it",
            mend="free some space, or set OFFRL_CACHE to another directory",
        ) from error
    return copy


def is_fetched(source: Path | str) -> bool:
    """Whether this is the address of a dataset elsewhere that has a copy in the default cache, finished or not."""
    return is_remote(source) and (_copy_of(redacted(source), None) / _STATE_NAME).is_file()


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
            mend='pass it as it is: "s3://bucket/folder"',
        )
    return path


def _limit() -> int:
    text = os.environ.get(LIMIT_VARIABLE) or DEFAULT_LIMIT
    try:
        return parse_size(text)
    except ValueError:
        raise ConfigError(f"{text!r}", where=LIMIT_VARIABLE, expected="a size such as 500M or 1.5G") from None


@dataclass(frozen=True)
class _File:
    """A remote shard: where it lies, how large it is, and what tells this version of it from others.

    That is the manifest's sha256, which the file may not have, or else what the file system tells of it.
    """

    path: str
    size: int
    told: str
    sha256: str | None

    @property
    def version(self) -> str:
        """Of the file as it should be."""
        return self.sha256 or self.told

    @property
    def damaged(self) -> str:
        """Of the file as it is, where it should be another."""
        return f"not {self.sha256} but {self.told}"


@dataclass(frozen=True)
class _Remote:
    """A remote dataset, looked at but not fetched."""

    url: str = field(repr=False)
    name: str
    file_system: Any
    files: Mapping[str, _File]
    manifest: bytes | None

    @classmethod
    def find(cls, url: str, skip_bad_shards: bool) -> _Remote:
        name = redacted(url)
        file_system, folder = _file_system(url, name)
        ask = partial(_ask, url=url, name=name)
        listed = ask(lambda: file_system.ls(folder, detail=True))
        found = {info["name"].rstrip("/").rpartition("/")[2]: info for info in listed if info["type"] == "file"}
        if [info["name"].rstrip("/") for info in listed] == [folder.rstrip("/")] and found:
            raise DatasetError("is a file", where=name, expected="a directory of .npz shards", mend="check the address")
        data = None
        if MANIFEST_NAME in found:
            data = ask(lambda: file_system.cat_file(found[MANIFEST_NAME]["name"]))
            records = Manifest.parse(data, where=f"{name}/{MANIFEST_NAME}").shards
            checksums: dict[str, str | None] = {record.name: record.sha256 for record in records}
        else:
            checksums = {each: None for each in sorted(found) if each.endswith(".npz") and each[0] != "."}
        if not checksums:
            raise DatasetError("holds no shards", where=name, expected="*.npz files", mend="check the address")
        files = {}
        for each, sha256 in checksums.items():
            if each not in found and skip_bad_shards:
                continue
            if each not in found:
                raise DatasetError(
                    "no such file",
                    where=f"{name}/{each}",
                    expected=f"the shard that {MANIFEST_NAME} names",
                    mend="upload it again",
                )
            info = found[each]
            if info.get("size") is None:  # some listings do not say it
                info = ask(partial(file_system.info, info["name"]))
            size = int(info.get("size") or 0)
            files[each] = _File(info["name"], size, _version(info, size), sha256)
        return cls(url, name, file_system, files, data)

    def fetch(self, name: str, target: Path, skip_bad_shards: bool, callback: Any) -> str:
        """Fetches one file, which appears whole and verified or not at all; returns its version.

        With `skip_bad_shards` it appears also where it is damaged there, as another version than what should be.
        """
        file = self.files[name]
        with replacing(target) as part:
            _ask(
                lambda: self.file_system.get_file(file.path, str(part), callback=callback),
                url=self.url,
                name=f"{self.name}/{name}",
            )
            size = part.stat().st_size
            if file.size not in (0, size):
                raise DatasetError(
                    f"{size} of {file.size} bytes came",
                    where=f"{self.name}/{name}",
                    mend="the same call fetches it again",
                )
            if file.sha256 is None or (found := file_sha256(part)) == file.sha256:
                return file.version
            if not skip_bad_shards:
                raise DatasetError(
                    f"sha256 is {found}",
                    where=f"{self.name}/{name}",
                    expected=f"{file.sha256}, as {MANIFEST_NAME} says",
                    mend="the file there was changed or damaged since it was written: upload it again",
                )
            return file.damaged


def _version(info: Mapping[str, Any], size: int) -> str:
    """What differs between two versions of a file, as far as the file system tells."""
    for names in (_VERSIONS, _TIMES):
        told = {name: str(info[name]) for name in names if info.get(name)}
        if told:
            return json.dumps([size, told])
    return json.dumps([size])


def _file_system(url: str, name: str) -> tuple[Any, str]:
    """The file system of an address, asked afresh, and the path in it."""
    try:
        import fsspec
        from fsspec.core import url_to_fs
    except ImportError:
        raise missing_dependency("fsspec", "remote", name) from None
    try:
        file_system, folder = url_to_fs(url)
        file_system.invalidate_cache()  # another call may have listed it before it changed
    except ImportError as error:
        raise MissingDependencyError(
            "the package for this kind of address is not installed", where=name, mend=f"{error} (with pip)"
        ) from None
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise _unreachable(error, url, name) from None
        raise ConfigError(
            f"addresses of a kind that fsspec {fsspec.__version__} does not know",
            where=name,
            expected="s3://, gs://, or another of fsspec's",
            mend="check the address",
        ) from None
    except Exception as error:
        raise _unreachable(error, url, name) from None
    return file_system, str(folder)


def _ask(question: Callable[[], _Result], *, url: str, name: str) -> _Result:
    """What a file system answers; every package behind fsspec has errors of its own."""
    try:
        return question()
    except FileNotFoundError:
        raise DatasetError(
            "no such file or directory", where=name, expected="a dataset", mend="check the address"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # ours, not theirs
            raise
        raise _unreachable(error, url, name) from None
    except Exception as error:
        raise _unreachable(error, url, name) from None


def _unreachable(error: Exception, url: str, name: str) -> DatasetError:
    """Without the original error, whose text may hold what the address has in confidence."""
    text = " ".join(str(error).split())
    for secret in sorted((each for part in url.split("::") for each in _split(part)[1]), key=len, reverse=True):
        text = text.replace(secret, "…")
    text = re.sub(r"(://)[^/\s@]*@", r"\1", re.sub(r"\?[^\s'\"]*", "", text))  # as they may have been rewritten
    return DatasetError(
        f"cannot be reached or read ({type(error).__name__}: {text})",
        where=name,
        mend="check the address, the credentials and the network; the same call goes on from here",
    )


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
            write_json(state, {"source": remote.name, "versions": versions})
    _place_manifest(copy, remote.manifest)
    write_json(state, {"source": remote.name, "versions": {name: versions[name] for name in remote.files}})


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
        return dict(json.loads(state.read_text(encoding="utf-8"))["versions"])
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
            mend=f"set {LIMIT_VARIABLE} to more (100G is its default)",
        )
    others = [path for path in copy.parent.iterdir() if path.is_dir() and path != copy]
    sizes = {path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in others}
    for path in sorted(others, key=_last_use):
        if size + sum(sizes.values()) <= limit:
            return
        with _locked(path, wait=False) as is_ours:
            if is_ours:
                shutil.rmtree(path, ignore_errors=True)
                del sizes[path]


def _last_use(copy: Path) -> float:
    """When its state was written: on every call, also where nothing had to be fetched."""
    state = copy / _STATE_NAME
    return state.stat().st_mtime if state.exists() else 0.0


@contextmanager
def _locked(copy: Path, *, wait: bool = True) -> Iterator[bool]:
    """One process at a time has a copy; the lock of a killed one is free again. Gives whether we have it."""
    # Beside the copy and never removed, so that whoever waits for it has the same file as the next one.
    with copy.with_name(f".{copy.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
