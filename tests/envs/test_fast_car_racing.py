import os

import numpy as np
import pytest

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
pytest.importorskip("Box2D")

from gymnasium.envs.box2d.car_racing import CarRacing

from offrl.envs import TrackDriver
from offrl.envs.car_racing import ACTION_TABLE
from offrl.envs.fast_car_racing import FastCarRacing


def assert_the_same(make_actions, num_steps, seeds=(0,), **options):
    """Plays both side by side; returns the last step's (terminated, info)."""
    slow, fast = CarRacing(**options), FastCarRacing(**options)
    for seed in seeds:
        np.testing.assert_array_equal(slow.reset(seed=seed)[0], fast.reset(seed=seed)[0])
        next_action = make_actions(slow, seed)
        for step in range(num_steps):
            action = next_action(step)
            frame, *theirs = slow.step(action)
            fast_frame, *ours = fast.step(action)
            np.testing.assert_array_equal(frame, fast_frame, err_msg=f"seed {seed}, step {step}")
            assert theirs == ours
            if theirs[1]:
                break
    return theirs[1], theirs[3]


def driven(env, seed):
    driver = TrackDriver()
    driver.begin(env, np.random.default_rng(seed))
    return lambda step: ACTION_TABLE[driver(None)[0]]


def random_actions(env, seed):
    env.action_space.seed(seed)
    return lambda step: env.action_space.sample()


def flat_out(env, seed):
    return lambda step: np.array([0.0, 1.0, 0.0])


def test_a_driven_lap_looks_the_same():
    assert_the_same(driven, 250, seeds=(1, 2))


def test_random_driving_looks_the_same_again_after_a_reset():
    assert_the_same(random_actions, 90, seeds=(5, 6, 5))


def test_leaving_the_field_looks_the_same():
    assert assert_the_same(flat_out, 300, seeds=(6,)) == (True, {"lap_finished": False})


def test_random_colours_look_the_same():
    assert_the_same(driven, 90, seeds=(3, 4), domain_randomize=True)


def test_an_early_lap_and_gymnasiums_own_discrete_actions():
    assert_the_same(random_actions, 60, lap_complete_percent=0.1, continuous=False)


@pytest.mark.parametrize("angle", [0.0, np.pi / 2, -np.pi, 7 * np.pi / 2, 1e-7])
def test_right_angles_which_pygame_treats_apart(angle):
    frames = []
    for env in (CarRacing(), FastCarRacing()):
        env.reset(seed=0)
        env.t = 1.0
        env.car.hull.angle = angle
        frames.append(env._render("state_pixels"))
    np.testing.assert_array_equal(*frames)


def test_wheels_that_spin_beyond_the_bar():
    frames = []
    for env in (CarRacing(), FastCarRacing()):
        env.reset(seed=0)
        env.car.wheels[2].omega = 600.0
        frames.append(env._render("state_pixels"))
    np.testing.assert_array_equal(*frames)


def test_visited_tiles_change_colour_in_the_large_picture_too():
    frames = []
    for env in (CarRacing(render_mode="rgb_array"), FastCarRacing(render_mode="rgb_array")):
        env.reset(seed=0)
        for _ in range(60):
            env.step(np.array([0.0, 0.5, 0.0]))
        frames.append(env.render())
    np.testing.assert_array_equal(*frames)
