"""The hashes of a store: its arrays of rows as wholes, its frames by blocks, each checked when it is first used."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from offrl.errors import DatasetError
from offrl.system.files import open_regular
from offrl.system.npy import read_npy_header
from offrl.system.workers import num_cores

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

BLOCK_BYTES = 2**16
"""A stack of 96 x 96 frames has 36 KiB: smaller blocks would be more hashes, larger ones more to read for a stack."""
DIGEST_BYTES = 16
_CHUNK_BLOCKS = 64  # 4 MiB, read and hashed while they are in the processor's cache
_MOST_THREADS = 8


def block_digest(block: bytes | memoryview) -> bytes:
    """The first 16 bytes of the SHA-256 of a block: enough against damage, and a quarter of the hash's room."""
    return hashlib.sha256(block).digest()[:DIGEST_BYTES]


class BlockHasher:
    """Hashes what is written to a file, block by block.

    Args:
        tail: What follows the last whole block of a file that is continued.
    """

    def __init__(self, tail: bytes = b"") -> None:
        self._block = hashlib.sha256(tail)
        self._size = len(tail)

    def update(self, data: memoryview) -> bytes:
        """The digests of the blocks that `data` completes, one after the other."""
        found = []
        while self._size + len(data) >= BLOCK_BYTES:
            rest = BLOCK_BYTES - self._size
            self._block.update(data[:rest])
            found.append(self._block.digest()[:DIGEST_BYTES])
            self._block, self._size, data = hashlib.sha256(), 0, data[rest:]
        self._block.update(data)
        self._size += len(data)
        return b"".join(found)

    def tail(self) -> bytes:
        """The digest of what follows the last whole block; empty where nothing does."""
        return self._block.digest()[:DIGEST_BYTES] if self._size else b""


