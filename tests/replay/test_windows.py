import numpy as np
import pytest

from offrl.replay._windows import episode_bounds, n_step_returns, stack_windows


def test_bounds_of_episodes_by_hand():
    first, last = episode_bounds(np.array([1, 1, 2, 5, 5, 5]))
    assert (first.tolist(), last.tolist()) == ([0, 2, 3], [1, 2, 5])


def test_windows_are_oldest_first_and_repeat_the_first_frame():
    windows = stack_windows(np.array([10, 11, 14]), np.array([10, 10, 10]), stack=4)
    assert windows.tolist() == [[10, 10, 10, 10], [10, 10, 10, 11], [11, 12, 13, 14]]


# Two segments: rows 0..2 terminate, rows 3..4 are cut.
REWARDS = np.array([1, 10, 100, 1000, 10000], np.float32)
TERMINATED = np.array([False, False, True, False, False])
SEGMENT_END = np.array([2, 2, 2, 4, 4])


@pytest.mark.parametrize(
    ("n_step", "rewards", "discounts", "last_rows"),
    [
        (1, [1, 10, 100, 1000, 10000], [0.5, 0.5, 0, 0.5, 0.5], [0, 1, 2, 3, 4]),
        (2, [6, 60, 100, 6000, 10000], [0.25, 0, 0, 0.25, 0.5], [1, 2, 2, 4, 4]),
        (3, [31, 60, 100, 6000, 10000], [0, 0, 0, 0.25, 0.5], [2, 2, 2, 4, 4]),
        (9, [31, 60, 100, 6000, 10000], [0, 0, 0, 0.25, 0.5], [2, 2, 2, 4, 4]),
        (10**9, [31, 60, 100, 6000, 10000], [0, 0, 0, 0.25, 0.5], [2, 2, 2, 4, 4]),  # in no more time
        (2**63 - 1, [31, 60, 100, 6000, 10000], [0, 0, 0, 0.25, 0.5], [2, 2, 2, 4, 4]),  # sys.maxsize, "to the end"
    ],
)
def test_returns_stop_at_the_segments_end(n_step, rewards, discounts, last_rows):
    returns = n_step_returns(np.arange(5), REWARDS, TERMINATED, SEGMENT_END, n_step, discount=0.5)
    assert returns.reward.tolist() == rewards
    assert returns.discount.tolist() == discounts
    assert returns.last_row.tolist() == last_rows
    assert (returns.reward.dtype, returns.discount.dtype) == (np.float32, np.float32)


def test_rows_may_come_in_any_order_and_twice():
    returns = n_step_returns(np.array([3, 0, 3]), REWARDS, TERMINATED, SEGMENT_END, 2, discount=1.0)
    assert returns.reward.tolist() == [11000, 11, 11000]
    assert returns.last_row.tolist() == [4, 1, 4]
