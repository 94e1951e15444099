import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offrl.errors import ConfigError
from offrl.ope import (
    Steps,
    clipped,
    doubly_robust,
    effective_sample_size,
    per_decision_is,
    trajectory_is,
    weighted_per_decision_is,
)
from offrl.ope.estimators import covered_share
from offrl.ope.steps import truncated

GOOD = {"reward": [[1.0, 2.0], [3.0, 0.0]], "ratio": [[2.0, 4.0], [0.5, 1.0]], "length": [2, 1], "discount": 0.5}


def test_what_stands_after_the_end_is_replaced():
    steps = Steps(
        reward=[[1.0, np.nan]], ratio=[[2.0, np.inf]], length=[1], discount=1.0, q=[[1.0, 7.0]], value=[[2.0, 7.0]]
    )
    assert steps.reward.tolist() == [[1, 0]]
    assert steps.ratio.tolist() == [[2, 1]]
    assert steps.q.tolist() == [[1, 0]]
    assert steps.value.tolist() == [[2, 0]]
    np.testing.assert_allclose(steps.log_weight, np.log([[2, 2]]))


def test_returns_are_discounted():
    steps = Steps(**GOOD)
    assert steps.returns.tolist() == [2.0, 3.0]
    assert len(steps) == 2
    assert Steps(**{**GOOD, "discount": 0.0}).returns.tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"reward": [1.0, 2.0]}, r"Steps.reward: of shape \[2\]; expected \[episodes, steps\]"),
        ({"ratio": [[1.0, 1.0]]}, r"Steps.ratio: of shape \[1, 2\]; expected \[2, 2\]"),
        ({"length": [2, 3]}, "Steps.length: 2 to 3; expected 1 to 2"),
        ({"length": [0, 1]}, "Steps.length: 0 to 1"),
        ({"ratio": [[1.0, 1.0], [np.nan, 1.0]]}, "Steps.ratio: NaN or infinite in episode 1.*fit a behaviour model"),
        ({"ratio": [[1.0, -1.0], [1.0, 1.0]]}, "Steps.ratio: -1; expected 0 or more"),
        ({"q": [[1.0, np.inf], [1.0, 1.0]]}, "Steps.q: NaN or infinite in episode 0; expected finite numbers$"),
        ({"end_value": [0.0, np.nan]}, "Steps.end_value: NaN or infinite in episode 1"),
        ({"discount": 1.5}, r"Steps.discount: 1.5; expected a number in \[0, 1\]"),
        ({"history": -1}, "Steps.history: -1; expected 0 or more, a whole number"),
        ({"largest_weight": 0.0}, "Steps.largest_weight: 0.0; expected a number over 0"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Steps(**{**GOOD, **wrong})


def test_weights_are_clipped_as_products():
    """Weights 2, 8 with limit 3 are 2, 3; and a product that comes down again is itself again."""
    steps = Steps([[1.0] * 4], [[2.0, 4.0, 0.5, 0.1]], [4], 1.0)
    np.testing.assert_allclose(np.exp(clipped(steps, 3.0).log_weight), [[2, 3, 3, 0.4]])
    assert per_decision_is(clipped(steps, 3.0)) == pytest.approx(2 + 3 + 3 + 0.4)
    assert trajectory_is(clipped(steps, 100.0)) == pytest.approx(trajectory_is(steps))
    np.testing.assert_allclose(np.exp(clipped(clipped(steps, 3.0), 5.0).log_weight), [[2, 3, 3, 0.4]])


def test_a_clipped_weight_of_nothing_stays_nothing():
    steps = Steps([[1.0] * 4], [[8.0, 0.0, 5.0, 0.0]], [4], 1.0)
    assert np.exp(clipped(steps, 3.0).log_weight).tolist() == [[pytest.approx(3), 0, 0, 0]]


def test_clipped_bandit_data_is_biased_low_and_doubly_robust_leaves_the_rest_to_the_model():
    steps = Steps([[1.0], [1.0]], [[10.0], [0.5]], [1, 1], 1.0, q=[[1.0], [1.0]], value=[[0.9], [0.7]])
    assert trajectory_is(clipped(steps, 2.0)) == pytest.approx((2 + 0.5) / 2)
    assert doubly_robust(clipped(steps, 2.0)) == pytest.approx(0.8)
    long = Steps(np.ones((1, 1000)), np.full((1, 1000), 10.0), [1000], 1.0)
    assert trajectory_is(clipped(long, 5.0)) == pytest.approx(5 * 1000)


@pytest.mark.parametrize("limit", [0, -1.0, np.nan, np.inf, "2"])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ConfigError, match=r"clipped.limit: .*expected a number over 0"):
        clipped(Steps(**GOOD), limit)


