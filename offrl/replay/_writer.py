"""Writing a FrameStore shard by shard: only one shard is ever in memory."""

from __future__ import annotations

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

from offrl.replay.store import OPTIONAL_ROW_ARRAYS, ROW_ARRAYS, STORE_NAME, STORE_VERSION, IngestReport, store_sha256
from offrl.shards.layouts import ShardRows
from offrl.spec import TaskSpec
from offrl.system.json_files import write_json

_HEADER_SIZE = 128  # room for the longest shape; numpy wants a multiple of 64


class GrowingArray:
    """A `.npy` file that grows by rows; its header is written last, so a cut one does not load.

    Args:
        path: of the file.
        dtype: of the rows.
        row_shape: of one row.
        num_rows: that an existing file keeps; what follows them is cut off.
    """

    def __init__(self, path: Path, dtype: DTypeLike, row_shape: tuple[int, ...], num_rows: int | None = None) -> None:
        self.num_rows = num_rows or 0
        self._dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._path = path
        if num_rows is not None:
            size = _HEADER_SIZE + num_rows * math.prod(row_shape) * self._dtype.itemsize
            if path.stat().st_size < size:
                raise EOFError(f"{path.name} is shorter than {size} bytes")
            os.truncate(path, size)
        self._file = path.open("wb" if num_rows is None else "ab")
        if num_rows is None:
            self._file.write(bytes(_HEADER_SIZE))

    def describe(self) -> tuple[str, tuple[int, ...], int]:
        """What the constructor needs to go on: dtype, row shape and rows."""
        return self._dtype.str, self._row_shape, self.num_rows

    def sync(self) -> None:
        """Returns when the rows are on the disk, so that not even a power cut takes them."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def append(self, rows: NDArray[Any]) -> None:
        """Adds rows [M, ...]."""
        np.ascontiguousarray(rows, self._dtype).tofile(self._file)
        self.num_rows += len(rows)

    def finish(self) -> None:
        """Writes the header and closes the file."""
        about = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.num_rows, *self._row_shape),
        }
        magic = np.lib.format.magic(1, 0)
        text_size = _HEADER_SIZE - len(magic) - 2
        text = repr(about).encode().ljust(text_size - 1) + b"\n"
        self._file.close()
        with self._path.open("r+b") as file:
            file.write(magic + struct.pack("<H", text_size) + text)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave a store that looks finished

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
                for name, (dtype, row_shape, num_rows) in state["arrays"].items():
                    self._arrays[name] = GrowingArray(path / f"{name}.npy", dtype, tuple(row_shape), num_rows)
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
        if name not in self._arrays:
            self._arrays[name] = GrowingArray(self.path / f"{name}.npy", dtype, values.shape[1:])
        self._arrays[name].append(values)

    def finish(self, spec: TaskSpec, report: IngestReport, fingerprint: str) -> None:
        """Closes the arrays and writes `store.json`."""
        for array in self._arrays.values():
            array.finish()
        for name in OPTIONAL_ROW_ARRAYS.keys() - self._seen:
            (self.path / f"{name}.npy").unlink(missing_ok=True)
        about = {
            "format_version": STORE_VERSION,
            "spec": spec.to_dict(),
            "report": asdict(report),
            "fingerprint": fingerprint,
        }
        about["sha256"] = store_sha256(self.path, about)
        write_json(self.path / STORE_NAME, about)

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
