"""Unpacking archives that may be damaged or hostile: plain files in one folder, within limits, or a DatasetError."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from offrl.errors import DatasetError
from offrl.shards._npz import ZipBytes
from offrl.system.files import open_regular

_CHUNK = 2**16
_MAX_DEPTH = 16  # folders in folders
_RATIO_ALLOWANCE = 2**24  # bytes that any archive may unpack to, however small it is
_TAR_HEADER_LIMIT = 2**20  # bytes between the data of two files; tarfile holds them in memory
_ZIP_END = 22 + 2**16  # bytes of a zip's last record, with the longest comment
_ZIP_DIRECTORY_LIMIT = 2**24  # bytes; zipfile holds it in memory


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    Attributes:
        num_bytes: of all files together, counted as they are written.
        num_members: files and folders.
        ratio: how many times as large as itself an archive may become, beyond 16 MiB.
    """

    num_bytes: int
    num_members: int
    ratio: float


class Member(NamedTuple):
    """A file, or, without chunks, a folder. Its chunks are read before the next member is asked for."""

    name: str
    chunks: Iterator[bytes] | None


def write_members(
    members: Iterator[Member], folder: Path, *, packed_size: float, limits: Limits, where: str, bar: tqdm[Any]
) -> int:
    """Writes members into a new folder, and returns how many bytes they have; never follows or makes a link.

    Args:
        members: what to write.
        folder: an empty one; the caller removes it when this raises.
        packed_size: of the archive, in bytes, for the ratio.
        limits: how much is too much.
        where: the archive's name, for errors.
        bar: is moved on by the bytes written.

    Raises:
        DatasetError: a name that leads outside, a name that comes twice, or more than the limits allow.
    """
    most = min(limits.num_bytes, packed_size * limits.ratio + _RATIO_ALLOWANCE)
    written = 0
    for index, (name, chunks) in enumerate(members):
        if index == limits.num_members:
            raise DatasetError(
                f"holds more than {index} files and folders",
                where=where,
                hint="raise max_members (--max-members) if you trust it",
            )
        path = folder.joinpath(*_safe_parts(name, where))
        try:
            if chunks is None:
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        except (FileExistsError, NotADirectoryError):
            raise refused(name, "whose place is taken by another member", where) from None
        with file:
            for chunk in chunks:
                written += len(chunk)
                if written > most:
                    raise DatasetError(
                        f"unpacks to more than {tqdm.format_sizeof(most, 'B')}",
                        where=where,
                        hint="raise max_unpacked_bytes (--max-unpacked) or max_ratio (--max-ratio) if you trust it",
                    )
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    return written


def _safe_parts(name: str, where: str) -> tuple[str, ...]:
    """The parts of a member's path, which stays inside on every system."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or re.search(r"[\\\0]|^[A-Za-z]:", name) or len(parts) > _MAX_DEPTH:
        raise refused(name, "which is outside of the directory or too deep in it", where)
    return parts


def refused(name: str, why: str, where: str) -> DatasetError:
    """The error for a member that is not written."""
    return DatasetError(
        f"holds {name!r}, {why}",
        where=where,
        expected="plain files and folders, each once",
        hint="do not trust it, or pack it again",
    )


def folder_members(folder: Path) -> Iterator[Member]:
    """What a folder holds, except for what is hidden (a frame store, say).

    Raises:
        DatasetError: a link to a folder, or something that is no file.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            continue
        if path.is_dir() and not path.is_symlink():
            yield Member(name.as_posix(), None)
        elif path.is_file():
            with open_regular(path) as file:
                yield Member(name.as_posix(), _chunks(file))
        else:
            raise refused(name.as_posix(), "a link to a folder, or a device", str(folder))


