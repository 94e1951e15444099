import functools
import os
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from offrl import TaskSpec, envs
from offrl.envs import DescribedTask, making
from offrl.errors import ConfigError, UnknownEnvironmentError


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


def test_an_environment_of_a_package_that_is_not_installed_says_which(monkeypatch):
    monkeypatch.setitem(making._MODULES, "ALE", "no_such_package")
    expected = r"ALE/Pong-v5 is in the package no_such_package, which is not installed; install it .*no-such-package"
    with pytest.raises(UnknownEnvironmentError, match=expected):
        envs.make("ALE/Pong-v5")


@pytest.mark.parametrize("asks", [True, False], ids=["a function registers them", "importing registers them"])
def test_a_package_of_environments_is_imported(monkeypatch, tmp_path, asks):
    """As minatar and ale_py do it."""
    name = f"games_{asks}".lower()
    register = f"gymnasium.register('Games/Planes-{asks}-v0', '{__name__}:Planes')"
    body = f"def register_envs():\n    {register}\n" if asks else register
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / name / "gym.py").write_text(f"import gymnasium\n{body}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(making._MODULES, "Games", f"{name}.gym")
    env = envs.make(f"Games/Planes-{asks}-v0")
    try:
        assert env.reset(seed=0)[0].shape == (4, 10, 10)
        with pytest.raises(UnknownEnvironmentError, match=f"did you mean Games/Planes-{asks}-v0"):
            envs.make(f"Games/Plane-{asks}-v0")
    finally:
        del gymnasium.registry[f"Games/Planes-{asks}-v0"]


class Planes(gymnasium.Env):
    observation_space = spaces.Box(0, 1, (10, 10, 4), np.bool_)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        observation = np.zeros((10, 10, 4), np.bool_)
        observation[2, 3, 1] = True
        return observation, {}


def test_planes_of_booleans_are_seen_as_they_are():
    """MinAtar's; flat, they would be vectors of 400 numbers."""
    gymnasium.register("Planes-v0", f"{__name__}:Planes")
    try:
        env = envs.make("Planes-v0")
    finally:
        del gymnasium.registry["Planes-v0"]
    observation, _ = env.reset(seed=0)
    assert (observation.shape, observation.dtype, observation.sum()) == ((4, 10, 10), np.uint8, 1)
    assert observation[1, 2, 3] == 1
    spec = envs.task_spec(env)
    assert (spec.observation_shape, spec.observation_dtype, spec.stack, spec.channels) == ((4, 10, 10), "uint8", 1, 4)


def test_an_unknown_id_comes_with_near_matches():
    with pytest.raises(UnknownEnvironmentError, match=r"no environment 'CartPool-v1'.*did you mean CartPole-v1"):
        envs.make("CartPool-v1")


def test_continuous_actions_are_refused():
    with pytest.raises(UnknownEnvironmentError, match=r"Pendulum-v1: actions Box.*expected Discrete actions"):
        envs.make("Pendulum-v1")


def test_options_that_the_environment_does_not_have_are_refused():
    with pytest.raises(UnknownEnvironmentError, match=r"CartPole-v1: cannot be made.*colour"):
        envs.make("CartPole-v1", colour="red")


@pytest.mark.parametrize(
    ("env_id", "options", "reason"),
    [
        ("LunarLander-v3", {"gravity": -20.0}, r"gravity \(current value: -20.0\) must be between"),
        ("FrozenLake-v1", {"map_name": "9x9"}, "KeyError: '9x9'"),
    ],
)
def test_options_that_the_environment_fails_with_are_one_line(env_id, options, reason):
    with pytest.raises(UnknownEnvironmentError, match=rf"{env_id}: cannot be made \({reason}"):
        envs.make(env_id, **options)


def test_a_number_of_steps_as_text_is_refused():
    with pytest.raises(ConfigError, match=r"NoProgressStop.steps: '5'; expected 1 or more, a whole number"):
        envs.make("CartPole-v1", no_progress_steps="5")


@pytest.mark.parametrize("env_id", ["CartPole-v1", "CarRacing-v3"])
def test_an_environment_for_pictures_keeps_no_other_from_opening_its_window(monkeypatch, env_id):
    pytest.importorskip("Box2D")
    monkeypatch.setenv("SDL_VIDEODRIVER", "")
    monkeypatch.delenv("SDL_VIDEODRIVER")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    envs.make(env_id, render_mode="rgb_array")
    assert os.environ["SDL_VIDEODRIVER"] == "dummy"
    envs.make(env_id, render_mode="human")
    assert os.environ["SDL_VIDEODRIVER"] == "dummy"  # there is no display
    monkeypatch.setenv("DISPLAY", ":0")
    envs.make(env_id, render_mode="human")
    assert "SDL_VIDEODRIVER" not in os.environ
    monkeypatch.setenv("SDL_VIDEODRIVER", "chosen")
    envs.make(env_id, render_mode="human")
    assert os.environ["SDL_VIDEODRIVER"] == "chosen"


def test_matrices_as_observations_are_refused_where_nobody_flattened_them():
    class Matrix(Pixels):
        observation_space = spaces.Box(0, 1, (4, 8), np.float32)

    with pytest.raises(UnknownEnvironmentError, match=r"Matrix: observations Box.*expected float32 vectors"):
        envs.task_spec(Matrix())
