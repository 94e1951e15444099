"""What manifests say of behaviours and environments."""

import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest

from offrl import envs
from offrl.collection import Recorder, collect
from offrl.collection._describing import describe, settings_of
from offrl.envs import EpsilonGreedy, RandomBehaviour
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
