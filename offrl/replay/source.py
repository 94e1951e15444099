"""What the Learner asks of a replay: pass any object that has this."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offrl.batch import Batch
from offrl.spec import TaskSpec


class ReplaySource(Protocol):
    """Logged transitions to train on.

    A replay may also have `to(device) -> ReplaySource`, which `fit` calls once: another replay, whose batches may lie
    there, or itself. If that other one has `locate(indices) -> Batch`, `fit` calls it in place of `gather`: see
    `Batch.frames`. And a replay may have `prefetch(indices)`, called some batches ahead, which has what `gather` will
    ask for read from disk and returns at once; without it a thread gathers ahead, on a CPU too.

    Attributes:
        spec: the task that the data is of.
    """

    spec: TaskSpec

    def __len__(self) -> int:
        """Transitions."""
        ...

    def indices(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """The global batch of update `step`, int64 [batch_size], on the host: a pure function of (seed, step)."""
        ...

    def gather(self, indices: ArrayLike) -> Batch:
        """The transitions at `indices` [B], wherever the frames live: memory map, RAM or device."""
        ...
