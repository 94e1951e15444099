import math

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from offrl import envs
from offrl.envs.drivers import (
    EXPERT,
    HOPELESS,
    Bursts,
    CarRacingMixture,
    CartPoleDriver,
    CartPoleMixture,
    DriverSettings,
    EpsilonGreedy,
    RandomBehaviour,
    TrackDriver,
    VariedDrivers,
    default_behaviour,
    num_actions,
)
from offrl.errors import ConfigError


class FourActions(gymnasium.Env):
    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Discrete(4)


class ManyActions(gymnasium.Env):
    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Discrete(10_000)


class AlwaysTwo:
    def begin(self, env, rng):
        pass

    def __call__(self, observation):
        return 2, 1.0


def score(env, behaviour, seed):
    observation, _ = env.reset(seed=seed)
    behaviour.begin(env, np.random.default_rng(seed))
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, info = env.step(behaviour(observation)[0])
        total, ended = total + reward, terminated or truncated
    return total, info


def test_random_actions_are_all_played_with_probability_one_in_a():
    behaviour = RandomBehaviour()
    behaviour.begin(FourActions(), np.random.default_rng(0))
    actions, probabilities = zip(*[behaviour(None) for _ in range(100)], strict=True)
    assert set(actions) == {0, 1, 2, 3}
    assert set(probabilities) == {0.25}


def test_epsilon_greedy_tells_its_exact_probabilities():
    behaviour = EpsilonGreedy(AlwaysTwo(), 0.4)
    behaviour.begin(FourActions(), np.random.default_rng(0))
    seen = [behaviour(None) for _ in range(2000)]
    told = dict(seen)
    assert told == {0: pytest.approx(0.1), 1: pytest.approx(0.1), 2: pytest.approx(0.7), 3: pytest.approx(0.1)}
    for action, probability in told.items():
        share = sum(a == action for a, _ in seen) / len(seen)
        assert share == pytest.approx(probability, abs=0.04)  # 4 standard deviations


@pytest.mark.parametrize("noise", [EpsilonGreedy, Bursts])
def test_epsilon_out_of_range_is_refused(noise):
    with pytest.raises(ConfigError, match=rf"{noise.__name__}.epsilon: 1\.5; expected a number in \[0, 1\]"):
        noise(AlwaysTwo(), 1.5)


def test_continuous_actions_are_refused():
    with pytest.raises(ConfigError, match="expected Discrete"):
        num_actions(gymnasium.make("Pendulum-v1"))


def test_bursts_hold_one_action_for_one_to_seven_steps_and_start_with_a_quarter_of_epsilon():
    bursts = Bursts(AlwaysTwo(), 0.2)
    bursts.begin(ManyActions(), np.random.default_rng(0))
    actions, probabilities = zip(*[bursts(None) for _ in range(20_000)], strict=True)
    assert np.isnan(probabilities).all()
    edges = [i for i in range(1, len(actions)) if actions[i] != actions[i - 1]] + [len(actions)]
    runs = [(actions[start], end - start) for start, end in zip([0, *edges], edges, strict=False)]
    assert {length for action, length in runs if action != 2} == set(range(1, 8))
    starts = sum(action != 2 for action, _ in runs)
    free = sum(length for action, length in runs if action == 2)
    assert starts / (free + starts) == pytest.approx(0.05, abs=0.006)  # 4 standard deviations


def test_a_burst_ends_with_its_episode():
    bursts, env = Bursts(AlwaysTwo(), 1.0), ManyActions()
    for seed in range(50):
        bursts.begin(env, np.random.default_rng(seed))
        fresh = Bursts(AlwaysTwo(), 1.0)
        fresh.begin(env, np.random.default_rng(seed))
        assert [bursts(None)[0] for _ in range(5)] == [fresh(None)[0] for _ in range(5)]


def test_without_noise_there_are_no_bursts_and_the_behaviour_is_certain():
    bursts = Bursts(AlwaysTwo(), 0.0)
    bursts.begin(FourActions(), np.random.default_rng(0))
    assert {bursts(None) for _ in range(1000)} == {(2, 1.0)}


