"""Reading `.npz` files that may be damaged or hostile: no pickles, members read once, every fault a DatasetError."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from offrl.errors import DatasetError

_MEND = "the file is damaged or was cut short: re-create it or copy it again"


class NpzReader:
    """The members of one open `.npz` file; see `open_npz`."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self._infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

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
                f"has no member {name!r}", expected=f"one beside {sorted(self.names)}", mend="re-create the file"
            )
        try:
            with self._archive.open(self._infos[name]) as member:
                return self._read_array(name, member, self._infos[name].file_size)
        except DatasetError:
            raise
        except Exception as error:  # zipfile, zlib, the decoders and numpy each fail in their own ways on damaged bytes
            raise self.fault(
                f"member {name!r} cannot be read ({type(error).__name__}: {error})", expected="an array", mend=_MEND
            ) from error

    def _read_array(self, name: str, member: IO[bytes], size: int) -> NDArray[Any]:
        version = np.lib.format.read_magic(member)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(member)
        if dtype.hasobject:
            raise self.fault(
                f"member {name!r} holds pickled Python objects, which could run code",
                expected="plain numbers",
                mend="save it as a numeric array (no ragged lists)",
            )
        # Compared before anything is allocated: a header may promise terabytes.
        promised = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or promised != size - member.tell():
            raise self.fault(
                f"member {name!r} holds {size - member.tell()} bytes",
                expected=f"{promised} for {dtype} {list(shape)}",
                mend=_MEND,
            )
        data = member.read()  # to the end, so that the checksum is verified
        return np.ndarray(shape, dtype, buffer=data, order="F" if fortran_order else "C")

    def fault(self, what: str, *, expected: str, mend: str) -> DatasetError:
        """A DatasetError about this file."""
        return DatasetError(what, where=self.path, expected=expected, mend=mend)


@contextmanager
def open_npz(path: Path) -> Iterator[NpzReader]:
    """Opens an `.npz` file for reading.

    Raises:
        DatasetError: the file is missing, unreadable or not a zip archive.
    """
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise DatasetError("no such file", where=path, expected="a shard", mend="restore it or re-create it") from None
    except Exception as error:  # zipfile lets struct, decoding and value errors through on damaged directories
        raise DatasetError(
            f"cannot be opened ({type(error).__name__}: {error})", where=path, expected="an .npz file", mend=_MEND
        ) from error
    with archive:
        yield NpzReader(path, archive)
