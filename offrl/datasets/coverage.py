"""How good a dataset is and how much of the task it covers: TQ and SACo of Schweighofer et al. 2022 (arXiv:2111.04714).

Together they tell which algorithms have a chance. In the paper's experiments imitation (BC) follows TQ, DQN and its kin
need a high SACo, and algorithms that keep to the behaviour (BCQ, CQL, CRR) do well where either is high or both are
moderate.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from offrl.checks import is_whole
from offrl.errors import ConfigError, DatasetError
from offrl.replay._windows import stack_windows
from offrl.replay.store import FrameStore
from offrl.shards.manifest import MANIFEST_NAME, Manifest

_FRAME_HASH_BYTES = 16
_CHUNK_FRAMES = 4096
_CHUNK_ROWS = 65_536


def trajectory_quality(returns: ArrayLike, random_return: float, best_return: float) -> float:
    """TQ, the mean return of a dataset, 0 for that of random actions and 1 for that of the best online policy.

    TQ(D) = (g(D) - g_min) / (g_max - g_min), where g(D) is the mean undiscounted return of the episodes of D
    (arXiv:2111.04714, section 3).

    Args:
        returns: of the dataset's episodes, [E].
        random_return: g_min, the mean return of random actions.
        best_return: g_max, the mean return of the best policy found online.

    Raises:
        ConfigError: no returns, or a best return that is not over the random one.
    """
    found = np.asarray(returns, np.float64)
    if not found.size:
        raise ConfigError("no returns", where="trajectory_quality", expected="one or more")
    if not best_return > random_return:
        raise ConfigError(
            f"best_return {best_return:g} and random_return {random_return:g}",
            where="trajectory_quality",
            expected="a best return over the random one",
            hint="let the online learner play for longer, or with other settings",
        )
    return float((found.mean() - random_return) / (best_return - random_return))


def state_action_coverage(num_pairs: int, num_reference_pairs: int) -> float:
    """SACo, how many different state-action pairs a dataset has, relative to a reference dataset.

    SACo(D) = u(D) / u(D_ref), where u counts the unique pairs of state and action (arXiv:2111.04714, section 3); the
    reference is the replay dataset, all that an online agent saw.

    Args:
        num_pairs: u(D), see `count_pairs`.
        num_reference_pairs: u(D_ref), over 0.

    Raises:
        ConfigError: a count that is none.
    """
    if num_pairs < 0 or num_reference_pairs < 1:
        raise ConfigError(
            f"{num_pairs} pairs of {num_reference_pairs}",
            where="state_action_coverage",
            expected="0 or more pairs, and 1 or more in the reference dataset",
        )
    return num_pairs / num_reference_pairs


def count_pairs(store: FrameStore, *, progress: bool = False) -> int:
    """How many different pairs of state and action a dataset has; states are observations, stacks as a whole.

    Pairs are told apart by 8 bytes of BLAKE2b, in 8 bytes of memory each: of n pairs about n**2 / 2**65 are taken for
    another, far less than one even of a hundred million. The frames are read once, a few thousand at a time.

    Args:
        store: the dataset.
        progress: show a progress bar, where stderr is a terminal.

    Raises:
        DatasetError: the store was changed since it was written.
    """
    frames = _frame_hashes(store, progress)
    pairs = np.empty(len(store), np.uint64)
    for start in range(0, len(store), _CHUNK_ROWS):
        rows = np.arange(start, min(start + _CHUNK_ROWS, len(store)))
        pairs[rows] = _pair_hashes(store, frames, rows)
    return len(np.unique(pairs))


def _frame_hashes(store: FrameStore, progress: bool) -> NDArray[np.uint8]:
    """Of each frame, uint8 [F, 16]; a stack's hash is of those of its frames, so that each is read once."""
    num_frames = len(store.frames)
    hashes = np.empty((num_frames, _FRAME_HASH_BYTES), np.uint8)
    bar: Any = tqdm(
        total=num_frames, desc="unique pairs", unit=" frames", disable=None if progress else True, leave=False
    )
    with bar:
        for start in range(0, num_frames, _CHUNK_FRAMES):
            stop = min(start + _CHUNK_FRAMES, num_frames)
            chunk = np.ascontiguousarray(store.frames_between(start, stop)).reshape(stop - start, -1)
            if not store.spec.is_pixels:
                chunk = chunk + np.float32(0)  # -0.0 and 0.0 are one state, and have other bytes
            digests = (hashlib.blake2b(frame.data, digest_size=_FRAME_HASH_BYTES).digest() for frame in chunk)
            hashes[start:stop] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _FRAME_HASH_BYTES)
            bar.update(stop - start)
    return hashes


