"""One episode as a collector hands it over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.errors import DatasetError


@dataclass(frozen=True)
class Episode:
    """One logged episode (or a segment of one) of T >= 1 steps, as a collector hands it over.

    Attributes:
        observations: pixels: single frames, uint8 [leading + T + 1, H, W], oldest first; vectors: float32 [T + 1, D].
        actions: integers [T].
        rewards: real numbers [T], written as float32.
        terminated: the last step ended the task.
        truncated: the last step was cut (time limit, stop rule, end of the file).
        behaviour_probability: float [T], how likely the behaviour was to choose the action; NaN where unknown.
        leading: older frames before the first one, in a segment that starts in the middle of an episode.
        action_mask: bool [T, A], the legal actions at each step, where the task has them.

    Raises:
        DatasetError: a field whose shape, type or values are not those above.
    """

    observations: NDArray[Any]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: bool
    truncated: bool
    behaviour_probability: NDArray[np.float32] | None = None
    leading: int = 0
    action_mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        steps, observations = len(self.actions), self.observations
        if self.actions.ndim != 1 or steps < 1 or self.actions.dtype.kind not in "iu":
            raise _unfit("actions", self.actions, "integers [T], T at least 1")
        if self.rewards.shape != (steps,) or self.rewards.dtype.kind not in "fiu":
            raise _unfit("rewards", self.rewards, f"real numbers [{steps}], one for each action")
        if not np.isfinite(self.rewards).all():
            raise DatasetError("holds NaN or infinite values", where="Episode.rewards", expected="finite numbers")
        if (observations.ndim, observations.dtype.name) not in ((3, "uint8"), (2, "float32")):
            raise _unfit("observations", observations, "uint8 frames [leading + T + 1, H, W] or float32 [T + 1, D]")
        if self.leading < 0 or (self.leading and observations.ndim == 2):
            raise DatasetError(f"{self.leading}", where="Episode.leading", expected="0 or more, and 0 for vectors")
        if len(observations) != self.leading + steps + 1:
            raise _unfit("observations", observations, f"{self.leading} + {steps} + 1 rows (leading, steps, the last)")
        if self.behaviour_probability is not None and self.behaviour_probability.shape != (steps,):
            raise _unfit("behaviour_probability", self.behaviour_probability, f"[{steps}], one for each action")
        if self.action_mask is not None and (
            self.action_mask.ndim != 2 or len(self.action_mask) != steps or self.action_mask.dtype != np.bool_
        ):
            raise _unfit("action_mask", self.action_mask, f"bool [{steps}, A]")

    def __len__(self) -> int:
        """T, in steps."""
        return len(self.actions)


def _unfit(field: str, found: NDArray[Any], expected: str) -> DatasetError:
    return DatasetError(f"{found.dtype} {list(found.shape)}", where=f"Episode.{field}", expected=expected)
