"""FrameStore: a dataset as arrays on disk, each frame once, memory-mapped or in RAM."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from offrl.errors import ConfigError, DatasetError
from offrl.replay._hashes import FrameBlocks, digests_path, load_array, map_array
from offrl.replay._windows import episode_bounds, stack_windows
from offrl.shards.layouts import Layout, Problem
from offrl.shards.manifest import file_sha256
from offrl.spec import TaskSpec
from offrl.system.json_files import read_json
from offrl.system.workers import available_memory

Tier = Literal["auto", "ram", "mmap"]

STORE_NAME = "store.json"
STORE_VERSION = 4
UNCHECKED_VERSION = 3
"""Without hashes of its frames; one that is there is used as it is."""

# name -> dtype; `frames` besides, whose type is the observations'
ROW_ARRAYS = {
    "actions": np.int64,
    "rewards": np.float32,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "last": np.int64,
    "first": np.int64,
    "next_last": np.int64,
    "next_first": np.int64,
    "segment_end": np.int64,
}
OPTIONAL_ROW_ARRAYS = {"behaviour_probability": np.float32, "action_mask": np.bool_}
DIGESTS = digests_path(Path("frames.npy")).stem
"""The name of one more array: of the hashes of the blocks of frames."""


@dataclass(frozen=True)
class IngestReport:
    """What ingest found.

    Attributes:
        layout: of the shards.
        num_shards: read.
        num_transitions: in all shards.
        num_segments: runs of transitions that follow each other (episodes, where the log holds them whole).
        num_frames: kept; a frame that several stacks share is kept once.
        largest_rounding_error: of float pixels against the uint8 kept, in gray levels.
        warnings: what looks wrong with the data.
        skipped: shards that were set aside because they are damaged, and why.
    """

    layout: Layout
    num_shards: int
    num_transitions: int
    num_segments: int
    num_frames: int
    largest_rounding_error: float = 0.0
    warnings: tuple[Problem, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> IngestReport:
        """The inverse of `dataclasses.asdict`, also after JSON.

        Raises:
            TypeError, KeyError: not such a dictionary.
        """
        skipped = tuple((name, reason) for name, reason in values.get("skipped", ()))
        # Stores that were made before 0.1.0 call the hint "mend".
        problems = tuple(
            Problem(**{("hint" if k == "mend" else k): v for k, v in p.items()}) for p in values["warnings"]
        )
        return cls(**{**values, "warnings": problems, "skipped": skipped})


class FrameStore:
    """N transitions over F frames; open one with `FrameStore.open`, make one with `ingest`.

    An observation is the window of the S frames that end at `last`, clipped at `first`, whose frame then stands
    for the older ones; the next observation likewise with `next_last` and `next_first`.

    Attributes:
        path: the directory.
        spec: the task that the data is of.
        report: what ingest found.
        fingerprint: a hash of the data that the store was made from, for a run's records.
        tier: where the arrays are, "ram" or "mmap".
        frames: uint8 [F, H, W] or [F, C, H, W], or float32 [F, D] for vectors; read them with `frames_at` or
            `frames_between`, which check that they are as they were written, or after `require_sound`.
        actions: int64 [N].
        rewards: float32 [N].
        terminated: bool [N], true only at the end of a segment.
        truncated: bool [N]; the end of every segment is terminated or truncated.
        last: int64 [N]; with `first`, `next_last` and `next_first` the windows of each transition.
        segment_end: int64 [N], the last row of each row's segment; windows and returns stay inside a segment.
        behaviour_probability: float32 [N], NaN where unknown, or None.
        action_mask: bool [N, A], the legal actions, or None.
    """

    def __init__(
        self,
        path: Path,
        spec: TaskSpec,
        report: IngestReport,
        fingerprint: str,
        tier: Literal["ram", "mmap"],
        arrays: dict[str, NDArray[Any]],
        blocks: FrameBlocks | None = None,
    ) -> None:
        self.path = path
        self.spec = spec
        self.report = report
        self.fingerprint = fingerprint
        self.tier = tier
        self._blocks = blocks
        self.frames: NDArray[Any] = arrays["frames"]
        self.actions: NDArray[np.int64] = arrays["actions"]
        self.rewards: NDArray[np.float32] = arrays["rewards"]
        self.terminated: NDArray[np.bool_] = arrays["terminated"]
        self.truncated: NDArray[np.bool_] = arrays["truncated"]
        self.last: NDArray[np.int64] = arrays["last"]
        self.first: NDArray[np.int64] = arrays["first"]
        self.next_last: NDArray[np.int64] = arrays["next_last"]
        self.next_first: NDArray[np.int64] = arrays["next_first"]
        self.segment_end: NDArray[np.int64] = arrays["segment_end"]
        self.behaviour_probability: NDArray[np.float32] | None = arrays.get("behaviour_probability")
        self.action_mask: NDArray[np.bool_] | None = arrays.get("action_mask")

    @classmethod
    def open(cls, path: Path | str, tier: Tier = "auto") -> FrameStore:
        """Opens a finished store; batches are the same bytes in every tier.

        Args:
            path: its directory.
            tier: "mmap" leaves the arrays on disk and reads what is asked for, "ram" loads them, "auto" takes
                "ram" where the frames need less than half of the memory available.

        Raises:
            ConfigError: an unknown tier.
            DatasetError: no finished store, or a damaged one.
        """
        if tier not in get_args(Tier):
            raise ConfigError(f"{tier!r}", where="tier", expected=f"one of {', '.join(get_args(Tier))}")
        path = Path(path)
        try:
            about = read_json(path / STORE_NAME)
            version = about["format_version"]
            if version not in (STORE_VERSION, UNCHECKED_VERSION):
                raise ValueError(f"format_version is {version!r}, not {STORE_VERSION}")
            if version == UNCHECKED_VERSION:
                about["arrays"] = _arrays_of_version_3(path, about)
            names = about["arrays"].keys()
            if wrong := (ROW_ARRAYS.keys() - names) | (names - {*ROW_ARRAYS, *OPTIONAL_ROW_ARRAYS, DIGESTS}):
                raise ValueError(f"{STORE_NAME} lacks the array {min(wrong)}, or names one that no store has")
            report = IngestReport.from_dict(about["report"])
            spec = TaskSpec.from_dict(about["spec"], where=path / STORE_NAME)
            fingerprint = str(about["fingerprint"])
            frames_size = (path / "frames.npy").stat().st_size
            if tier == "auto":
                tier = "ram" if frames_size < available_memory() / 2 else "mmap"
            arrays = {
                name: load_array(path / f"{name}.npy", "ram" if name == DIGESTS else tier, sha256)
                for name, sha256 in about["arrays"].items()
            }
            mapped = map_array(path / "frames.npy")
            expected = (report.num_frames, *spec.frame_shape)
            if (mapped.shape, mapped.dtype) != (expected, np.dtype(spec.observation_dtype)):
                raise DatasetError(
                    f"{mapped.dtype} {list(mapped.shape)}",
                    where=path / "frames.npy",
                    expected=f"{spec.observation_dtype} {list(expected)}",
                    hint="delete this directory and open the dataset again to rebuild it",
                )
            frames = np.empty(mapped.shape, mapped.dtype) if tier == "ram" else np.asarray(mapped)
            blocks = None
            if version != UNCHECKED_VERSION:
                blocks = FrameBlocks(frames, arrays.pop(DIGESTS), path / "frames.npy")
                if tier == "ram":
                    blocks.read(mapped.offset)
            elif tier == "ram":
                frames[:] = mapped
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
            raise DatasetError(
                f"no finished frame store ({type(error).__name__}: {error})",
                where=path,
                expected=f"{STORE_NAME} and its arrays",
                hint="delete this directory and open the dataset again to rebuild it",
            ) from error
        return cls(path, spec, report, fingerprint, tier, {"frames": frames, **arrays}, blocks)

    @property
    def is_checked(self) -> bool:
        """Whether frames are checked when they are used; those of stores of an earlier version have no hashes."""
        return self._blocks is not None

    def __len__(self) -> int:
        """N, in transitions."""
        return len(self.actions)

    def episode_of_rows(self) -> NDArray[np.int64]:
        """Which of the E episodes (segments, where the log does not hold them whole) each transition is of. [N]."""
        _, last = episode_bounds(self.segment_end)
        return np.searchsorted(last, self.segment_end)

    def episode_returns(self) -> NDArray[np.float64]:
        """The undiscounted return of each episode. [E]."""
        first, _ = episode_bounds(self.segment_end)
        returns: NDArray[np.float64] = np.add.reduceat(self.rewards, first, dtype=np.float64)
        return returns

    def observations(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The observations of transitions `rows` [B]: uint8 [B, S, H, W], or float32 [B, D]."""
        return self.stacks(self.last[rows], self.first[rows])

    def next_observations(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """What transitions `rows` [B] led to, one step on: uint8 [B, S, H, W], or float32 [B, D]."""
        return self.stacks(self.next_last[rows], self.next_first[rows])

    def stacks(self, last: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[Any]:
        """The observations whose windows these are, uint8 [B, S, H, W] or float32 [B, D]; see `stack_windows`."""
        windows = stack_windows(last, first, self.spec.stack).ravel()
        return self.frames_at(windows).reshape(len(last), *self.spec.observation_shape)

    def frames_at(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The frames at `indices` [n], which must be inside 0 .. F - 1: uint8 [n, ...] or float32 [n, D].

        Raises:
            DatasetError: The file was changed there since it was written; each part is checked when it is first read.
        """
        self.require_sound(indices)
        out = np.empty((len(indices), *self.frames.shape[1:]), self.frames.dtype)
        # mode="clip" lets take write straight into `out`; the indices are inside the frames by construction.
        np.take(self.frames, indices, axis=0, out=out, mode="clip")
        return out

    def require_sound(self, *indices: NDArray[np.int64]) -> None:
        """Checks the frames at `indices`, arrays of any shape, as far as they were not.

        Raises:
            DatasetError: The file was changed there since it was written.
        """
        if self._blocks is not None:
            for each in indices:
                self._blocks.require(each.ravel())

    def touch(self, *windows: NDArray[np.int64]) -> None:
        """Waits until windows [B, S] of frames have been read from disk: touches the two ends of each."""
        if self.tier == "ram":
            return
        frames = self.frames.reshape(len(self.frames), -1)
        for each in windows:
            frames[each[:, 0], 0], frames[each[:, -1], -1]

    def frames_between(self, first: int, stop: int) -> NDArray[Any]:
        """The frames from `first` to before `stop`, a view.

        Raises:
            DatasetError: As `frames_at`.
        """
        if self._blocks is not None:
            self._blocks.require_range(first, stop)
        return self.frames[first:stop]

    def prefetch(self, rows: NDArray[np.int64], last_rows: NDArray[np.int64]) -> None:
        """Asks the system to read some stacks from disk, where they are not in memory, and does not wait for it.

        Left to itself, it reads when a page is touched, one after the other, and around each what nobody asked for:
        with its usual settings many times as much.

        Args:
            rows: [B], the transitions whose observations are meant.
            last_rows: [B], those whose next observations are.
        """
        mapped = _mapping(self.frames) if hasattr(mmap, "MADV_WILLNEED") else None
        if mapped is None:
            return
        mapping, offset = mapped
        stack = self.spec.stack
        windows = np.concatenate(
            [
                stack_windows(self.last[rows], self.first[rows], stack),
                stack_windows(self.next_last[last_rows], self.next_first[last_rows], stack),
            ]
        )
        size = self.frames[:1].nbytes
        with suppress(OSError):  # it is advice: a system that cannot take it now reads later
            for first, last in zip(windows[:, 0].tolist(), windows[:, -1].tolist(), strict=True):
                start, end = first * size, (last + 1) * size
                if self._blocks is not None:
                    start, end = self._blocks.widened(start, end)
                start = (start + offset) // mmap.PAGESIZE * mmap.PAGESIZE
                mapping.madvise(mmap.MADV_WILLNEED, start, end + offset - start)


def _mapping(array: NDArray[Any]) -> tuple[mmap.mmap, int] | None:
    """The file mapping that an array is a view of, and at which of its bytes the array begins; None without one."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap):
        return None
    return base, array.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data


def _arrays_of_version_3(path: Path, about: dict[str, Any]) -> dict[str, None]:
    """The names of the arrays of its rows, which a hash of all of them together is of."""
    names = [*ROW_ARRAYS, *(name for name in OPTIONAL_ROW_ARRAYS if (path / f"{name}.npy").exists())]
    sha256 = about.pop("sha256", None)
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in names:
        digest.update(f"{name} {file_sha256(path / f'{name}.npy')}".encode())
    if sha256 != digest.hexdigest():
        raise ValueError("its files were changed since they were written")
    return dict.fromkeys(names)
