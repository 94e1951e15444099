import sys

import gymnasium
import numpy as np
import pytest

from offrl.envs import car_racing
from offrl.errors import ConfigError, MissingDependencyError

pytest.importorskip("Box2D")


def test_the_25_actions_in_their_order():
    table = car_racing.ACTION_TABLE
    pedals = [[0, 0], [0.5, 0], [1, 0], [0, 0.5], [0, 1]]
    assert table[:5].tolist() == [[0, *p] for p in pedals]
    assert table[5:15].tolist() == [[steer, *p] for p in pedals for steer in (-0.5, -1)]
    assert table[15:].tolist() == [[steer, *p] for p in pedals for steer in (0.5, 1)]
    assert table[9].tolist() == [-0.5, 1, 0]
    assert table[24].tolist() == [1, 0, 1]


def test_names_say_what_the_actions_do():
    names = car_racing.ACTION_NAMES
    assert len(set(names)) == 25
    assert [names[i] for i in (0, 2, 9, 11, 24)] == [
        "straight, coast",
        "straight, full gas",
        "half left, full gas",
        "half left, half brake",
        "full right, full brake",
    ]


def test_observations_fit_the_spec_and_the_rgb_frame_is_gymnasiums():
    env = car_racing.make()
    observation, info = env.reset(seed=3)
    frame, _ = gymnasium.make("CarRacing-v3").reset(seed=3)
    np.testing.assert_array_equal(info["rgb"], frame)
    assert observation.shape == env.get_wrapper_attr("task_spec").observation_shape
    gray = np.rint(frame @ (0.299, 0.587, 0.114))
    np.testing.assert_array_equal(observation, np.broadcast_to(gray, (4, 96, 96)))


def test_the_hidden_bar_is_gray_128_and_the_rest_as_ever():
    visible, _ = car_racing.make().reset(seed=3)
    env = car_racing.make(hud="hidden")
    hidden, _ = env.reset(seed=3)
    assert (hidden[:, 84:] == 128).all()
    assert (visible[:, 84:] != 128).any()
    np.testing.assert_array_equal(hidden[:, :84], visible[:, :84])
    assert env.get_wrapper_attr("task_spec") == car_racing.spec("hidden")


def test_the_time_limit_is_1000_steps():
    assert car_racing.make().get_wrapper_attr("spec").max_episode_steps == 1000


def test_a_standing_car_is_stopped_after_the_steps_without_progress():
    env = car_racing.make(no_progress_steps=5)
    env.reset(seed=0)
    steps = [env.step(0) for _ in range(20)]
    stopped = next(i for i, step in enumerate(steps) if step[3])
    rewards = [step[1] for step in steps]
    assert all(reward < 0 for reward in rewards[stopped - 4 : stopped + 1])
    assert steps[stopped][4]["stopped_by"] == "no progress"


def test_no_display_is_needed_and_a_chosen_driver_is_kept(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "chosen")
    car_racing.make()
    assert car_racing.os.environ["SDL_VIDEODRIVER"] == "chosen"
    monkeypatch.delenv("SDL_VIDEODRIVER")
    car_racing.make()
    assert car_racing.os.environ["SDL_VIDEODRIVER"] == "dummy"


def test_an_unverified_gymnasium_draws_itself_and_says_so(monkeypatch):
    monkeypatch.setattr(gymnasium, "__version__", "9.9.9")
    with pytest.warns(RuntimeWarning, match=r"Gymnasium 9\.9\.9 draws CarRacing itself") as said:
        envs = [car_racing.make(hud=hud) for hud in ("visible", "hidden")]
    assert len(said) == 1
    env = envs[0]
    assert type(env.unwrapped).__name__ == "CarRacing"
    assert type(car_racing.make(fast=False).unwrapped).__name__ == "CarRacing"


def test_gymnasium_makes_it_by_name_with_its_own_spaces_and_options():
    env = gymnasium.make("offrl.envs:offrl/CarRacing-v3", continuous=False, domain_randomize=True)
    theirs = gymnasium.make("CarRacing-v3", continuous=False, domain_randomize=True)
    assert type(env.unwrapped).__name__ == "FastCarRacing"
    assert env.spec.max_episode_steps == theirs.spec.max_episode_steps == 1000
    assert (env.action_space, env.observation_space) == (theirs.action_space, theirs.observation_space)
    np.testing.assert_array_equal(env.reset(seed=5)[0], theirs.reset(seed=5)[0])
    for action in (3, 3, 1, 4):
        (frame, *ours), (their_frame, *expected) = env.step(action), theirs.step(action)
        np.testing.assert_array_equal(frame, their_frame)
        assert ours == expected


def test_without_box2d_the_error_gives_the_command(monkeypatch):
    for name in [n for n in sys.modules if n.startswith(("Box2D", "gymnasium.envs.box2d", "offrl.envs.fast_car"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "Box2D", None)
    with pytest.raises(MissingDependencyError, match=r"-m pip install 'gymnasium\[box2d\]"):
        car_racing.make()


def test_an_episode_that_is_cut_says_that_its_lap_is_not_finished():
    env = car_racing.make(no_progress_steps=2)
    env.reset(seed=0)
    steps = [env.step(0) for _ in range(10)]
    stopped = next(i for i, step in enumerate(steps) if step[3])
    assert steps[stopped][4]["lap_finished"] is False
    assert "lap_finished" not in steps[stopped - 1][4]


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match="'transparent'; expected 'visible' or 'hidden'"):
        car_racing.make(hud="transparent")
    with pytest.raises(ConfigError, match="CarRacing-v3: .*colour.*; expected options of offrl.envs.car_racing.make"):
        car_racing.make(colour="red")