def test_skill_goes_from_hopeless_to_expert():
    assert DriverSettings.of_skill(0) == HOPELESS
    assert DriverSettings.of_skill(1) == EXPERT
    half = DriverSettings.of_skill(0.5)
    assert (half.steering_gain, half.max_speed) == (2.75, 43.5)


@pytest.mark.parametrize("skill", [-0.1, 1.1, math.nan])
def test_a_skill_out_of_range_is_refused(skill):
    with pytest.raises(ConfigError, match=r"of_skill: .*; expected a number in \[0, 1\]"):
        DriverSettings.of_skill(skill)


def test_more_skill_gets_further():
    pytest.importorskip("Box2D")
    env = envs.make("CarRacing-v3")
    scores = []
    for skill in (0, 0.3, 0.6, 1):
        env.reset(seed=1)
        driver = TrackDriver(DriverSettings.of_skill(skill))
        driver.begin(env, np.random.default_rng(0))
        scores.append(sum(env.step(driver(None)[0])[1] for _ in range(150)))
    assert scores == sorted(scores)
    assert min(np.diff(scores)) > 20


def test_varied_drivers_are_drawn_for_each_episode_within_their_ranges():
    pytest.importorskip("Box2D")
    env = envs.make("CarRacing-v3")
    observation, _ = env.reset(seed=0)
    behaviour, drawn = VariedDrivers(), []
    for seed in (0, 1, 2, 0):
        behaviour.begin(env, np.random.default_rng(seed))
        drawn.append(behaviour._driver.settings)
        assert behaviour(observation)[1] == 1.0
    assert drawn[0] == drawn[3]
    for name, (low, high) in VariedDrivers.RANGES.items():
        values = {getattr(settings, name) for settings in drawn}
        assert len(values) == 3
        assert low <= min(values) <= max(values) <= high
    assert {settings.lost_speed for settings in drawn} == {DriverSettings().lost_speed}


def test_the_expert_finishes_a_lap():
    pytest.importorskip("Box2D")
    total, info = score(envs.make("CarRacing-v3"), TrackDriver(), seed=1)
    assert info["lap_finished"]
    assert total > 900


def test_less_grip_means_a_slower_lap():
    pytest.importorskip("Box2D")
    env = envs.make("CarRacing-v3")
    env.reset(seed=1)
    bold, careful = TrackDriver(DriverSettings(grip=200)), TrackDriver(DriverSettings(grip=50))
    for driver in (bold, careful):
        driver.begin(env, np.random.default_rng(0))
    assert (careful._allowed_speed <= bold._allowed_speed).all()
    assert careful._allowed_speed.mean() < 0.8 * bold._allowed_speed.mean()


def test_the_mixture_is_certain_only_without_noise():
    pytest.importorskip("Box2D")
    env = envs.make("CarRacing-v3")
    observation, _ = env.reset(seed=0)
    behaviour, certain = CarRacingMixture(), {}
    for seed in range(40):
        behaviour.begin(env, np.random.default_rng(seed))
        certain.setdefault(behaviour._behaviour.epsilon, set()).add(not math.isnan(behaviour(observation)[1]))
    assert certain.pop(0.0) == {True}
    assert len(certain) >= 3
    assert all(values == {False} for values in certain.values())


def test_an_episodes_actions_follow_from_its_generator():
    env = envs.make("CartPole-v1")
    assert score(env, CartPoleMixture(), 7) == score(env, CartPoleMixture(), 7)


def test_the_cartpole_driver_balances_to_the_end():
    assert score(envs.make("CartPole-v1"), CartPoleDriver(), 0)[0] == 500


def test_the_cartpole_mixture_is_mixed():
    env = envs.make("CartPole-v1")
    scores = [score(env, CartPoleMixture(), seed)[0] for seed in range(60)]
    assert min(scores) < 30
    assert max(scores) == 500
    assert 100 < np.mean(scores) < 250


def test_default_behaviours():
    assert default_behaviour("CarRacing-v3") == CarRacingMixture()
    assert default_behaviour("CartPole-v1") == CartPoleMixture()
    assert default_behaviour("Acrobot-v1") == RandomBehaviour()
