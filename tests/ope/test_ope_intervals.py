from dataclasses import replace

import numpy as np
import pytest

from offrl.errors import ConfigError
from offrl.ope import Estimate, Estimator, Steps, bootstrap, direct_method, per_decision_is, trajectory_is, weighted_is


def bandit(num_episodes, seed=0, share=0.3):
    """Rewards of 1 with probability 0.2 for action 0 and 0.8 for action 1; mu(1) = share, pi(1) = 1/2."""
    generator = np.random.default_rng(seed)
    action = generator.random(num_episodes) < share
    reward = generator.random(num_episodes) < np.where(action, 0.8, 0.2)
    ratio = np.where(action, 0.5 / share, 0.5 / (1 - share))
    return Steps(reward[:, None], ratio[:, None], np.ones(num_episodes), 1.0)


def test_intervals_are_quantiles_over_repeated_episodes():
    """The same draws, written down episode by episode."""
    steps = bandit(30)
    found = bootstrap(weighted_is, steps, resamples=50, seed=3)
    assert isinstance(found, Estimate)
    generator = np.random.default_rng(3)
    values, means = [], []
    for row in generator.integers(30, size=(50, 30)):
        again = Steps(steps.reward[row], steps.ratio[row], steps.length[row], 1.0)
        values.append(weighted_is(again)[0])
        means.append(again.returns.mean())
    for interval, mean, samples in (
        (found.value, weighted_is(steps)[0], values),
        (found.behaviour, steps.returns.mean(), means),
        (found.difference, weighted_is(steps)[0] - steps.returns.mean(), np.subtract(values, means)),
    ):
        assert interval.mean == pytest.approx(mean)
        np.testing.assert_allclose([interval.low, interval.high], np.quantile(samples, [0.025, 0.975]))
    assert found.undefined == 0


def test_every_slice_of_resamples_has_draws_of_its_own(monkeypatch):
    """However many resamples are drawn at once, they are the same."""
    steps = bandit(30)
    whole = bootstrap(trajectory_is, steps, resamples=50)
    monkeypatch.setattr("offrl.ope.intervals._MOST_COUNTS", 7 * 30)
    in_slices = bootstrap(trajectory_is, steps, resamples=50)
    np.testing.assert_allclose(in_slices[:3], whole[:3])


def test_intervals_cover_the_value_and_pairing_narrows_the_difference():
    inside = 0
    for seed in range(200):
        found = bootstrap(trajectory_is, bandit(100, seed), resamples=300)
        inside += found.value.low <= 0.5 <= found.value.high
    assert 180 <= inside <= 199  # of 200; 95 % are 190
    width = {name: getattr(found, name).high - getattr(found, name).low for name in ("value", "behaviour")}
    assert found.difference.high - found.difference.low < sum(width.values()) / 2


def test_few_episodes_and_resamples_without_weight_have_no_interval():
    assert bootstrap(trajectory_is, bandit(4)).value[1:] == (None, None)
    lonely = Steps(np.ones((20, 1)), np.eye(20, 1), np.ones(20), 1.0)
    found = bootstrap(weighted_is, lonely)
    assert found.value == (1.0, None, None)
    assert 300 < found.undefined < 420  # of 1,000: (1 - 1/20)^20 is 0.358
    assert found.difference.low is None
    assert found.behaviour.low == 1.0


def test_an_estimator_of_ones_own_will_do():
    def half(steps, counts=None):
        return trajectory_is(steps, counts) / 2

    mine: Estimator = half
    whole, found = (bootstrap(each, bandit(30), resamples=20) for each in (trajectory_is, mine))
    np.testing.assert_allclose(found.value, np.array(whole.value) / 2)


@pytest.mark.filterwarnings("error")
def test_infinite_values_of_several_fits_are_undefined_and_say_so_quietly():
    long = Steps(np.ones((6, 1000)), np.full((6, 1000), 10.0), np.full(6, 1000), 1.0)
    found = bootstrap(per_decision_is, [long, long], resamples=10)
    assert found.value == (np.inf, None, None)
    assert (found.undefined, found.infinite) == (10, 0)  # how far apart the two fits are is not known
    assert bootstrap(per_decision_is, long, resamples=10).infinite == 10


def test_infinite_estimates_have_no_interval():
    long = Steps(np.ones((6, 1000)), np.full((6, 1000), 10.0), np.full(6, 1000), 1.0)
    assert bootstrap(per_decision_is, long, resamples=10).value == (np.inf, None, None)


