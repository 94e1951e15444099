"""Files of a dataset that lies elsewhere, through fsspec."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from offrl.errors import ConfigError, DatasetError, MissingDependencyError, missing_dependency
from offrl.shards.manifest import MANIFEST_NAME, Manifest, file_sha256
from offrl.system.files import replacing
from offrl.system.json_files import MAX_BYTES

# What changes when the bytes do; where there is none of them, the time of the last change has to do.
_VERSIONS = ("ETag", "etag", "md5Hash", "md5", "content_md5", "checksum", "generation", "blob_id", "sha")


_TIMES = ("LastModified", "last_modified", "updated", "modified", "mtime", "modify", "last_write_time", "created")


_Result = TypeVar("_Result")


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
            raise DatasetError("is a file", where=name, expected="a directory of .npz shards", hint="check the address")
        data = None
        if MANIFEST_NAME in found:
            if int(found[MANIFEST_NAME].get("size") or 0) > MAX_BYTES:  # before it is fetched
                raise DatasetError(
                    "has more bytes than a manifest may",
                    where=f"{name}/{MANIFEST_NAME}",
                    expected=f"at most {MAX_BYTES:,}",
                    hint="upload it again",
                )
            data = ask(lambda: file_system.cat_file(found[MANIFEST_NAME]["name"]))
            records = Manifest.parse(data, where=f"{name}/{MANIFEST_NAME}").shards
            checksums: dict[str, str | None] = {record.name: record.sha256 for record in records}
        else:
            checksums = {each: None for each in sorted(found) if each.endswith(".npz") and each[0] != "."}
        if not checksums:
            raise DatasetError("holds no shards", where=name, expected="*.npz files", hint="check the address")
        files = {}
        for each, sha256 in checksums.items():
            if each not in found and skip_bad_shards:
                continue
            if each not in found:
                raise DatasetError(
                    "no such file",
                    where=f"{name}/{each}",
                    expected=f"the shard that {MANIFEST_NAME} names",
                    hint="upload it again",
                )
            info = found[each]
            if info.get("size") is None:  # some listings do not say it
                info = ask(partial(file_system.info, info["name"]))
            size = int(info.get("size") or 0)
            files[each] = _File(info["name"], size, _version(info, size), sha256)
        return cls(url, name, file_system, files, data)

    def fetch(self, name: str, target: Path, skip_bad_shards: bool, callback: Any) -> str:
        """Fetches one file, which appears whole and verified or not at all; returns its version.

        The caller has removed what killed processes left in the directory. With `skip_bad_shards` the file appears also
        where it is damaged there, as another version than what should be.
        """
        file = self.files[name]
        with replacing(target, sweeps=False) as part:
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
                    hint="the same call fetches it again",
                )
            if file.sha256 is None or (found := file_sha256(part)) == file.sha256:
                return file.version
            if not skip_bad_shards:
                raise DatasetError(
                    f"sha256 is {found}",
                    where=f"{self.name}/{name}",
                    expected=f"{file.sha256}, as {MANIFEST_NAME} says",
                    hint="the file there was changed or damaged since it was written: upload it again",
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
            "the package for this kind of address is not installed", where=name, hint=f"{error} (with pip)"
        ) from None
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise _unreachable(error, url, name) from None
        raise ConfigError(
            f"addresses of a kind that fsspec {fsspec.__version__} does not know",
            where=name,
            expected="s3://, gs://, or another of fsspec's",
            hint="check the address",
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
            "no such file or directory", where=name, expected="a dataset", hint="check the address"
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
        hint="check the address, the credentials and the network; the same call goes on from here",
    )


_WITH_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")


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