def archive_members(path: Path, where: str) -> Iterator[Member]:
    """What a zip or tar archive holds, by its content whatever its name; a bare `.npz` file is its own only member.

    Args:
        path: the file.
        where: what to call it in errors; the last part names a bare `.npz` file.

    Raises:
        DatasetError: it is no archive, is damaged (checksums included), or holds links or devices.
    """
    with _decoding(where):
        with open_regular(path) as file:
            start = file.read(2)
        if start == b"PK":
            yield from _zip_members(path, where)
        else:
            decoders: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
            with open_regular(path) as packed, decoders.get(start, _plain)(packed, "rb") as file:
                yield from _tar_members(file, where)


def _plain(file: IO[bytes], mode: str) -> IO[bytes]:
    return file


@contextmanager
def _decoding(where: str) -> Iterator[None]:
    """Turns the decoders' many errors into one; what the reader of a generator raises does not pass through here."""
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:
        raise DatasetError(
            f"cannot be unpacked ({type(error).__name__}: {error})",
            where=where,
            expected="a zip or tar archive, or an .npz file",
            hint="it is damaged, cut short, or something else such as a web page: look at it, and fetch it again",
        ) from error


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _zip_members(path: Path, where: str) -> Iterator[Member]:
    with ZipBytes(path, _ZIP_DIRECTORY_LIMIT) as file, zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        _require_all(infos, file)
        if infos and all(info.filename.endswith(".npy") and "/" not in info.filename for info in infos):
            stem = re.sub(r"[^\w.-]", "_", PurePosixPath(where.partition("?")[0]).stem).lstrip(".")
            file.seek(0)
            yield Member(f"{stem or 'shard'}.npz", _chunks(file))
            return
        for info in infos:
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise refused(info.filename, "a link or a device", where)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile bounds no others' memory
                raise refused(info.filename, "packed neither plainly nor with deflate", where)
            if info.is_dir():
                yield Member(info.filename, None)
            else:
                with archive.open(info) as member:
                    yield Member(info.filename, _decoded(member, where))


def _require_all(infos: list[zipfile.ZipInfo], file: IO[bytes]) -> None:
    """Compares with the number at the zip's end: a damaged entry can swallow the next one, and zipfile looks away."""
    file.seek(-min(file.seek(0, os.SEEK_END), _ZIP_END), os.SEEK_END)
    end = file.read()
    at = end.rindex(b"PK\5\6") + 10
    number = int.from_bytes(end[at : at + 2], "little")
    if number not in (len(infos), 2**16 - 1):  # the last one where there are more
        raise zipfile.BadZipFile(f"{len(infos)} entries where the end says {number}")


def _decoded(member: IO[bytes], where: str) -> Iterator[bytes]:
    """To the end, so that the checksum is verified."""
    with _decoding(where):
        yield from _chunks(member)


def _tar_members(file: IO[bytes], where: str) -> Iterator[Member]:
    stream = _TarBytes(file)
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_TarHeader) as archive:  # type: ignore[call-overload]
        for info in archive:
            if info.isdir():
                yield Member(info.name, None)
            elif info.isreg():
                yield Member(info.name, _tar_chunks(archive.extractfile(info), stream, where))
            else:
                raise refused(info.name, "a link or a device", where)
    while stream.read(_CHUNK):  # to the end, so that the checksum is verified
        pass


def _tar_chunks(member: IO[bytes], stream: _TarBytes, where: str) -> Iterator[bytes]:
    for chunk in _decoded(member, where):
        stream.between = 0
        yield chunk
    stream.between = 0


class _TarBytes:
    """A tar's bytes for tarfile, which would read headers of any size into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.between = 0  # bytes read since the last data of a file

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.between += len(data)
        if self.between > _TAR_HEADER_LIMIT:
            raise tarfile.ReadError("too many bytes between two files")
        return data


class _TarHeader(tarfile.TarInfo):
    """A header that is damaged or missing is an error; tarfile would take it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _TarHeader:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the block of zeros at the end
                raise
            raise tarfile.ReadError(str(error)) from error
