"""Reading `.npz` files that may be damaged or hostile: no pickles, members read once, every fault a DatasetError."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from offrl.errors import DatasetError
from offrl.system.files import open_regular
from offrl.system.npy import read_npy_header
from offrl.system.workers import available_memory

_HINT = "the file is damaged or was cut short: re-create it or copy it again"

# A member of a zip: a header of 30 bytes, the last four of them the lengths of name and extra field; these; the data;
# and sizes and checksum, if the writer could not go back to put them into the header (APPNOTE.TXT 4.3.7 and 4.3.9).
_HEADER_SIZE, _LENGTHS_AT = 30, 26
_HAS_DESCRIPTOR = 0x08
_DESCRIPTOR_SIZES = (12, 16, 20, 24)  # with or without a signature and long sizes

_NPY_HEADER_LIMIT = 2**14  # bytes; numpy takes up to 10,000 characters
_CHUNK = 2**18  # bytes unpacked at once
_DIRECTORY_LIMIT = 2**20  # bytes of a zip's directory, for at most nine members
_DEFLATE_RATIO = 1032  # deflate's best (zlib's technical notes)
_COPIES = 2  # of what is read: the frames of stacks that do not follow each other are copied once more
_ROW_BYTES = 256  # that reading takes for each transition besides: windows, flags, and their temporary arrays


class ZipBytes(io.BufferedReader):
    """A zip's bytes for zipfile, which would read a directory of any size at once.

    Args:
        path: Of a regular file.
        directory_limit: The most bytes that the directory may have.

    Raises:
        OSError: It cannot be read, or is none.
    """

    def __init__(self, path: Path, directory_limit: int) -> None:
        super().__init__(cast(io.BufferedReader, open_regular(path)).detach())
        self._limit = directory_limit

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes; raises BadZipFile where that is more than the limit."""
        if size is not None and size > self._limit:
            raise zipfile.BadZipFile(f"{size} bytes of names")
        return super().read(size)