def test_fits_of_other_episodes_and_a_behaviour_of_fewer_fits_are_refused():
    steps = bandit(10)
    with pytest.raises(ConfigError, match="bootstrap.behaviour: 1 Steps; expected 2, one for each fit"):
        bootstrap(trajectory_is, [steps, steps], behaviour=[steps])
    with pytest.raises(ConfigError, match="bootstrap.steps: 9 episodes; expected 10, the same ones in each fit"):
        bootstrap(trajectory_is, [steps, bandit(9)])
    with pytest.raises(ConfigError, match="bootstrap.behaviour: 9 episodes; expected 10"):
        bootstrap(trajectory_is, steps, behaviour=[bandit(9)])


@pytest.mark.parametrize("resamples", [1, 10.5, True])
def test_too_few_resamples_are_refused(resamples):
    with pytest.raises(ConfigError, match=r"bootstrap.resamples: .*expected 2 or more, a whole number"):
        bootstrap(trajectory_is, bandit(10), resamples=resamples)


def test_fits_that_differ_widen_the_interval():
    steps = bandit(30)
    of_values = [replace(steps, q=np.full((30, 1), v), value=np.full((30, 1), v)) for v in (1.0, 2.0, 3.0)]
    found = bootstrap(direct_method, of_values, resamples=30)
    # Each fit's value is the same for all episodes, so that all that varies is the fit: standard deviation 1, and
    # Student's t of two degrees of freedom is 4.303.
    np.testing.assert_allclose(found.value, [2.0, 2 - 4.303, 2 + 4.303], atol=1e-3)
    one = bootstrap(direct_method, of_values[:1], resamples=30)
    np.testing.assert_allclose(one.value, [1.0, 1.0, 1.0])
    with pytest.raises(ConfigError, match="no steps"):
        bootstrap(direct_method, [])


def test_fits_and_episodes_add_in_quadrature():
    steps = bandit(30)
    alone = bootstrap(trajectory_is, steps, resamples=500).value
    fits = [steps, replace(steps, ratio=steps.ratio * 1.1)]
    twice = bootstrap(trajectory_is, fits, resamples=500).value
    mean = 1.05 * alone.mean
    spread = 12.706 * 0.1 * alone.mean / 2**0.5
    np.testing.assert_allclose(twice.high - mean, np.hypot(alone.high - alone.mean, spread), rtol=0.03)
    np.testing.assert_allclose(mean - twice.low, np.hypot(alone.mean - alone.low, spread), rtol=0.03)


def test_an_interval_reaches_to_the_corrected_value():
    found = bootstrap(trajectory_is, bandit(30), resamples=20)
    low, high = found.value.low, found.value.high
    assert found.widened_by(2.0).value == (found.value.mean, low, high + 2.0)
    assert found.widened_by(-2.0).value == (found.value.mean, low - 2.0, high)
    assert found.widened_by(-2.0).difference == (
        found.difference.mean,
        found.difference.low - 2.0,
        found.difference.high,
    )
    assert found.widened_by(2.0).behaviour == found.behaviour
    # The behaviour's own fitted value may be off as well: the difference by +2, by -3, or by both.
    assert found.widened_by(2.0, 3.0).value == found.widened_by(2.0).value
    either = found.widened_by(2.0, 3.0).difference
    assert either == (found.difference.mean, found.difference.low - 3.0, found.difference.high + 2.0)
    unsure = found.without_intervals()
    assert unsure.widened_by(2.0).value == (found.value.mean, None, None)


def test_a_difference_is_to_the_behaviour_by_the_same_fits():
    steps = bandit(30)

    def worth(value):
        return replace(steps, q=np.full((30, 1), value), value=np.full((30, 1), value))

    # Fits that are off together, by 1, 2 and 3: of what both have wrong nothing is left in the difference.
    mine, own = [worth(10 + each) for each in (1.0, 2.0, 3.0)], [worth(each) for each in (1.0, 2.0, 3.0)]
    found = bootstrap(direct_method, mine, resamples=30, behaviour=own)
    assert found.value.mean == 12.0
    np.testing.assert_allclose(found.behaviour, [2.0, 2 - 4.303, 2 + 4.303], atol=1e-3)
    np.testing.assert_allclose(found.difference, [10.0, 10.0, 10.0])
