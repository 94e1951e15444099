"""The two shard layouts, read into one form: rows whose stacks are windows over frames that are each kept once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from offrl.shards._npz import NpzReader

Layout = Literal["frames", "stacked"]
Dones = Literal["terminated", "not_done"]


@dataclass(frozen=True)
class ShardRows:
    """One shard's N transitions in reading order, cut into segments of rows that follow each other.

    Attributes:
        observations: uint8 [F, H, W] single frames, or float32 [F, D].
        actions: int64 [N].
        rewards: float32 [N].
        terminated: bool [N], true only at the end of a segment.
        truncated: bool [N]; the end of every segment is terminated or truncated.
        last: int64 [N], the newest frame of the observation.
        first: int64 [N], the oldest frame that the observation may reach; it stands for what came before it.
        next_last: int64 [N], like `last` for the next observation.
        next_first: int64 [N], like `first` for the next observation.
        segment_end: int64 [N], the last row of the row's segment.
        observation_shape: (S, H, W) or (D,).
        behaviour_probability: float32 [N], NaN where unknown, or None.
        action_mask: bool [N, A], or None.
        largest_rounding_error: of float pixels against the uint8 kept, in gray levels.
        is_unrounded_gray: whether float pixels are gray that was not rounded to whole levels before it was scaled.
        newest_first: whether the stacks look as if they held their newest frame first.
    """

    observations: NDArray[Any]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    last: NDArray[np.int64]
    first: NDArray[np.int64]
    next_last: NDArray[np.int64]
    next_first: NDArray[np.int64]
    segment_end: NDArray[np.int64]
    observation_shape: tuple[int, ...]
    behaviour_probability: NDArray[np.float32] | None = None
    action_mask: NDArray[np.bool_] | None = None
    largest_rounding_error: float = 0.0
    is_unrounded_gray: bool = False
    newest_first: bool = False

    def __len__(self) -> int:
        """N, in transitions."""
        return len(self.actions)


def detect_layout(shard: NpzReader) -> Layout:
    """Which layout a shard has, by its members.

    Raises:
        DatasetError: neither.
    """
    if "states" in shard.names:
        return "stacked"
    if shard.names & {"frames", "observations"}:
        return "frames"
    raise shard.fault(
        f"has the members {sorted(shard.names)}",
        expected="states, actions, next_states, rewards, dones (stacked), or frames or observations, actions, rewards, "
        "terminated, truncated, episode_lengths (frames)",
        hint="save it in one of these layouts",
    )


@dataclass(frozen=True)
class Problem:
    """Something that looks wrong with a dataset; as text it is one line, of what and hint.

    Attributes:
        what: was seen.
        means: what comes of it.
        hint: what to do about it.
    """

    what: str
    means: str
    hint: str

    def __str__(self) -> str:
        """The line for people."""
        return f"{self.what}; {self.hint}"
