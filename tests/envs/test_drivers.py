import math

import numpy as np
import pytest

from offrl import envs
from offrl.envs import (
    CarRacingMixture,
    CartPoleMixture,
    DriverSettings,
    RandomBehaviour,
    TrackDriver,
    VariedDrivers,
    default_behaviour,
)
from offrl.envs.drivers import EXPERT, HOPELESS
from offrl.errors import ConfigError


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
    env, driver = envs.make("CarRacing-v3"), TrackDriver()
    env.reset(seed=1)
    driver.begin(env, np.random.default_rng(0))
    total, terminated = 0.0, False
    while not terminated:
        _, reward, terminated, truncated, info = env.step(driver(None)[0])
        total += reward
        assert not truncated
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


def test_default_behaviours():
    assert default_behaviour("CarRacing-v3") == CarRacingMixture()
    assert default_behaviour("CartPole-v1") == CartPoleMixture()
    assert default_behaviour("Acrobot-v1") == RandomBehaviour()