class NpzReader:
    """The members of one open `.npz` file; see `open_npz`."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self._infos = {_name(info): info for info in archive.infolist()}
        self._is_counted = False

    @property
    def names(self) -> frozenset[str]:
        """The members' names, without `.npy`."""
        return frozenset(self._infos)

    def read(self, name: str) -> NDArray[Any]:
        """Reads one member; np.load would read it again at every access, so keep what this returns.

        Raises:
            DatasetError: the member is missing, damaged, pickled, or not as large as its header says.
        """
        if name not in self._infos:
            raise self.fault(
                f"has no member {name!r}", expected=f"one beside {sorted(self.names)}", hint="re-create the file"
            )
        info = self._infos[name]
        if info.file_size > info.compress_size * _DEFLATE_RATIO + _CHUNK:
            raise self.fault(
                f"member {name!r} says that it has {info.file_size:,} bytes in {info.compress_size:,}",
                expected="no more than deflate can pack",
                hint=_HINT,
            )
        if not self._is_counted:  # once for all members, which are all held together
            self.require_memory(_COPIES * self.unpacked_bytes)
            self._is_counted = True
        try:
            content = np.empty(info.file_size, np.uint8)  # untouched pages take no memory
            with self._archive.open(info) as member:
                self._read_into(content, member)  # all of it, so that the checksum is verified first
            return self._array(name, content)
        except DatasetError:
            raise
        except Exception as error:  # zipfile, zlib, the decoders and numpy each fail in their own ways on damaged bytes
            raise self.fault(
                f"member {name!r} cannot be read ({type(error).__name__}: {error})", expected="an array", hint=_HINT
            ) from error

    @property
    def unpacked_bytes(self) -> int:
        """What all members take in memory, as the archive says."""
        return sum(each.file_size for each in self._infos.values())

    def require_memory(self, num_bytes: int) -> None:
        """Raises DatasetError where reading is to take more memory than is free, before it does.

        The system would end the process instead.
        """
        if num_bytes > (available := available_memory()):
            raise self.fault(
                f"takes {num_bytes / 2**30:.1f} GiB to read",
                expected=f"at most the {available / 2**30:.1f} GiB of memory that are free",
                hint="free some memory, or save the data in smaller shards",
            )

    def require_rows(self, num_rows: int) -> None:
        """As `require_memory`, for what each of so many transitions takes besides the members.

        One may be a few bytes of the file.
        """
        self.require_memory(num_rows * _ROW_BYTES)

    @staticmethod
    def _read_into(content: NDArray[np.uint8], member: IO[bytes]) -> None:
        at = 0
        while chunk := member.read(_CHUNK):
            content[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
            at += len(chunk)
        if at < len(content):
            raise EOFError(f"{at} of {len(content)} bytes")

    def _array(self, name: str, content: NDArray[np.uint8]) -> NDArray[Any]:
        """The array that the bytes of a `.npy` file hold; it shares their memory."""
        dtype, shape, order, start = read_npy_header(io.BytesIO(content[:_NPY_HEADER_LIMIT].tobytes()))
        if dtype.hasobject:
            raise self.fault(
                f"member {name!r} holds pickled Python objects, which could run code",
                expected="plain numbers",
                hint="save it as a numeric array (no ragged lists)",
            )
        promised = math.prod(shape) * dtype.itemsize
        if promised != len(content) - start:
            raise self.fault(
                f"member {name!r} holds {len(content) - start} bytes",
                expected=f"{promised} for {dtype} {list(shape)}",
                hint=_HINT,
            )
        array: NDArray[Any] = np.ndarray(shape, dtype, buffer=content.data, offset=start, order=order)
        array.flags.writeable = False
        return array

    @property
    def remake(self) -> str:
        """What to do about a member that is wrong."""
        return "re-create the shard"

    def fault(self, what: str, *, expected: str, hint: str) -> DatasetError:
        """A DatasetError about this file."""
        return DatasetError(what, where=self.path, expected=expected, hint=hint)


@contextmanager
def open_npz(path: Path) -> Iterator[NpzReader]:
    """Opens an `.npz` file for reading.

    Raises:
        DatasetError: the file is missing, unreadable or not a zip archive whose parts agree with each other.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(ZipBytes(path, _DIRECTORY_LIMIT))
            archive = stack.enter_context(zipfile.ZipFile(file))
            _require_whole(archive, file)
        except FileNotFoundError:
            raise DatasetError(
                "no such file", where=path, expected="a shard", hint="restore it or re-create it"
            ) from None
        except Exception as error:  # zipfile lets struct, decoding and value errors through on damaged directories
            raise DatasetError(
                f"cannot be opened ({type(error).__name__}: {error})", where=path, expected="an .npz file", hint=_HINT
            ) from error
        yield NpzReader(path, archive)


def _require_whole(archive: zipfile.ZipFile, file: IO[bytes]) -> None:
    """Raises BadZipFile unless the directory's members, one after the other, are all that lies before it.

    A member's checksum guards what is in it, and nothing that it is there: where an entry is damaged, zipfile may pass
    over the next one, and it names a member that is never read as the entry does.
    """
    infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    if len({_name(info) for info in infos}) < len(infos):
        raise zipfile.BadZipFile("two members of one name")
    starts = [*(info.header_offset for info in infos), archive.start_dir]
    if starts[0] != 0:
        raise zipfile.BadZipFile(f"{starts[0]} bytes before the first member")
    for info, next_start in zip(infos, starts[1:], strict=True):
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile bounds no others' memory
            raise zipfile.BadZipFile(f"{info.filename!r} is packed neither plainly nor with deflate")
        with archive.open(info):  # compares the name with the one that stands before the data
            file.seek(info.header_offset + _LENGTHS_AT)
            start = info.header_offset + _HEADER_SIZE + sum(struct.unpack("<HH", file.read(4)))
        left_over = next_start - (start + info.compress_size)
        if left_over not in (_DESCRIPTOR_SIZES if info.flag_bits & _HAS_DESCRIPTOR else (0,)):
            raise zipfile.BadZipFile(f"{left_over} bytes between {info.filename!r} and what follows it")


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename.removesuffix(".npy")
