import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from offrl.envs import ActionRepeat, FrameStack, GrayStack, make, task_spec
from offrl.errors import ConfigError


class Clock(gymnasium.Env):
    """Shows the step's number and rewards it tenfold; ends after `length` steps. Masks by step, where given."""

    action_space = spaces.Discrete(3)
    observation_space = spaces.Box(0, 255, (1, 1), np.uint8)

    def __init__(self, length, truncate=False, masks=None):
        self.length, self.truncate, self.masks = length, truncate, masks
        self.actions = []

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return self._picture(), self._info()

    def step(self, action):
        self.time += 1
        self.actions.append(action)
        ends = self.time == self.length
        return self._picture(), 10.0 * self.time, ends and not self.truncate, ends and self.truncate, self._info()

    def _picture(self):
        return np.full((1, 1), self.time, np.uint8)

    def _info(self):
        mask = {} if self.masks is None else {"action_mask": np.array(self.masks[self.time], bool)}
        return {"time": self.time, **mask}


def steps(env, actions):
    env.reset()
    return [(int(o.flat[-1]), reward, ends, cut, info["time"]) for o, reward, ends, cut, info in map(env.step, actions)]


def test_an_action_is_played_count_times_and_its_rewards_are_summed():
    clock = Clock(100)
    assert steps(ActionRepeat(clock, 3), [2, 0]) == [(3, 60.0, False, False, 3), (6, 150.0, False, False, 6)]
    assert clock.actions == [2, 2, 2, 0, 0, 0]


@pytest.mark.parametrize("truncate", [False, True])
def test_it_stops_where_the_episode_ends(truncate):
    found = steps(ActionRepeat(Clock(5, truncate), 3), [0, 0])
    assert found == [(3, 60.0, False, False, 3), (5, 90.0, not truncate, truncate, 5)]


def test_once_is_the_environment_itself():
    actions = [0, 1, 2, 0]
    assert steps(ActionRepeat(Clock(4), 1), actions) == steps(Clock(4), actions)


def test_it_stops_where_the_action_is_no_longer_legal_and_hands_on_the_mask():
    every, last = [1, 1, 1], [0, 0, 1]
    clock = Clock(100, masks=[every, every, last, last, last, last, every])
    env = ActionRepeat(clock, 4)
    _, info = env.reset()
    assert info["action_mask"].tolist() == [True] * 3
    _, reward, *_, info = env.step(0)
    assert (reward, info["action_mask"].tolist(), info["time"]) == (10.0 + 20.0, [False, False, True], 2)
    _, reward, *_, info = env.step(2)
    assert (reward, info["action_mask"].tolist(), info["time"]) == (30.0 + 40.0 + 50.0 + 60.0, [True] * 3, 6)


def test_sums_are_rounded_once():
    class Small(Clock):
        def step(self, action):
            observation, _, *rest = super().step(action)
            return (observation, np.float64(0.1), *rest)

    assert steps(ActionRepeat(Small(100), 10), [0])[0][1] == 1.0  # one after the other they make 0.9999999999999999


@pytest.mark.parametrize(
    ("make_env", "stacks"),
    [
        (lambda clock: GrayStack(ActionRepeat(clock, 2), stack=3), [[0, 0, 0], [0, 0, 2], [0, 2, 4]]),
        (lambda clock: ActionRepeat(GrayStack(clock, stack=3), 2), [[0, 0, 0], [0, 1, 2], [2, 3, 4]]),
    ],
)
def test_stacks_are_of_decisions_or_of_steps(make_env, stacks):
    env = make_env(Clock(100))
    observations = [env.reset()[0], env.step(0)[0], env.step(0)[0]]
    assert [o[:, 0, 0].tolist() for o in observations] == stacks


def test_a_repeated_task_describes_itself_as_the_task_does():
    env = make("CartPole-v1")
    assert task_spec(ActionRepeat(env, 2)) == task_spec(env)
    env.close()

    class Planes(gymnasium.Env):
        observation_space = spaces.Box(0, 1, (10, 10, 4), np.bool_)
        action_space = spaces.Discrete(6)

    stacked = FrameStack(Planes())
    assert task_spec(ActionRepeat(stacked, 2)) == stacked.task_spec


@pytest.mark.parametrize("count", [0, -1, 1.5, "4"])
def test_counts_below_1_are_refused(count):
    with pytest.raises(ConfigError, match=r"ActionRepeat.count: .*expected 1 or more, a whole number"):
        ActionRepeat(Clock(3), count)
