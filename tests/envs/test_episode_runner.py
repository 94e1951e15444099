import re
from contextlib import closing

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from offrl.envs import EpisodeRunner, make
from offrl.envs.episodes import action_mask_of
from offrl.errors import OfflineRLError
from offrl.evaluation import evaluate


class Countdown(gymnasium.Env):
    """Terminates after `seed` steps; step n is rewarded with n. Writes the legal actions into one array."""

    observation_space = spaces.Box(0, 9, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.legal = np.array([1, 1], np.int8)

    def reset(self, *, seed=None, options=None):
        self.left, self.taken = seed, 0
        return self.observation(), {"action_mask": self.legal}

    def step(self, action):
        self.left, self.taken = self.left - 1, self.taken + 1
        self.legal[:] = [0, 1]
        info = {"action_mask": self.legal, "lap_finished": self.taken == 2}
        return self.observation(), self.taken, self.left == 0, False, info

    def observation(self):
        return np.array([self.left], np.float32)


def test_a_mask_of_other_numbers_than_0_and_1_is_refused():
    runner = EpisodeRunner(env := Countdown())
    env.legal = np.array([1, 0.5])
    with pytest.raises(OfflineRLError, match=r"info: an action_mask with 0.5; expected bool \[A\], or 0 and 1"):
        runner.reset(2)


@pytest.mark.parametrize(
    ("mask", "shown"),
    [
        ([[1, 0]], "of int64 [1, 2]"),
        ([[1, 0], [1]], "[[1, 0], [1]]"),
        (["yes", "no"], "of <U3 [2]"),
        (1, "of int64 []"),
    ],
)
def test_a_mask_that_is_no_row_of_actions_is_refused(mask, shown):
    with pytest.raises(OfflineRLError, match=re.escape(f"info: an action_mask {shown}; expected bool [A]")):
        action_mask_of({"action_mask": mask})


def test_a_runner_adds_up_an_episode():
    runner = EpisodeRunner(Countdown())
    runner.reset(2)
    assert (runner.score, runner.length, runner.end) == (0.0, 0, None)
    before = runner.action_mask
    runner.step(1)
    assert (runner.reward, runner.score, runner.length, runner.ended) == (1.0, 1.0, 1, False)
    assert (before.tolist(), runner.action_mask.tolist()) == ([True, True], [False, True])  # `before` is a copy
    runner.step(1)
    assert runner.observation.tolist() == [0]
    assert (runner.terminated, runner.truncated) == (True, False)
    assert runner.end == (1.0 + 2.0, 2, True)
    runner.reset(3)
    assert (runner.score, runner.length, runner.ended) == (0.0, 0, False)


@pytest.mark.parametrize("action", [2, -1, 0.9, True, np.float64(1.0), None])
def test_an_action_that_is_none_is_refused_with_seed_and_step(action):
    with closing(make("CartPole-v1")) as env:
        runner = EpisodeRunner(env)
        runner.reset(7)
        runner.step(np.int64(1))
        expected = r"step 1 of the episode of seed 7: action .*; expected an integer, 0 to 1"
        with pytest.raises(OfflineRLError, match=expected):
            runner.step(action)


@pytest.mark.parametrize(("reward", "value"), [(float("nan"), 0.0), (1.0, float("inf"))])
def test_what_is_not_finite_is_refused_with_seed_and_step(reward, value):
    class Broken(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.full(1, value, np.float32), reward, False, False, {}

    runner = EpisodeRunner(Broken())
    runner.reset(3)
    runner.require_finite()
    runner.step(0)
    with pytest.raises(OfflineRLError, match="step 1 of the episode of seed 3: (reward nan|an observation with NaN)"):
        runner.require_finite()
    with pytest.raises(OfflineRLError, match="step 1 of the episode of seed 3"):
        evaluate(lambda observations: np.zeros(len(observations), np.int64), Broken, [3], workers=0)
