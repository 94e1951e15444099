import numpy as np
import pytest

from offrl.errors import ConfigError
from offrl.replay import BalancedActions, Candidates, SoftmaxReturns, TopReturns, Uniform
from offrl.replay.sampling import parse_sampling

# Three episodes of 2, 1 and 3 transitions.
CANDIDATES = Candidates(
    action=np.array([0, 2, 0, 2, 2, 0]),
    episode=np.array([0, 0, 1, 2, 2, 2]),
    episode_return=np.array([10.0, -10.0, 5.0]),
)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.3, [1, 1, 0, 0, 0, 0]), (0.34, [1, 1, 0, 1, 1, 1]), (1.0, [1, 1, 1, 1, 1, 1])],
)
def test_top_returns_keeps_whole_episodes(share, expected):
    assert TopReturns(share).weights(CANDIDATES).tolist() == expected


def test_of_equal_returns_the_earlier_episode_is_kept():
    equal = CANDIDATES._replace(episode_return=np.zeros(3))
    assert TopReturns(0.3).weights(equal).tolist() == [1, 1, 0, 0, 0, 0]


def test_softmax_of_returns_between_the_worst_and_the_best():
    # Between -10 and 10, 5 is at three quarters.
    middle, worst = np.exp(-0.25 / 0.5), np.exp(-1 / 0.5)
    expected = [1, 1, worst, middle, middle, middle]
    np.testing.assert_allclose(SoftmaxReturns(0.5).weights(CANDIDATES), expected, rtol=1e-12)


def test_softmax_of_equal_returns_is_uniform():
    equal = CANDIDATES._replace(episode_return=np.full(3, 7.0))
    assert SoftmaxReturns().weights(equal).tolist() == [1] * 6


def test_balanced_actions_gives_every_action_that_occurs_the_same_sum():
    actions = CANDIDATES._replace(action=np.array([0, 2, 0, 2, 2, 2]))
    weights = BalancedActions().weights(actions)
    assert weights.tolist() == [1 / 2, 1 / 4, 1 / 2, 1 / 4, 1 / 4, 1 / 4]


def test_uniform_has_no_weights():
    assert Uniform().weights(CANDIDATES) is None


@pytest.mark.parametrize(
    "strategy", [Uniform(), TopReturns(0.125), SoftmaxReturns(), SoftmaxReturns(2.5), BalancedActions()]
)
def test_a_text_names_each_strategy(strategy):
    assert parse_sampling(str(strategy)) == strategy


def test_a_temperature_may_be_left_out():
    assert parse_sampling("softmax-returns") == SoftmaxReturns()


@pytest.mark.parametrize("text", ["", "best", "top-returns", "top-returns:x", "uniform:1", "balanced-actions:2"])
def test_other_texts_are_refused(text):
    with pytest.raises(ConfigError, match="sampling: .*expected uniform, top-returns:SHARE"):
        parse_sampling(text)


@pytest.mark.parametrize("share", [0.0, 1.1, float("nan")])
def test_top_returns_refuses_other_shares(share):
    with pytest.raises(ConfigError, match=r"TopReturns\.share"):
        TopReturns(share)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_softmax_refuses_other_temperatures(temperature):
    with pytest.raises(ConfigError, match=r"SoftmaxReturns\.temperature"):
        SoftmaxReturns(temperature)


@pytest.mark.parametrize(("share", "num_episodes", "kept"), [(0.28, 25, 7), (0.2, 7, 2), (1e-9, 5, 1), (1.0, 5, 5)])
def test_the_best_share_of_the_episodes_is_rounded_up_but_for_floating_point(share, num_episodes, kept):
    """0.28 * 25 is 7.000000000000001 in floating point."""
    episodes = np.arange(num_episodes)
    weights = TopReturns(share).weights(Candidates(np.zeros_like(episodes), episodes, episodes.astype(np.float64)))
    assert weights.sum() == kept