def _pair_hashes(store: FrameStore, frames: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Of the observations and actions of transitions `rows` [B]. [B]."""
    windows = stack_windows(store.last[rows], store.first[rows], store.spec.stack)
    states = frames[windows].reshape(len(rows), -1)
    actions = np.ascontiguousarray(store.actions[rows]).view(np.uint8).reshape(len(rows), -1)
    keys = np.concatenate([states, actions], axis=1)
    digests = b"".join(hashlib.blake2b(key.data, digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, np.uint64)


@dataclass(frozen=True)
class References:
    """What TQ and SACo refer to; None for what is not known.

    Attributes:
        random_return: mean return of random actions.
        best_return: mean return of the best policy found online.
        num_pairs: unique state-action pairs of the replay dataset.
    """

    random_return: float | None = None
    best_return: float | None = None
    num_pairs: int | None = None

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> References:
        """Those that a dataset of `offrl.collection.collect_protocol` records; none for any other dataset.

        Raises:
            DatasetError: the manifest has something else in their place.
        """
        recorded = manifest.protocol or {}
        found: dict[str, Any] = {name: recorded.get(name) for name in ("random_return", "best_return", "num_pairs")}
        for name, value in found.items():
            fits = is_whole(value) if name == "num_pairs" else isinstance(value, int | float)
            if value is not None and (isinstance(value, bool) or not fits):
                raise DatasetError(f"{name} is {value!r}", where=MANIFEST_NAME, expected="a number")
        return cls(**found)

    @classmethod
    def of_directory(cls, directory: Path) -> References:
        """Those that the manifest of the dataset in this directory records, if it has one.

        Raises:
            DatasetError: a damaged manifest.
        """
        if not (directory / MANIFEST_NAME).exists():
            return cls()
        return cls.of_manifest(Manifest.load(directory))


@dataclass(frozen=True)
class Measures:
    """TQ and SACo of a dataset.

    Attributes:
        num_pairs: unique state-action pairs.
        references: what the measures refer to.
        tq: see `trajectory_quality`; None where the references are not known, or the best return is not over random's.
        saco: see `state_action_coverage`; None where the replay dataset's pairs are not known.
    """

    num_pairs: int
    references: References
    tq: float | None
    saco: float | None

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-ready."""
        return {"tq": self.tq, "saco": self.saco, "num_pairs": self.num_pairs, "references": vars(self.references)}

    def to_lines(self) -> list[str]:
        """What is known, in words."""
        known = self.references
        lines = []
        if self.tq is not None:
            lines.append(
                f"TQ           {self.tq:.2f}: the mean return, where 0 is random ({known.random_return:,.1f}) "
                f"and 1 the best online policy ({known.best_return:,.1f})"
            )
        elif known.best_return is not None and known.random_return is not None:
            lines.append(
                f"TQ           not defined: the best online policy ({known.best_return:,.1f}) is not better than "
                f"random actions ({known.random_return:,.1f})"
            )
        if self.saco is not None:
            lines.append(
                f"SACo         {self.saco:.2f}: {self.num_pairs:,} unique state-action pairs, of the replay dataset's "
                f"{known.num_pairs:,}"
            )
        else:
            lines.append(
                f"unique       {self.num_pairs:,} state-action pairs; --reference REPLAY, a dataset that offrl collect "
                "--kind replay makes, gives TQ and SACo"
            )
        if self.tq is not None and self.saco is not None:
            lines.append(f"             {READING}")
        return lines


READING = "BC needs a high TQ, DQN a high SACo; BCQ does well with either, or both moderate"
"""What TQ and SACo say about algorithms."""


def measure(store: FrameStore, references: References, *, progress: bool = False) -> Measures:
    """TQ and SACo of a dataset, as far as what they refer to is known.

    Args:
        store: the dataset.
        references: see `References`.
        progress: show a progress bar, where stderr is a terminal.

    Raises:
        DatasetError: the store was changed since it was written.
    """
    num_pairs = count_pairs(store, progress=progress)
    low, high = references.random_return, references.best_return
    tq = None
    if low is not None and high is not None and high > low:
        tq = trajectory_quality(store.episode_returns(), low, high)
    saco = None
    if references.num_pairs is not None:
        saco = state_action_coverage(num_pairs, references.num_pairs)
    return Measures(num_pairs, references, tq, saco)
