"""Reading `.npz` files that may be damaged or hostile: no pickles, members read once, every fault a DatasetError."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from offrl.errors import DatasetError
from offrl.system.workers import available_memory

_HINT = "the file is damaged or was cut short: re-create it or copy it again"

# A member of a zip: a header of 30 bytes, the last four of them the lengths of name and extra field; these; the data;
# and sizes and checksum, if the writer could not go back to put them into the header (APPNOTE.TXT 4.3.7 and 4.3.9).
_HEADER_SIZE, _LENGTHS_AT = 30, 26
_HAS_DESCRIPTOR = 0x08
_DESCRIPTOR_SIZES = (12, 16, 20, 24)  # with or without a signature and long sizes


class NpzReader:
    """The members of one open `.npz` file; see `open_npz`."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self._infos = {_name(info): info for info in archive.infolist()}

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
        if info.file_size > (available := available_memory()):  # or the system would end the process
            raise self.fault(
                f"member {name!r} takes {info.file_size / 2**30:.1f} GiB",
                expected=f"at most the {available / 2**30:.1f} GiB of memory that are free",
                hint="free some memory, or save the data in smaller shards",
            )
        try:
            with self._archive.open(info) as member:
                content = member.read(info.file_size)  # all of it, so that the checksum is verified first
            return self._array(name, content)
        except DatasetError:
            raise
        except Exception as error:  # zipfile, zlib, the decoders and numpy each fail in their own ways on damaged bytes
            raise self.fault(
                f"member {name!r} cannot be read ({type(error).__name__}: {error})", expected="an array", hint=_HINT
            ) from error

    def _array(self, name: str, content: bytes) -> NDArray[Any]:
        """The array that the bytes of a `.npy` file hold; it shares their memory."""
        stream = io.BytesIO(content)
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(stream)
        if dtype.hasobject:
            raise self.fault(
                f"member {name!r} holds pickled Python objects, which could run code",
                expected="plain numbers",
                hint="save it as a numeric array (no ragged lists)",
            )
        start = stream.tell()
        promised = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or promised != len(content) - start:
            raise self.fault(
                f"member {name!r} holds {len(content) - start} bytes",
                expected=f"{promised} for {dtype} {list(shape)}",
                hint=_HINT,
            )
        return np.ndarray(shape, dtype, buffer=content, offset=start, order="F" if fortran_order else "C")

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
            file = stack.enter_context(path.open("rb"))
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