def test_steps_that_the_discount_leaves_nothing_of_do_not_count():
    rewards = np.array([[1.0, 5.0, 5.0], [3.0, 5.0, 5.0]])
    ratios = np.array([[2.0, 0.0, 1.0], [1.0, 0.0, 1.0]])  # from the second step on nobody agrees
    steps = Steps(rewards, ratios, np.array([3, 3]), 0.0)
    assert np.isnan(weighted_per_decision_is(steps)).all()
    first = truncated(steps)
    assert (first.reward.shape, first.length.tolist()) == ((2, 1), [1, 1])
    assert weighted_per_decision_is(first).tolist() == [(2 * 1 + 1 * 3) / 3]
    assert effective_sample_size(first).tolist() == [9 / 5]  # (2 + 1)^2 / (4 + 1)
    cut = Steps(rewards, ratios, np.array([3, 1]), 0.0, end_value=np.array([7.0, 7.0]))
    assert truncated(cut).end_value.tolist() == [0.0, 7.0]  # what comes after the first one's end does not count
    worthless = Steps([[0.0, 5.0], [0.0, 5.0]], [[2.0, 0.0], [1.0, 0.0]], [2, 2], 0.0)  # the first decisions gain 0
    assert weighted_per_decision_is(truncated(worthless)).tolist() == [0.0]
    everything = Steps(rewards, ratios, np.array([3, 1]), 0.9)
    assert truncated(everything) is everything
    late = Steps([[0.0] * 29 + [1e6]], [[1.0] * 30], [30], 0.6)  # the discount is 4e-7 there, and that is all there is
    assert truncated(late) is late


RATIOS = st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 2.0, 4.0])


@settings(max_examples=200, deadline=None)
@given(st.lists(RATIOS, min_size=1, max_size=8), st.integers(0, 9), st.sampled_from([None, 1.5]))
def test_with_a_history_a_weight_is_the_product_of_the_latest_ratios(ratios, history, largest):
    steps = Steps([[0.0] * len(ratios)], [ratios], [len(ratios)], 0.5, history=history, largest_weight=largest)
    expected = [np.prod(ratios[max(0, step + 1 - history) : step + 1]) for step in range(len(ratios))]
    weights = np.minimum(expected, largest or np.inf)
    np.testing.assert_allclose(np.exp(steps.log_weight), [weights], atol=1e-12)


def test_with_a_history_an_ended_episode_keeps_its_last_weight():
    steps = Steps(np.zeros((2, 4)), [[2.0, 3.0, 1.0, 1.0], [2.0] * 4], [2, 4], 0.5, history=1)
    np.testing.assert_allclose(np.exp(steps.log_weight), [[2, 3, 3, 3], [2, 2, 2, 2]])


def test_with_a_history_each_step_counts_alike_in_the_effective_sample_size():
    ratios = [[2.0, 1.0, 9.0], [4.0, 0.0, 5.0], [0.0, 3.0, 9.0]]
    steps = Steps(np.zeros((3, 3)), ratios, [2, 3, 2], 0.5, history=1)
    # Of the first step's weights the episodes have 2/6, 4/6 and 0, of the second's 1/4, 0 and 3/4, of the third's 1/9,
    # 5/9 and 3/9.
    weights = np.array([2 / 6 + 0.5 / 4 + 0.25 / 9, 4 / 6 + 0.25 * 5 / 9, 0.5 * 3 / 4 + 0.25 * 3 / 9])
    expected = weights.sum() ** 2 / (weights**2).sum()
    assert effective_sample_size(steps) == pytest.approx(expected)
    assert effective_sample_size(steps, np.array([[1, 1, 1], [0, 0, 2]])) == pytest.approx([expected, 2.0])
    alike = Steps(np.zeros((3, 3)), np.ones((3, 3)), [1, 3, 2], 0.5, history=1)
    assert effective_sample_size(alike) == pytest.approx(3)  # the behaviour's own, however long its episodes are
    light = Steps(np.zeros((2, 3)), [[1e-300] * 3, [1e300] * 3], [3, 3], 0.5, history=2)
    assert effective_sample_size(light, np.array([[2, 0]])) == pytest.approx(2)


def test_steps_without_any_weight_are_not_covered():
    steps = Steps(np.zeros((2, 3)), [[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]], [3, 3], 0.5, history=1)
    assert covered_share(steps) == pytest.approx(1.25 / 1.75)  # not at the second one
    never = Steps(np.zeros((2, 2)), np.zeros((2, 2)), [2, 2], 0.5, history=1)
    assert (covered_share(never), effective_sample_size(never).tolist()) == (0, [0])
