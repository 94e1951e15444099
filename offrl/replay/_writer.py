"""Writing a FrameStore shard by shard: only one shard is ever in memory."""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from offrl.replay._hashes import BLOCK_BYTES, DIGEST_BYTES, BlockHasher, finished_sha256
from offrl.replay.store import DIGESTS, OPTIONAL_ROW_ARRAYS, ROW_ARRAYS, STORE_NAME, STORE_VERSION, IngestReport
from offrl.shards.layouts import ShardRows
from offrl.spec import TaskSpec
from offrl.system.json_files import write_sealed_json

_HEADER_SIZE = 128  # room for the longest shape; numpy wants a multiple of 64


class GrowingArray:
    """A `.npy` file that grows by rows; its header is written last, so a cut one does not load.

    What is written is hashed on the way, as a whole or, where there are `digests`, by blocks.

    Args:
        path: of the file.
        dtype: of the rows.
        row_shape: of one row.
        num_rows: that an existing file keeps; what follows them is cut off.
        digest: what `describe` told of them, as they are found to be.
        digests: where the digests of the blocks go, which has those of the whole blocks of the existing rows.

    Raises:
        OSError, EOFError, ValueError: the existing file does not have these rows.
    """

    def __init__(
        self,
        path: Path,
        dtype: DTypeLike,
        row_shape: tuple[int, ...],
        num_rows: int | None = None,
        digest: str | None = None,
        *,
        digests: GrowingArray | None = None,
    ) -> None:
        self.num_rows = num_rows or 0
        self._dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._path = path
        self._digests = digests
        self._data = hashlib.sha256()
        self._blocks = BlockHasher()
        if num_rows is not None:
            self._go_on(num_rows * math.prod(row_shape) * self._dtype.itemsize, digest)
        self._file = path.open("wb" if num_rows is None else "ab")
        if num_rows is None:
            self._file.write(bytes(_HEADER_SIZE))

    def _go_on(self, num_bytes: int, digest: str | None) -> None:
        """Reads what was not hashed for good: little of the frames, which are most of a store."""
        size = _HEADER_SIZE + num_bytes
        if self._path.stat().st_size < size:
            raise EOFError(f"{self._path.name} is shorter than {size} bytes")
        os.truncate(self._path, size)
        start = 0
        if self._digests is not None:
            start = num_bytes // BLOCK_BYTES * BLOCK_BYTES
            if self._digests.num_rows != num_bytes // BLOCK_BYTES:
                raise ValueError(f"{self._digests.num_rows} digests of {num_bytes} bytes")
        with self._path.open("rb") as file:
            file.seek(_HEADER_SIZE + start)
            rest = file.read()
        if self._digests is None:
            self._data.update(rest)
        else:
            self._blocks = BlockHasher(rest)
        if self._digest() != digest:
            raise ValueError(f"{self._path.name} was changed since it was written")

    def _digest(self) -> str:
        return self._data.hexdigest() if self._digests is None else self._blocks.tail().hex()

    def describe(self) -> tuple[str, tuple[int, ...], int, str]:
        """What the constructor needs to go on: dtype, row shape, rows and their digest."""
        return self._dtype.str, self._row_shape, self.num_rows, self._digest()

    def sync(self) -> None:
        """Returns when the rows are on the disk, so that not even a power cut takes them."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def append(self, rows: NDArray[Any]) -> None:
        """Adds rows [M, ...]."""
        data = np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data
        self._file.write(data)  # ndarray.tofile would not say that the disk is full
        if self._digests is None:
            self._data.update(data)
        else:
            self._append_digests(self._blocks.update(data))
        self.num_rows += len(rows)

    def _append_digests(self, found: bytes) -> None:
        assert self._digests is not None
        self._digests.append(np.frombuffer(found, np.uint8).reshape(-1, DIGEST_BYTES))

    def finish(self) -> str:
        """Writes the header and closes the file; returns the `array_sha256` of what it holds, "" where it has blocks.

        The digests of the blocks are complete then, and to be finished next.
        """
        shape = (self.num_rows, *self._row_shape)
        about = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        magic = np.lib.format.magic(1, 0)
        text_size = _HEADER_SIZE - len(magic) - 2
        text = repr(about).encode().ljust(text_size - 1) + b"\n"
        self._file.close()
        with self._path.open("r+b") as file:
            file.write(magic + struct.pack("<H", text_size) + text)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave a store that looks finished
        if self._digests is None:
            return finished_sha256(self._data, self._dtype, shape)
        self._append_digests(self._blocks.tail())
        return ""

    def close(self) -> None:
        """Closes the file as it is."""
        self._file.close()


class StoreWriter:
    """Collects shards into the arrays of a store; a context manager that leaves nothing loadable on an error.

    Args:
        path: of the store.
        state: what `state()` told of an unfinished store in `path`, to go on from there; None begins a new one.

    Raises:
        OSError, EOFError, KeyError, ValueError: the store in `path` is not in that state.
    """

    def __init__(self, path: Path, state: Mapping[str, Any] | None = None) -> None:
        path.mkdir(parents=True, exist_ok=state is not None)
        self.path = path
        self.num_transitions = 0
        self.num_segments = 0
        self._arrays: dict[str, GrowingArray] = {}
        self._seen: set[str] = set()
        if state is not None:
            self.num_transitions, self.num_segments = state["num_transitions"], state["num_segments"]
            self._seen = set(state["seen"])
            try:
                for name, (dtype, row_shape, num_rows, digest) in state["arrays"].items():
                    self._begin(name, dtype, tuple(row_shape), num_rows, digest)
            except BaseException:
                self.close()
                raise

    def state(self) -> dict[str, Any]:
        """Where the store stands, ready for JSON; returns when that much is on the disk."""
        for array in self._arrays.values():
            array.sync()
        return {
            "num_transitions": self.num_transitions,
            "num_segments": self.num_segments,
            "seen": sorted(self._seen),
            "arrays": {name: array.describe() for name, array in self._arrays.items()},
        }

    @property
    def num_frames(self) -> int:
        """F, so far."""
        return self._arrays["frames"].num_rows if self._arrays else 0

    def append(self, rows: ShardRows, num_actions: int | None) -> None:
        """Adds a shard's rows after those already there; segments never reach across shards.

        Args:
            rows: the shard.
            num_actions: A, which a shard without an action mask needs where others may have one.
        """
        frame_offset, row_offset = self.num_frames, self.num_transitions
        self._append("frames", rows.observations, rows.observations.dtype)
        for name, dtype in ROW_ARRAYS.items():
            offset = row_offset if name == "segment_end" else frame_offset if name.endswith(("last", "first")) else None
            values = getattr(rows, name)
            self._append(name, values if offset is None else values + offset, dtype)
        self._append_optional("behaviour_probability", rows.behaviour_probability, np.full(len(rows), np.nan))
        if num_actions is not None:
            self._append_optional("action_mask", rows.action_mask, np.ones((len(rows), num_actions), np.bool_))
        self.num_transitions += len(rows)
        self.num_segments += len(np.unique(rows.segment_end))

    def _append_optional(self, name: str, values: NDArray[Any] | None, unknown: NDArray[Any]) -> None:
        if values is not None:
            self._seen.add(name)
        self._append(name, unknown if values is None else values, OPTIONAL_ROW_ARRAYS[name])

    def _append(self, name: str, values: NDArray[Any], dtype: DTypeLike) -> None:
        if name == "frames" and DIGESTS not in self._arrays:
            self._begin(DIGESTS, np.uint8, (DIGEST_BYTES,))
        if name not in self._arrays:
            self._begin(name, dtype, values.shape[1:])
        self._arrays[name].append(values)

    def _begin(self, name: str, dtype: DTypeLike, row_shape: tuple[int, ...], *existing: Any) -> None:
        digests = self._arrays[DIGESTS] if name == "frames" else None
        path = self.path / f"{name}.npy"
        self._arrays[name] = GrowingArray(path, dtype, row_shape, *existing, digests=digests)

    def finish(self, spec: TaskSpec, report: IngestReport, fingerprint: str) -> None:
        """Closes the arrays and writes `store.json`; all of it is on the disk when this returns."""
        self._arrays["frames"].finish()
        sha256 = {name: array.finish() for name, array in self._arrays.items() if name != "frames"}
        for name in OPTIONAL_ROW_ARRAYS.keys() - self._seen:
            (self.path / f"{name}.npy").unlink(missing_ok=True)
            sha256.pop(name, None)
        about = {
            "format_version": STORE_VERSION,
            "spec": spec.to_dict(),
            "report": asdict(report),
            "fingerprint": fingerprint,
            "arrays": sha256,
        }
        write_sealed_json(self.path / STORE_NAME, about)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the arrays as they are."""
        for array in self._arrays.values():
            array.close()
