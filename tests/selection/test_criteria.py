"""Criteria against numbers that anybody can compute."""

from dataclasses import replace

import numpy as np
import pytest

from offrl.errors import DatasetError
from offrl.selection import CRITERIA, Fitted, Log, Reading, one_step_backup

# Two episodes: of two steps, which is cut, and of one, which terminates.
LOG = Log(
    action=np.array([1, 0, 1]),
    reward=np.array([2.0, 1.0, 4.0]),
    discount=np.array([0.5, 0.5, 0.0]),
    is_first=np.array([True, False, True]),
)
READING = Reading(
    action=np.array([0, 0, 0]),
    next_action=np.array([0, 1, 1]),
    q=np.array([[10.0, 3.0], [5.0, 9.0], [7.0, 8.0]]),
    next_q=np.array([[4.0, 99.0], [99.0, 6.0], [np.nan, np.inf]]),
    fitted=Fitted(
        backup=np.array([3.5, 3.0, 8.0]),
        first_q=np.array([[1.0, 50.0], [3.0, 70.0]]),
        behaviour=np.array([[0.05, 0.95], [0.04, 0.96], [0.5, 0.5]], np.float32),
    ),
)


def number(name, reading=READING, log=LOG):
    return CRITERIA[name].function(reading, log)


def test_one_step_backups_do_not_look_past_the_end():
    assert one_step_backup(READING, LOG).tolist() == [4.0, 4.0, 4.0]  # 2 + 0.5 * 4, 1 + 0.5 * 6, 4


def test_supervised_bellman_validation():
    # q of the logged actions is 3, 5, 8; less the regression -0.5, 2, 0.
    assert number("sbv") == pytest.approx((0.25 + 4 + 0) / 3)


def test_emsbe_takes_off_what_the_regression_cannot_explain():
    # q less the backups: -1, 1, 4; the regression less the backups: -0.5, -1, 4. It explains the last one.
    assert number("emsbe") == pytest.approx((1 - 0.25 + 1 - 1 + 16 - 16) / 3)
    assert number("td_error") == pytest.approx(18 / 3)


def test_discounted_advantages_are_summed_from_the_beginning_of_each_episode():
    # q of the logged actions less those of the policy: 3 - 10, 5 - 5, 8 - 7. With 0.5**t: (-7 + 0) and 1.
    assert number("discounted_advantage") == pytest.approx((-7 + 1) / 2)
    worse = replace(READING, action=np.array([0, 1, 0]))  # in the second step 5 - 9, half of which counts
    assert number("discounted_advantage", worse) == pytest.approx((-7 - 2 + 1) / 2)
    bandit = replace(LOG, discount=np.zeros(3), is_first=np.ones(3, bool))
    assert number("discounted_advantage", log=bandit) == pytest.approx((-7 + 0 + 1) / 3)


def test_soft_opc_compares_successes_with_all():
    log = replace(LOG, reward=np.array([0.0, 1.0, 0.0]))
    CRITERIA["soft_opc"].check(log)
    assert number("soft_opc", log=log) == pytest.approx((3 + 5) / 2 - (3 + 5 + 8) / 3)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ([1.0, 1.0, 0.0], "a reward of 1 before the last one"),
        ([0.0, 0.5, 1.0], "a reward of 0.5 as the last one"),
        ([0.0, 0.0, 0.0], "no held-out episode that succeeds"),
    ],
)
def test_soft_opc_needs_success_or_failure(reward, message):
    with pytest.raises(DatasetError, match=f"soft_opc: {message}; expected episodes whose rewards are 0 but"):
        CRITERIA["soft_opc"].check(replace(LOG, reward=np.array(reward)))


def test_support_counts_what_the_behaviour_does_often_enough():
    assert number("support") == pytest.approx(2 / 3)  # 0.05 counts, 0.04 does not
    assert number("support", replace(READING, action=np.array([0, 1, 0]))) == 1.0


def test_fqe_is_the_value_of_what_the_policy_does_at_first():
    assert number("fqe") == pytest.approx((1 + 3) / 2)
    assert number("fqe", replace(READING, action=np.array([0, 1, 1]))) == pytest.approx((1 + 70) / 2)


def test_each_says_whether_more_is_better():
    more = {name for name, each in CRITERIA.items() if each.more_is_better}
    assert more == {"initial_value", "agreement", "soft_opc", "support", "fqe"}
    assert {name for name, each in CRITERIA.items() if each.model} == {"sbv", "emsbe", "support", "fqe"}