class FrameBlocks:
    """Frames, and which of them are as they were written.

    Args:
        frames: [F, ...], contiguous.
        digests: uint8 [blocks, 16], of each 64 KiB of them.
        path: The file that has them, for messages.

    Raises:
        ValueError: So many digests are not those of so many frames.
    """

    def __init__(self, frames: NDArray[Any], digests: NDArray[np.uint8], path: Path) -> None:
        num_blocks = -(-frames.nbytes // BLOCK_BYTES)
        if digests.shape != (num_blocks, DIGEST_BYTES) or digests.dtype != np.uint8:
            raise ValueError(f"{digests.dtype} {list(digests.shape)} of digests, not uint8 [{num_blocks}, 16]")
        self._bytes = frames.reshape(-1).view(np.uint8).data
        self._frame_bytes = frames[:1].nbytes
        self._digests = digests
        self._path = path
        self._is_good_block = np.zeros(num_blocks, np.bool_)
        # For each frame, too, so that a gather looks up one value for each frame and computes nothing.
        self._is_good = np.zeros(len(frames), np.bool_)

    def require(self, rows: NDArray[np.int64]) -> None:
        """Checks the blocks that have the frames `rows` [n], as far as they were not.

        Raises:
            DatasetError: One of them was changed since it was written.
        """
        if (good := self._is_good[rows]).all():
            return
        new = rows[~good]
        first, last = self._blocks_of(new)
        # Frames of more than a block have others between their first and last one.
        inner = [first + offset for offset in range(1, int((last - first).max()))]
        blocks = np.unique(np.concatenate([first, last, *(np.minimum(each, last) for each in inner)]))
        for block in blocks[~self._is_good_block[blocks]].tolist():
            self._check(block)
        self._is_good[new] = True

    def require_range(self, first: int, stop: int) -> None:
        """Checks the blocks that have the frames from `first` to before `stop`; on several threads where it is much.

        Raises:
            DatasetError: One of them was changed since it was written.
        """
        if stop <= first or self._is_good[first:stop].all():
            return
        low, high = first * self._frame_bytes // BLOCK_BYTES, -(-stop * self._frame_bytes // BLOCK_BYTES)
        blocks = low + np.flatnonzero(~self._is_good_block[low:high])
        parts = [blocks[start : start + _CHUNK_BLOCKS] for start in range(0, len(blocks), _CHUNK_BLOCKS)]
        _in_parallel(self._check_all, parts)
        self._is_good[first:stop] = True

    def read(self, offset: int) -> None:
        """Fills the frames with what their file has from byte `offset` on, and checks them all on the way.

        Raises:
            EOFError: The file is too short.
            DatasetError: A block was changed since it was written.
        """

        def read_part(block: int) -> None:
            part = self._bytes[block * BLOCK_BYTES : (block + _CHUNK_BLOCKS) * BLOCK_BYTES]
            with open_regular(self._path) as file:
                file.seek(offset + block * BLOCK_BYTES)
                if file.readinto(part) != len(part):  # type: ignore[attr-defined]  # a buffered file has it
                    raise EOFError(f"{self._path.name} is cut short")
            self._check_all(np.arange(block, min(block + _CHUNK_BLOCKS, len(self._digests))))

        _in_parallel(read_part, range(0, len(self._digests), _CHUNK_BLOCKS))
        self._is_good[:] = True

    def widened(self, start: int, end: int) -> tuple[int, int]:
        """The bytes that have to be read to use the bytes from `start` to `end`: whole blocks, until they are good."""
        low, high = start // BLOCK_BYTES, -(-end // BLOCK_BYTES)
        if self._is_good_block[low:high].all():
            return start, end
        return low * BLOCK_BYTES, min(high * BLOCK_BYTES, len(self._bytes))

    def _blocks_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        start = rows * self._frame_bytes
        return start // BLOCK_BYTES, (start + (self._frame_bytes - 1)) // BLOCK_BYTES

    def _check_all(self, blocks: NDArray[np.int64]) -> None:
        for block in blocks.tolist():
            self._check(block)

    def _check(self, block: int) -> None:
        start, end = block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES
        size = self._frame_bytes
        if block_digest(self._bytes[start:end]) != self._digests[block].tobytes():
            last = min(-(-end // size), len(self._is_good)) - 1
            raise DatasetError(
                f"block {block} (frames {start // size} to {last}) was changed since it was written",
                where=self._path,
                expected=f"what the hashes of {digests_path(self._path).name} are of",
                hint="delete the store's directory and open the dataset again to rebuild it from the shards",
            )
        self._is_good_block[block] = True
        self._is_good[-(-start // size) : end // size] = True  # those that lie in it as a whole


def digests_path(frames: Path) -> Path:
    """Where the digests of a file of frames lie."""
    return frames.with_name(f"{frames.stem}.blocks.npy")


def _in_parallel(work: Callable[[Any], None], parts: Sequence[Any]) -> None:
    """Does the work of each part, on threads; hashing and reading leave Python's lock to others."""
    if len(parts) == 1:
        work(parts[0])
        return
    with ThreadPoolExecutor(min(num_cores(), _MOST_THREADS), thread_name_prefix="offrl-blocks") as pool:
        for _ in pool.map(work, parts):
            pass


def load_array(path: Path, tier: Literal["ram", "mmap"], sha256: str | None) -> NDArray[Any]:
    """An array, which has that hash.

    Raises:
        OSError, EOFError, ValueError: There is none, or it was changed since it was written.
    """
    mapped = map_array(path)
    # A plain view of the map: indexing memmap objects costs more and gives memmaps.
    array = np.array(mapped) if tier == "ram" else np.asarray(mapped)
    if sha256 is not None and array_sha256(array) != sha256:
        raise ValueError(f"{path.name} was changed since it was written")
    return array


def map_array(path: Path) -> np.memmap[Any, Any]:
    """A `.npy` file's array, which stays on disk.

    Raises:
        OSError, EOFError, ValueError: There is none.
    """
    with open_regular(path) as file:
        dtype, shape, order, start = read_npy_header(file)
        if order != "C":
            raise ValueError(f"the values of {path.name} are not in C's order")
        if dtype.hasobject:
            raise ValueError(f"{path.name} holds pickled Python objects")
        size, promised = os.fstat(file.fileno()).st_size - start, math.prod(shape) * dtype.itemsize
        if size != promised:
            raise ValueError(f"{path.name} has {size:,} bytes, where {promised:,} are {dtype} {list(shape)}")
        return np.memmap(file, dtype, "r", start, shape)


def array_sha256(array: NDArray[Any]) -> str:
    """The SHA-256 of what an array holds, and of its type and shape, in hexadecimal."""
    return finished_sha256(hashlib.sha256(array.reshape(-1).view(np.uint8).data), array.dtype, array.shape)


def finished_sha256(data: Hash, dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    """As `array_sha256`, from the hash of the values alone: how many there will be is known last."""
    whole = data.copy()
    whole.update(f"{dtype.str} {list(shape)}".encode())
    return whole.hexdigest()
