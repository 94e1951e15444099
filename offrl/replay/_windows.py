"""Which frames make a stack and which steps make an n-step return: pure numpy on indices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class EpisodeBounds(NamedTuple):
    """First and last row of each episode (segment), both [E], ascending."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]


def episode_bounds(segment_end: NDArray[np.int64]) -> EpisodeBounds:
    """The bounds of all segments, from the last row [N] of each row's segment."""
    last = np.unique(segment_end)
    return EpisodeBounds(np.concatenate([[0], last[:-1] + 1]), last)


def stack_windows(last: NDArray[np.int64], first: NDArray[np.int64], stack: int) -> NDArray[np.int64]:
    """The frames of each stack, oldest first; where a window reaches before `first`, that frame is repeated.

    Args:
        last: [B], the newest frame of each stack.
        first: [B], the oldest frame that each stack may reach.
        stack: S, frames in a stack.

    Returns:
        [B, S] indices of frames.
    """
    ages = np.arange(stack - 1, -1, -1, dtype=np.int64)
    windows: NDArray[np.int64] = np.maximum(last[:, None] - ages, first[:, None])
    return windows


def last_rows_of(rows: NDArray[np.int64], segment_end: NDArray[np.int64], n_step: int) -> NDArray[np.int64]:
    """The last of the n steps, or fewer, that each return sums; n may be absurdly large. [B].

    Args:
        rows: [B], where the returns start.
        segment_end: [N], see `n_step_returns`.
        n_step: n.
    """
    end = segment_end[rows]
    found: NDArray[np.int64] = rows + np.minimum(n_step - 1, end - rows)
    return found


class NStepReturns(NamedTuple):
    """Returns over k = min(n, steps left in the segment) steps, each [B].

    Attributes:
        reward: float32, sum of discount**i * reward_i over the k steps.
        discount: float32, discount**k, and 0 where the k-th step terminated.
        last_row: int64, the row of the k-th step; its next observation is the one to bootstrap from.
    """

    reward: NDArray[np.float32]
    discount: NDArray[np.float32]
    last_row: NDArray[np.int64]


def n_step_returns(
    rows: NDArray[np.int64],
    rewards: NDArray[np.float32],
    terminated: NDArray[np.bool_],
    segment_end: NDArray[np.int64],
    n_step: int,
    discount: float,
) -> NStepReturns:
    """The n-step returns that start at `rows` (Sutton and Barto 2018, section 7.1), never across a segment's end.

    A segment that was truncated bootstraps from its own last observation, after fewer than n steps.

    Args:
        rows: [B], where the returns start.
        rewards: [N], of all transitions.
        terminated: [N], true only at the end of a segment.
        segment_end: [N], the last row of each row's segment.
        n_step: n, at least 1.
        discount: per step, in [0, 1].
    """
    last_row = last_rows_of(rows, segment_end, n_step)
    # Step by step in float64: the order of the sum, and so the last bit, does not depend on the batch.
    reward = np.zeros(len(rows), np.float64)
    weight = np.ones(len(rows), np.float64)
    # No further than the longest return: after its end nothing is added.
    for step in range(int((last_row - rows).max(initial=-1)) + 1):
        inside = rows + step <= last_row
        reward += np.where(inside, weight * rewards[np.minimum(rows + step, last_row)], 0.0)
        weight = np.where(inside, weight * discount, weight)
    bootstrap = np.where(terminated[last_row], 0.0, weight)
    return NStepReturns(reward.astype(np.float32), bootstrap.astype(np.float32), last_row)
