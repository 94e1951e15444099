from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from offrl.evaluation import EpisodeEnd
from offrl.evaluation._rollouts import make_environments, play_episodes


class Stairs(gymnasium.Env):
    """Shows its seed and how often it was stepped; an episode of seed s takes s steps, each pays its action."""

    observation_space = spaces.Box(0, 1000, (2,), np.float32)
    action_space = spaces.Discrete(10)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._seed, self._steps = seed, 0
        return self._observation(), {}

    def step(self, action):
        self._steps += 1
        ended = self._steps == self._seed
        info = {"lap_finished": self._seed == 2} if ended and self._seed < 3 else {}
        return self._observation(), float(action), ended, False, info

    def _observation(self):
        return np.array([self._seed, self._steps], np.float32)


@dataclass
class Climber:
    """Plays the number of the step; its first action in an episode comes from the generator of the episode."""

    def begin(self, env, rng):
        self._first = int(rng.integers(10))

    def __call__(self, observation):
        return int(observation[1]) or self._first, 1.0


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_only_those_that_are_asked_move(workers):
    environments = make_environments(Stairs, 3, workers)
    try:
        first = environments.reset({0: 5, 1: 2, 2: 1})
        assert {slot: step.observation.tolist() for slot, step in first.items()} == {0: [5, 0], 1: [2, 0], 2: [1, 0]}
        assert {slot: step.observation.tolist() for slot, step in environments.step({0: 7, 1: 3}).items()} == {
            0: [5, 1],
            1: [2, 1],
        }
        ends = {slot: step.end for slot, step in environments.step({0: 1, 1: 4, 2: 9}).items()}
        assert ends == {0: None, 1: EpisodeEnd(7.0, 2, True), 2: EpisodeEnd(9.0, 1, False)}
        assert environments.reset({1: 3})[1].observation.tolist() == [3, 0]
        for _ in range(2):
            assert environments.step({1: 1})[1].end is None
        assert environments.step({1: 1})[1].end == EpisodeEnd(3.0, 3, None)  # counted anew, and no word of a lap
    finally:
        environments.close()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_each_seed_is_played_once_whoever_is_free(workers):
    seeds = [4, 1, 3, 4]
    ends = dict(play_episodes(Stairs, Climber(), seeds, workers))
    assert sorted(ends) == [0, 1, 2, 3]
    assert [ends[index].length for index in range(4)] == seeds
    assert ends[0] == ends[3]
    # After the first action, which is drawn, come 1, 2, ...
    assert 0 <= ends[0].score - (1 + 2 + 3) < 10


def test_a_player_may_be_left_before_the_end():
    played = play_episodes(Stairs, Climber(), [2, 2, 2, 2], 1)
    assert next(played)[0] == 0
    played.close()
    with pytest.raises(StopIteration):
        next(played)
