"""The header of a `.npy` file, read as data: numpy reads it as Python's source.

CPython 3.11's parser counts its depth for all threads together (python/cpython#106905), so that threads which read
files at once are now and then told that a whole one cannot be read; and damaged bytes make it fail in ways of its own.
What offrl reads are plain numbers, whose header is one line of a fixed form (numpy's NEP 1).
"""

from __future__ import annotations

import re
import sys
from typing import IO, Any, Literal, NamedTuple

import numpy as np

_MAGIC = b"\x93NUMPY"
_LENGTH_SIZES = {b"\x01\x00": 2, b"\x02\x00": 4}  # bytes of the header's length, for each version of the format
_LIMIT = 10_000  # characters, as numpy has it
_MOST_DIMENSIONS = 32  # numpy's, before version 2
_DTYPE = "'descr': *'([<>|=]?[biufcSUVO][0-9]*)'"
_ORDER = "'fortran_order': *(True|False)"
_SIZE = "(?:0|[1-9][0-9]{0,18})"
_SHAPE = rf"'shape': *\(((?:{_SIZE},)?|{_SIZE}(?:, *{_SIZE})+,?)\)"
_ENTRY = rf"(?:{_DTYPE}|{_ORDER}|{_SHAPE})"
_HEADER = re.compile(
    rf"{{(?=.*{_DTYPE})(?=.*{_ORDER})(?=.*{_SHAPE})"  # each of the three, in any order
    rf"{_ENTRY}, *{_ENTRY}, *{_ENTRY},? *}}\s*"  # and nothing else
)


class NpyHeader(NamedTuple):
    """What the values of a `.npy` file are; they follow the header at byte `start`."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    start: int


def read_npy_header(file: IO[bytes]) -> NpyHeader:
    """Reads the header at the start of a `.npy` file, and leaves the file at its end.

    Raises:
        OSError, ValueError: There is none, or its values are not of one plain type, such as records.
    """
    magic, version = file.read(len(_MAGIC)), file.read(2)
    if magic != _MAGIC or version not in _LENGTH_SIZES:
        raise ValueError(f"it starts with {magic + version!r}, not as a .npy file of version 1 or 2")
    length = int.from_bytes(file.read(_LENGTH_SIZES[version]), "little")
    if length > _LIMIT:
        raise ValueError(f"a header of {length:,} bytes")
    header = file.read(length).decode("latin1")
    if len(header) < length or (found := _HEADER.fullmatch(header)) is None:
        raise ValueError(f"its header is {header[:100]!r}, not type, order and shape of plain values")
    name, order, shape = found.groups()[:3]
    sizes = tuple(map(int, re.findall("[0-9]+", shape)))
    try:
        dtype = np.dtype(name)
    except TypeError:
        raise ValueError(f"{name!r} is no type of values") from None
    if dtype.itemsize == 0 or len(sizes) > _MOST_DIMENSIONS or max(sizes, default=0) > sys.maxsize:
        raise ValueError(f"{name!r} in the shape ({shape[:100]}) is no array")
    return NpyHeader(dtype, sizes, "F" if order == "True" else "C", file.tell())
