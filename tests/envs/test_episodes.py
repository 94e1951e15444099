import gymnasium
import numpy as np
from gymnasium import spaces

from offrl.envs import EpisodeRunner


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
