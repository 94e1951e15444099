"""What training asks of a replay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from offrl.batch import Batch, FrameBatch
from offrl.spec import TaskSpec


class Contents(NamedTuple):
    """What a replay draws from, in the numbers by which `fit` judges whether an algorithm can learn from it.

    Attributes:
        action_counts: int64 [A], how many of the transitions took each action.
        legal: bool [A], which actions are legal in any of them.
        lowest_reward: of all steps.
        highest_reward: of all steps.
        num_episodes: that the transitions are of.
        num_terminated: transitions within whose steps the episode terminates.
        num_continued: transitions after whose steps the log has another one.
        largest_features: float64 [D], of vectors the largest absolute value of each feature as networks see it, in some
            thousand transitions; None for pictures, or where nobody has looked.
    """

    action_counts: NDArray[np.int64]
    legal: NDArray[np.bool_]
    lowest_reward: float
    highest_reward: float
    num_episodes: int
    num_terminated: int
    num_continued: int
    largest_features: NDArray[np.float64] | None = None


class ReplaySource(ABC):
    """Logged transitions to train on.

    A replay of your own needs `spec` and the three abstract methods; the other members have defaults that work.

    Attributes:
        spec: the task that the data is of.
        fingerprint: a hash of the data, for a run's records; None where there is none.
        environment: the id of the environment that the data is of, likewise; also None where the id does not say all.
        origin: where the data lies and how it was read, for a run's records, JSON-ready; see `open_replay`.
        gather_ahead: whether a thread should gather the next batches while a processor is busy with the update. It
            pays where `gather` waits for something, such as a disk; a GPU's batches are always gathered ahead.
    """

    spec: TaskSpec
    fingerprint: str | None = None
    environment: str | None = None
    origin: Mapping[str, Any] = MappingProxyType({})
    gather_ahead: bool = True

    @abstractmethod
    def __len__(self) -> int:
        """The number of transitions."""

    @abstractmethod
    def indices(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """The transitions of update `step`, int64 [batch_size], on the host: a pure function of (seed, step)."""

    @abstractmethod
    def gather(self, indices: ArrayLike) -> Batch | FrameBatch:
        """The transitions at `indices` [B], wherever the frames are: memory map, RAM or device."""

    def prefetch(self, indices: ArrayLike) -> None:  # noqa: B027  (a default that does nothing)
        """Starts to read from disk what a batch will need, and returns at once. Called some batches ahead.

        The default does nothing.
        """

    def to(self, device: torch.device) -> ReplaySource:
        """The replay to train on `device` with; called once, before training. The default is this replay itself."""
        return self

    def held_out(self) -> ReplaySource | None:
        """The data that this replay keeps from training, for their loss in the metrics. The default is none."""
        return None

    def contents(self) -> Contents | None:
        """What there is to learn from, for warnings before training. The default is None: nobody knows."""
        return None

    def settings(self) -> dict[str, Any]:
        """What a run's config.json records about this replay, JSON-ready. The default is nothing."""
        return {}
