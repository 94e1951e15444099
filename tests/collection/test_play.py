import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from offrl import TaskSpec, envs
from offrl.collection._play import plan_dataset, play_episode
from offrl.envs import DATA_SEEDS, DiscreteActions, RandomBehaviour
from offrl.errors import DatasetError


class Counter(gymnasium.Env):
    """Stacks of 2 frames whose pixels count the steps; ends after 3."""

    observation_space = spaces.Box(0, 255, (2, 1, 1), np.uint8)
    action_space = spaces.Discrete(2)

    def __init__(self, before=0, stride=1):
        self.before, self.stride = before, stride

    def _stack(self):
        newest = 10 + self.step_number * self.stride
        older = newest - self.stride if self.step_number else newest - self.before
        return np.array([older, newest], dtype=np.uint8).reshape(2, 1, 1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.step_number = seed, 0
        return self._stack(), {}

    def step(self, action):
        self.step_number += 1
        return self._stack(), 0.5 * self.step_number, False, self.step_number == 3, {}


def play(env):
    return play_episode(env, RandomBehaviour(), envs.task_spec(env), seed=0, number=3)


def test_frames_are_kept_once():
    episode = play(Counter())
    assert episode.observations.ravel().tolist() == [10, 11, 12, 13]
    assert episode.rewards.tolist() == [0.5, 1.0, 1.5]
    assert (episode.terminated, episode.truncated, episode.leading) == (False, True, 0)


def test_a_first_stack_of_different_frames_is_kept_whole():
    episode = play(Counter(before=4))
    # the second stack's older frame is the first one's newest, so only the first row is new
    assert episode.observations.ravel().tolist() == [6, 10, 11, 12, 13]
    assert episode.leading == 1


def test_observations_that_are_no_stacks_are_refused():
    env = Counter()
    env._stack = lambda: np.array([env.step_number, 9], dtype=np.uint8).reshape(2, 1, 1)
    with pytest.raises(DatasetError, match="do not share their frames"):
        play(env)


def test_data_seeds_are_out_of_reach_of_evaluation_and_differ_between_episodes():
    env, seeds = Counter(), set()
    for number in range(20):
        play_episode(env, RandomBehaviour(), TaskSpec.pixels((2, 1, 1), ("a", "b")), seed=0, number=number)
        seeds.add(env.seed)
    assert len(seeds) == 20
    assert all(seed in DATA_SEEDS for seed in seeds)
    assert max(seeds) - min(seeds) > len(DATA_SEEDS) / 2  # they are drawn from all of the range


class Pedals(gymnasium.Env):
    """Two steps, whatever the action vector."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 2
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(1, np.float32), float(action[0]), self.left == 0, False, {}


def test_the_plan_of_a_dataset_says_what_each_action_does():
    table = np.array([[0, 1], [1, 0]], np.float32)
    plan = plan_dataset(DiscreteActions(Pedals(), table, ("brake", "gas")), None, {"name": "test"})
    assert plan.environment["action_table"] == [[0, 1], [1, 0]]
    assert plan.environment["id"] == "Pedals"
    assert plan.environment["versions"]["numpy"] == np.__version__
    assert (plan.shards, plan.generator, plan.complete) == ((), {"name": "test"}, False)


def test_the_plan_takes_the_environment_as_it_is_told():
    plan = plan_dataset(Counter(), {"id": "mine", "size": 3}, {}, packages=("gymnasium",))
    versions = {"gymnasium": gymnasium.__version__}
    assert plan.environment == {"id": "mine", "size": 3, "versions": versions}
