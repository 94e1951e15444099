"""What manifests say of behaviours and environments."""

import math
from dataclasses import dataclass, field
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv

from offrl import envs
from offrl.collection import Recorder, collect
from offrl.collection._describing import describe, settings_of
from offrl.envs import ActionRepeat, EpsilonGreedy, GrayStack, RandomActions, RandomBehaviour, StallStop
from offrl.errors import ConfigError, DatasetError
from offrl.replay import open_replay
from offrl.shards import write_dataset


class Careful:
    """As docs/extend.md teaches: a plain class."""

    def __init__(self, speed, notes=None):
        self.speed, self.notes = speed, notes if notes is not None else np.zeros(3)

    def begin(self, env, rng):
        pass

    def __call__(self, observation):
        return 0, 1.0


@dataclass
class Several:
    parts: tuple
    scale: float = 0.5
    hidden: object = field(default=None, repr=False)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (RandomBehaviour(), "RandomBehaviour()"),
        (Careful(0.1), "Careful(speed=0.1)"),
        (Careful("fast", notes="x"), "Careful(notes='x', speed='fast')"),
        (Careful(np.float32(0.5), notes=np.bool_(True)), "Careful(notes=True, speed=0.5)"),
        (EpsilonGreedy(Careful(2), np.float64(0.1)), "EpsilonGreedy(behaviour=Careful(speed=2), epsilon=0.1)"),
        (EpsilonGreedy(Careful(2), 0.1), "EpsilonGreedy(behaviour=Careful(speed=2), epsilon=0.1)"),
        (Several((Careful(1),)), "Several(parts=(Careful(speed=1),), scale=0.5)"),
        (Several((1, [Careful(1), None])), "Several(parts=(1, [Careful(speed=1), None]), scale=0.5)"),
    ],
)
def test_behaviours_in_words(behaviour, words):
    assert describe(behaviour) == words


def test_words_of_dataclasses_are_those_of_python():
    several = Several((1, "two", [3.0], (4,), ()))
    assert f"{describe(several)}" == repr(several)


def test_what_an_environment_was_made_with_that_its_id_does_not_say():
    assert settings_of(envs.make("CartPole-v1", render_mode="rgb_array")) == {}
    assert settings_of(envs.make("CartPole-v1", max_episode_steps=7)) == {"max_episode_steps": 7}
    assert settings_of(envs.make("CartPole-v1", sutton_barto_reward=True)) == {"sutton_barto_reward": True}
    told = settings_of(envs.make("CartPole-v1", sutton_barto_reward=np.bool_(True)))
    assert told["sutton_barto_reward"] is True  # as JSON holds it


class Screen(gymnasium.Env):
    observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    action_space = spaces.Discrete(2)


class Doubled(gymnasium.RewardWrapper):
    """Says nothing of its settings."""

    def reward(self, reward):
        return 2 * reward


@pytest.mark.parametrize(
    ("make_env", "wrappers"),
    [
        (lambda: envs.make("MountainCar-v0", no_progress_steps=10), ["NoProgressStop(steps=10)"]),
        (lambda: ActionRepeat(envs.make("CartPole-v1"), 4), ["ActionRepeat(count=4)"]),
        (lambda: GrayStack(ActionRepeat(Screen(), 2), stack=2), ["ActionRepeat(count=2)"]),
        (
            lambda: GrayStack(Screen(), hidden_rows=slice(3)),
            ["GrayStack(stack=4, hidden_rows=[None, 3, None], weights=(299, 587, 114))"],
        ),
        (
            lambda: RandomActions(StallStop(envs.make("CartPole-v1"), 5), np.float32(0.5)),
            ["RandomActions(epsilon=0.5)", "StallStop(window=5, threshold=-1.0)"],
        ),
        (
            lambda: gymnasium.wrappers.ClipReward(Doubled(envs.make("CartPole-v1")), -1, 1),
            ["ClipReward(min_reward=-1, max_reward=1)", "Doubled()"],
        ),
        (lambda: gymnasium.wrappers.TimeLimit(Screen(), 5), ["TimeLimit(max_episode_steps=5)"]),
    ],
)
def test_wrappers_that_change_what_is_played(make_env, wrappers):
    assert settings_of(make_env()) == {"wrappers": wrappers}


def test_wrappers_that_the_id_or_the_spec_tells_of():
    gray = GrayStack(Screen(), stack=2, weights=np.array([299, 587, 114]))
    for env in (envs.make("CartPole-v1"), envs.make("FrozenLake-v1"), gray, Screen()):
        assert settings_of(gymnasium.wrappers.RecordEpisodeStatistics(env)) == {}


