"""Datasets from elsewhere: downloaded with resume, checked, and unpacked."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener, url2pathname

from tqdm import tqdm

from offrl._version import __version__
from offrl.errors import ConfigError, DatasetError
from offrl.shards._unpack import Limits, Member, archive_members, folder_members, write_members
from offrl.shards.manifest import file_sha256
from offrl.system.files import new_directory, remove_partials
from offrl.system.json_files import read_json, write_sealed_json
from offrl.system.locks import clear_after_kill, locked

MARKER_NAME = ".fetch.json"
_TIMEOUT = 30  # seconds without a byte
_CHUNK = 2**16
_GOES_ON = "the same command goes on from here"


def fetch(
    source: str | Path,
    directory: Path | str,
    *,
    sha256: str | None = None,
    max_bytes: int = 10 * 10**9,
    max_unpacked_bytes: int = 100 * 10**9,
    max_members: int = 100_000,
    max_ratio: float = 200.0,
    progress: bool = True,
) -> Path:
    """Brings a dataset into a directory, which appears whole or not at all, with a note of where it came from.

    An archive (zip, or tar, also with gzip, bzip2 or xz) is unpacked, without the folder that it may have around it; a
    bare `.npz` file is copied; so is a directory. What is hidden, as a frame store is, is left out. An interrupted
    download leaves `<directory>.part` and goes on from there, where the server can. One call at a time works on a
    directory.

    Args:
        source: an address (http, https, file) or a path.
        directory: where to put it: new or empty, or with what an earlier call fetched from the same source (given
            `sha256`: with that checksum), which is kept as it is.
        sha256: of the file in hexadecimal, verified before anything is unpacked.
        max_bytes: limit of the file's size.
        max_unpacked_bytes: limit of what an archive unpacks to, or a directory holds.
        max_members: limit of the files and folders inside.
        max_ratio: how many times as large as itself an archive may become, beyond 16 MiB.
        progress: show bars on stderr where that is a terminal.

    Returns:
        The directory.

    Raises:
        ConfigError: an address of another kind, a malformed `sha256`, or one for a directory.
        DatasetError: the source cannot be reached or read, is too large, damaged, unsafe, or not what `sha256` says; or
            the directory holds something else.
        InUseError: another call is fetching into the directory.
    """
    if sha256 is not None:
        sha256 = sha256.lower()
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ConfigError(f"{sha256!r}", where="sha256", expected="64 hexadecimal digits")
    local = _local_path(str(source))
    name = str(source if local is None else local)
    target = Path(directory).resolve()
    lock = target.with_name(f".{target.name}.lock")
    part = target.with_name(f"{target.name}.part")
    if _is_there(target, name, sha256):
        clear_after_kill(lock, lambda: _tidy(target, part), left=[part])
        return target
    limits = Limits(max_unpacked_bytes, max_members, max_ratio)
    try:
        # Beside the target, which has to be empty; it protects what was downloaded so far, too.
        with locked(lock, target=target):
            if _is_there(target, name, sha256):  # another call has fetched it meanwhile
                _tidy(target, part)
                return target
            remove_partials(target)
            if local is None:
                remove_partials(_state(part))
                _download(name, part, max_bytes, progress)
                try:
                    _place_file(part, name, target, sha256, limits, progress)
                except DatasetError:  # of no use to a second try; after other errors it is
                    _discard(part)
                    raise
                _discard(part)
            elif local.is_dir():
                if sha256 is not None:
                    raise ConfigError("given for a directory", where="sha256", expected="a file", hint="leave it out")
                _place(folder_members(local), name, target, None, None, limits, progress)
            elif local.stat().st_size > max_bytes:
                raise _too_large(name, max_bytes)
            else:
                _place_file(local, name, target, sha256, limits, progress)
    except OSError as error:
        raise DatasetError(
            f"cannot be fetched into ({error})",
            where=target,
            expected="a source that can be read, and a writable directory with room for it",
            hint=f"free some space or name another directory; {_GOES_ON}",
        ) from error
    return target


def fetched_hashes(directory: Path) -> dict[str, str]:
    """File -> SHA-256, as `fetch` brought them into this directory; empty where it did not, or an earlier version did.

    Raises:
        DatasetError: The note of it is damaged.
    """
    path = directory / MARKER_NAME
    try:
        found = read_json(path).get("files", {})
        if not isinstance(found, dict):
            raise ValueError(f"files is {found!r}")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"damaged ({error})",
            where=path,
            expected="what fetch wrote",
            hint="remove the directory and fetch the dataset again",
        ) from error
    return {str(name): str(sha256) for name, sha256 in found.items()}


def _local_path(source: str) -> Path | None:
    """The file or directory that `source` names, or None for a web address."""
    found = re.match(r"(\w[\w+.-]*)://", source)
    scheme = found[1].lower() if found else None
    if scheme in ("http", "https"):
        return None
    if scheme not in (None, "file"):
        raise ConfigError(f"{scheme} addresses", where=source, expected="http://, https://, file:// or a path")
    path = Path(source if scheme is None else url2pathname(urlsplit(source).path))
    if not source or (not path.is_file() and not path.is_dir()):  # "" would be the current directory
        raise DatasetError("no such file or directory", where=path, expected="a dataset", hint="check the path")
    return path.resolve()


def _is_there(target: Path, source: str, sha256: str | None) -> bool:
    """Whether the target holds what is asked for; DatasetError where it holds something else."""
    if not target.exists():
        return False
    if not target.is_dir() or target == Path.cwd() or target.is_mount():
        raise DatasetError(
            "is a file, the current directory or a mount point",
            where=target,
            expected="a directory of its own",
            hint="name a new one",
        )
    if not any(target.iterdir()):
        return False
    wanted = sha256 or source
    try:
        marker = read_json(target / MARKER_NAME)
        found = marker["sha256" if sha256 else "source"]
    except (OSError, ValueError, LookupError, TypeError):
        found = "files that were not fetched"
    if found != wanted:
        raise DatasetError(
            f"holds something else ({found})", where=target, expected=wanted, hint="name another directory"
        )
    return True


def _place_file(path: Path, source: str, target: Path, sha256: str | None, limits: Limits, progress: bool) -> None:
    found = file_sha256(path)
    if sha256 not in (None, found):
        raise DatasetError(
            f"sha256 is {found}", where=source, expected=sha256, hint="it is damaged, or not the file you expect"
        )
    _place(archive_members(path, source), source, target, found, path.stat().st_size, limits, progress)


def _place(
    members: Iterator[Member],
    source: str,
    target: Path,
    sha256: str | None,
    packed_size: int | None,
    limits: Limits,
    progress: bool,
) -> None:
    """Writes the members beside the target and renames at the end; the caller holds the lock."""
    with new_directory(target) as partial:
        packed = partial / ".packed"  # nothing that is kept has such a name
        packed.mkdir()
        with _bar("unpack", progress) as bar:
            size = write_members(
                members, packed, packed_size=packed_size or float("inf"), limits=limits, where=source, bar=bar
            )
        shutil.rmtree(packed / "__MACOSX", ignore_errors=True)  # the Finder's notes about the real files
        _remove_hidden(packed)
        if not any(path.is_file() and path.stat().st_size for path in packed.rglob("*")):
            raise DatasetError("holds no data", where=source, expected="shards", hint="check what was packed")
        root = packed
        while len(inside := [*root.iterdir()]) == 1 and inside[0].is_dir():
            root = inside[0]
        for path in list(root.iterdir()):  # without the folders around them
            path.rename(partial / path.name)
        shutil.rmtree(packed)
        files = {path.relative_to(partial).as_posix(): path for path in sorted(partial.rglob("*")) if path.is_file()}
        hashes = {name: file_sha256(path) for name, path in files.items()}
        about = {"source": source, "sha256": sha256, "size": packed_size or size}
        write_sealed_json(partial / MARKER_NAME, {**about, "files": hashes})


def _remove_hidden(folder: Path) -> None:
    """What was packed along, a frame store above all: its rows would be trained on without a look at the shards."""
    for path in list(folder.rglob(".*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # in a folder that is gone already


def _download(url: str, part: Path, max_bytes: int, progress: bool) -> None:
    """Downloads into `part`, or goes on where an earlier call stopped.

    Beside it lies what it is a part of: the address, the size, and the server's mark for this version of the file.
    """
    with part.open("ab") as file:
        known = _read_state(part, url)
        size, total = (file.tell(), known.get("size")) if known else (0, None)
        if size and size == total:
            return
        try:
            response, size = _connect(url, size, known.get("version", ""))
        except DatasetError:
            if size == 0:  # nothing to go on from
                _discard(part)
            raise
        with response:
            file.truncate(size)
            total = None if response.length is None else size + response.length
            write_sealed_json(_state(part), {"source": url, "size": total, "version": _version(response.headers)})
            with _bar("download", progress, total, size) as bar:
                for chunk in _received(response, url, size):
                    size += len(chunk)
                    if max(size, total or 0) > max_bytes:
                        _discard(part)
                        raise _too_large(url, max_bytes)
                    file.write(chunk)
                    bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        if total is not None and size != total:
            raise _broken(url, size, "closed by the server")


def _connect(url: str, start: int, version: str) -> tuple[Any, int]:
    """Opens the address at byte `start`, or at 0 where the server cannot or has another version of the file by now."""
    headers = {"User-Agent": f"offrl/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    try:
        response = build_opener(_Redirects()).open(Request(url, headers=headers), timeout=_TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and start:
            return _connect(url, 0, "")
        raise DatasetError(
            f"the server answers {error.code} {error.reason}", where=url, expected="the file", hint="check the address"
        ) from None
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise DatasetError(
            f"cannot be reached ({reason})", where=url, hint="check the address and the network, and try again"
        ) from error
    if not start or response.status != 206:
        return response, 0
    begins_there = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    if begins_there and _version(response.headers) == version:
        return response, start
    response.close()
    return _connect(url, 0, "")


class _Redirects(HTTPRedirectHandler):
    """Follows to https, and from http also to http."""

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in {"https", req.type}:
            raise HTTPError(req.full_url, code, f"to {newurl}, which is not followed", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _received(response: Any, url: str, size: int) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            size += len(chunk)
            yield chunk
    except (OSError, HTTPException) as error:
        raise _broken(url, size, f"{type(error).__name__}: {error}") from error


def _version(headers: Any) -> str:
    """The server's mark for the file as it is now; empty where it gives none that a range can rely on."""
    etag: str = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _state(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path, url: str) -> dict[str, Any]:
    """What an earlier call noted about its download; empty where that cannot be continued."""
    try:
        known = read_json(_state(part))
        return known if known["source"] == url and known["version"] else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _tidy(target: Path, part: Path) -> None:
    """Removes what calls that were killed left beside a target that is whole; the caller holds the lock."""
    remove_partials(target)
    remove_partials(_state(part))
    _discard(part)


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state(part).unlink(missing_ok=True)


def _broken(url: str, size: int, why: str) -> DatasetError:
    return DatasetError(f"the connection broke after {size} bytes ({why})", where=url, hint=_GOES_ON)


def _too_large(where: str, limit: int) -> DatasetError:
    return DatasetError(
        f"is larger than {tqdm.format_sizeof(limit, 'B')}",
        where=where,
        hint="raise max_bytes (--max-size) if you trust it",
    )


def _bar(title: str, progress: bool, total: int | None = None, initial: int = 0) -> tqdm[Any]:
    shown = None if progress else True
    return tqdm(desc=title, total=total, initial=initial, unit="B", unit_scale=True, disable=shown)
