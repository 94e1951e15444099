import functools
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from offrl import TaskSpec, envs
from offrl.envs import DescribedTask, making
from offrl.errors import UnknownEnvironmentError


class Pixels(gymnasium.Env):
    observation_space = spaces.Box(0, 255, (4, 8, 8), np.uint8)
    action_space = spaces.Discrete(3)


def test_vectors_come_as_float32():
    env = envs.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert envs.task_spec(env) == TaskSpec.vector(4, ("action 0", "action 1"))


def test_discrete_observations_come_one_hot():
    env = envs.make("FrozenLake-v1")
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float32
    assert observation.tolist() == [1.0] + [0.0] * 15


def test_car_racing_is_the_adapter():
    pytest.importorskip("Box2D")
    env = envs.make("CarRacing-v3", hud="hidden")
    assert envs.task_spec(env).hud == "hidden"


def test_other_frames_come_gray_and_stacked(monkeypatch):
    pytest.importorskip("Box2D")
    gymnasium.register("offrl-test/Car-v0", "gymnasium.envs.box2d:CarRacing", kwargs={"continuous": False})
    env = envs.make("offrl-test/Car-v0")
    assert envs.task_spec(env).observation_shape == (4, 96, 96)
    assert env.reset(seed=0)[0].shape == (4, 96, 96)


def test_a_description_on_any_layer_wins_over_the_spaces():
    described = TaskSpec.pixels((4, 8, 8), ("left", "stay", "right"))
    env = gymnasium.wrappers.TimeLimit(DescribedTask(Pixels(), described), 5)
    assert envs.task_spec(env) is described
    assert envs.task_spec(Pixels()).action_names == ("action 0", "action 1", "action 2")


def test_rewards_can_be_required():
    env = envs.make("MountainCar-v0", no_progress_steps=3)
    env.reset(seed=0)
    assert [env.step(1)[3] for _ in range(3)] == [False, False, True]


def test_factories_travel_to_other_processes():
    factory = pickle.loads(pickle.dumps(functools.partial(envs.make, "CartPole-v1")))
    assert factory().spec.id == "CartPole-v1"


@pytest.mark.parametrize(
    ("package", "hint"),
    [
        ("no_such_package", "which is not installed; install it with python -m pip install no-such-package, and name"),
        ("json", "; name the package with it: json:ALE/Pong-v5"),
    ],
)
def test_an_environment_of_a_package_of_its_own_says_which(monkeypatch, package, hint):
    monkeypatch.setitem(making._PACKAGES, "ALE", package)
    with pytest.raises(UnknownEnvironmentError, match=f"ALE/Pong-v5 is in the package {package}.*{hint}"):
        envs.make("ALE/Pong-v5")


def test_an_unknown_id_comes_with_near_matches():
    with pytest.raises(UnknownEnvironmentError, match=r"no environment 'CartPool-v1'.*did you mean CartPole-v1"):
        envs.make("CartPool-v1")


def test_continuous_actions_are_refused():
    with pytest.raises(UnknownEnvironmentError, match=r"Pendulum-v1: actions Box.*expected Discrete actions"):
        envs.make("Pendulum-v1")


def test_options_that_the_environment_does_not_have_are_refused():
    with pytest.raises(UnknownEnvironmentError, match=r"CartPole-v1: cannot be made.*colour"):
        envs.make("CartPole-v1", colour="red")


def test_matrices_as_observations_are_refused_where_nobody_flattened_them():
    class Matrix(Pixels):
        observation_space = spaces.Box(0, 1, (4, 8), np.float32)

    with pytest.raises(UnknownEnvironmentError, match=r"Matrix: observations Box.*expected float32 vectors"):
        envs.task_spec(Matrix())
