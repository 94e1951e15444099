"""The two shard layouts, read into one form: rows whose stacks are windows over frames that are each kept once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offrl.shards._npz import NpzReader

Layout = Literal["frames", "stacked"]
Dones = Literal["terminated", "not_done"]

_OF_D4RL = frozenset({"terminals", "timeouts", "next_observations"})


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
    if "states" in shard.names and "next_states" not in shard.names:
        raise shard.fault(
            f"has no member 'next_states' beside {sorted(shard.names)}",
            expected="what each action led to",
            hint="where rows follow each other in episodes, offrl.shards.write_dataset(DIRECTORY, observations=states, "
            "..., terminated=dones) makes a dataset without it",
        )
    if "states" in shard.names:
        return "stacked"
    if "observations" in shard.names and (theirs := sorted(shard.names & _OF_D4RL)):
        raise shard.fault(
            f"has the members {', '.join(theirs)}, as D4RL names them",
            expected="one of offrl's two layouts",
            hint="offrl.shards.write_dataset(DIRECTORY, observations=..., actions=..., rewards=..., "
            "terminated=terminals, truncated=timeouts) writes one",
        )
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


class Windows(NamedTuple):
    """Where the stacks of N transitions lie in a row of frames; see `ShardRows` for what each array [N] says."""

    last: NDArray[np.int64]
    first: NDArray[np.int64]
    next_last: NDArray[np.int64]
    next_first: NDArray[np.int64]
    segment_end: NDArray[np.int64]


def episode_windows(lengths: NDArray[np.int64], leading: NDArray[np.int64]) -> Windows:
    """The windows where each episode's frames lie together: leading ones, one a step, what the last step led to.

    Args:
        lengths: steps of each episode, 1 or more, [E].
        leading: frames before the first one of each episode, [E].
    """
    ends = np.cumsum(lengths) - 1
    frames = leading + lengths + 1
    step = np.arange(int(lengths.sum())) - np.repeat(ends + 1 - lengths, lengths)
    first = np.repeat(np.cumsum(frames) - frames, lengths)
    last = first + np.repeat(leading, lengths) + step
    return Windows(last, first, last + 1, first, np.repeat(ends, lengths))


def row_windows(follows: NDArray[np.bool_], moved_on: NDArray[np.bool_], stack: int) -> Windows:
    """The windows where each row adds the frames that the row before did not leave, then what its next stack adds.

    Args:
        follows: whether row i continues row i - 1, so that its stack is there already, [N].
        moved_on: whether the next stack is the stack moved on by one frame, and not `stack` new frames, [N].
        stack: S, frames in a stack. All of them are there, so that a window never reaches further back.
    """
    new_in_next = np.where(moved_on, 1, stack)
    next_last = np.cumsum(np.where(follows, 0, stack) + new_in_next) - 1
    last = next_last - new_in_next
    ends = np.flatnonzero(~np.append(follows[1:], False)) if len(follows) else np.zeros(0, np.int64)
    segment_end = np.repeat(ends, np.diff(ends, prepend=-1))
    return Windows(last, last - (stack - 1), next_last, next_last - (stack - 1), segment_end)