def test_what_the_id_stands_for_may_itself_be_wrapped():
    gymnasium.register("Entry-v0", lambda **settings: Doubled(CartPoleEnv(**settings)))
    try:
        assert settings_of(envs.make("Entry-v0")) == {}
        assert settings_of(envs.make("Entry-v0", no_progress_steps=3)) == {"wrappers": ["NoProgressStop(steps=3)"]}
    finally:
        del gymnasium.registry["Entry-v0"]


def test_an_environment_that_is_registered_with_wrappers_has_the_usual_ones():
    wrapper = gymnasium.wrappers.ClipReward.wrapper_spec(min_reward=-1, max_reward=1)
    entry_point = "gymnasium.envs.classic_control:CartPoleEnv"
    gymnasium.register("Clipped-v0", entry_point, additional_wrappers=(wrapper,))
    try:
        assert settings_of(envs.make("Clipped-v0")) == {}
        assert settings_of(envs.make("Clipped-v0", no_progress_steps=3)) == {
            "wrappers": ["NoProgressStop(steps=3)", "ClipReward(min_reward=-1, max_reward=1)"]
        }
    finally:
        del gymnasium.registry["Clipped-v0"]


def test_car_racing_has_a_stop_rule_unless_it_says_otherwise():
    pytest.importorskip("Box2D")
    make_env = partial(envs.make, "CarRacing-v3")
    assert settings_of(make_env()) == settings_of(make_env(hud="hidden")) == {}
    assert settings_of(make_env(stall_stop=False)) == {"wrappers": []}
    assert settings_of(make_env(no_progress_steps=150)) == {
        "wrappers": ["NoProgressStop(steps=150)", "StallStop(window=100, threshold=-1.0)"]
    }


def test_data_with_another_stop_rule_is_neither_taken_for_it_nor_added_to(tmp_path):
    def gathered(steps):
        make_env = partial(envs.make, "MountainCar-v0", no_progress_steps=steps)
        settings = {"transitions": 20, "workers": 1, "progress": False}
        return collect(make_env, RandomBehaviour(), tmp_path / "collected", **settings)

    first = gathered(10)
    assert gathered(10) == first
    message = r"environment.settings is .*steps=10.*; expected .*steps=150"
    with pytest.raises(DatasetError, match=message):
        gathered(150)
    assert open_replay(tmp_path / "collected", progress=False).environment is None  # the id alone names another one
    for _ in range(2):
        with Recorder(envs.make("MountainCar-v0", no_progress_steps=10), tmp_path / "recorded") as recorder:
            recorder.reset()
            recorder.step(0)
    with pytest.raises(DatasetError, match=message):
        Recorder(envs.make("MountainCar-v0", no_progress_steps=150), tmp_path / "recorded")


def test_data_of_another_setting_is_not_taken_for_the_one_that_is_asked_for(tmp_path):
    def gathered(speed, **settings):
        return collect(
            lambda: envs.make("CartPole-v1", **settings),
            EpsilonGreedy(Careful(speed), 0.1),
            tmp_path,
            transitions=20,
            workers=1,
            progress=False,
        )

    first = gathered(0.1)
    assert gathered(0.1) == first
    with pytest.raises(DatasetError, match=r"generator.behaviour is 'EpsilonGreedy\(behaviour=Careful\(speed=0.1\)"):
        gathered(0.9)
    with pytest.raises(DatasetError, match=r"environment.settings is None; expected \{'max_episode_steps': 7\}"):
        gathered(0.1, max_episode_steps=7)


def test_an_id_alone_does_not_name_an_environment_with_other_settings(tmp_path):
    for name, settings in (("usual", {}), ("short", {"max_episode_steps": 7})):
        make_env = partial(envs.make, "CartPole-v1", **settings)
        collect(make_env, RandomBehaviour(), tmp_path / name, transitions=20, workers=1, progress=False)
    assert open_replay(tmp_path / "usual", progress=False).environment == "CartPole-v1"
    assert open_replay(tmp_path / "short", progress=False).environment is None


def test_what_no_manifest_can_hold_is_refused_before_anything_is_played(tmp_path):
    env = envs.make("CartPole-v1")
    with pytest.raises(ConfigError, match=r"environment: .*not JSON compliant.*; expected what JSON knows"):
        Recorder(env, tmp_path / "recorded", environment={"id": "x", "limit": math.inf})
    Recorder(env, tmp_path / "recorded", environment={"id": "x"}).close()  # no claim is left
    with pytest.raises(ConfigError, match=r"write_dataset.environment: .*int64 is not JSON serializable"):
        write_dataset(
            tmp_path / "written",
            observations=np.zeros((2, 1)),
            actions=[0, 1],
            rewards=[0, 1],
            terminated=[0, 1],
            environment={"n": np.int64(3)},
        )
    assert not (tmp_path / "written").exists()
