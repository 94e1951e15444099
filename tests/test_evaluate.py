from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from offrl.errors import ConfigError, OfflineRLError
from offrl.evaluate import SCORE_SEEDS, TUNING_SEEDS, Evaluation, evaluate


class Countdown(gymnasium.Env):
    """An episode of seed s lasts s steps; each pays the action. Every third seed finishes a lap."""

    observation_space = spaces.Box(0, 1000, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._seed = self._left = seed
        return self._observation(), {}

    def step(self, action):
        if self._seed == 666:
            raise ValueError("a wheel came off")
        self._left -= 1
        ended, lap_finished = self._left == 0, self._seed % 3 == 0
        # Like CarRacing, it speaks of laps only where it terminates: other episodes are truncated, without a word.
        info = {"lap_finished": lap_finished} if ended and lap_finished else {}
        return self._observation(), float(action), ended and lap_finished, ended and not lap_finished, info

    def _observation(self):
        return np.array([self._seed, self._left], np.float32)


def parity(observations):
    """Action 2 while an even number of steps is left, else 1."""
    return np.where(observations[:, 1] % 2 == 0, 2, 1).astype(np.int64)


SEEDS = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.mark.parametrize("num_envs", [1, 3, 8, 20])
@pytest.mark.parametrize("workers", [0, 2])
def test_scores_are_the_episodes_own_in_the_order_of_the_seeds(num_envs, workers):
    result = evaluate(parity, Countdown, SEEDS, num_envs=num_envs, workers=workers)
    # seed 3: steps left 3, 2, 1 -> 1 + 2 + 1
    assert result.scores == tuple(float(s + s // 2) for s in SEEDS)
    assert result.lengths == tuple(SEEDS)
    assert result.finished == tuple(s % 3 == 0 for s in SEEDS)


def test_the_policy_always_sees_the_same_batch_size():
    sizes = set()

    def policy(observations):
        sizes.add(len(observations))
        return parity(observations)

    evaluate(policy, Countdown, SEEDS, num_envs=3, workers=0)
    assert sizes == {3}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_environment_that_fails_is_named(workers):
    expected = ValueError if workers == 0 else OfflineRLError
    with pytest.raises(expected, match="a wheel came off"):
        evaluate(parity, Countdown, [666], workers=workers)


def failing_env():
    raise OfflineRLError("no such track", where="failing_env")


def test_an_environment_that_cannot_be_made_is_named():
    with pytest.raises(OfflineRLError, match="failing_env: no such track"):
        evaluate(parity, failing_env, [1], workers=1)


def test_gymnasium_environments_work_as_they_are():
    result = evaluate(lambda o: np.zeros(len(o), np.int64), partial(gymnasium.make, "CartPole-v1"), [0, 1], workers=0)
    assert result.finished == ()
    assert all(8 <= score <= 12 for score in result.scores)  # a pole pushed one way falls within about ten steps


def test_summary_by_hand():
    result = Evaluation(seeds=(7, 8, 9), scores=(10.0, 40.0, 10.0), lengths=(1, 2, 3), finished=(False, True, False))
    summary = result.to_dict()
    assert (summary["mean"], summary["median"], summary["mean_length"], summary["finished"]) == (20, 10, 2, 1)
    assert summary["standard_deviation"] == pytest.approx(200**0.5)
    assert summary["per_episode"][1] == {"seed": 8, "score": 40, "length": 2, "finished": True}
    assert (result.best, result.worst) == (8, 7)
    assert 10 <= result.mean.low <= 20 <= result.mean.high <= 40


def test_paired_difference_by_hand():
    ours = Evaluation((1, 2), (10.0, 100.0), (1, 1))
    theirs = Evaluation((1, 2), (5.0, 95.0), (1, 1))
    assert ours.minus(theirs) == (5, 5, 5)  # paired: the tracks' own difference cancels
    with pytest.raises(ConfigError, match="the evaluations' seeds differ"):
        ours.minus(Evaluation((1, 3), (5.0, 95.0), (1, 1)))


def test_no_seeds_are_refused():
    with pytest.raises(ConfigError, match="evaluate: 0 seeds"):
        evaluate(parity, Countdown, [])


def test_seed_ranges_are_disjoint():
    from offrl.collect import DATA_SEED_BASE

    assert TUNING_SEEDS.stop <= SCORE_SEEDS.start
    assert SCORE_SEEDS.stop <= DATA_SEED_BASE


def test_an_environment_that_workers_cannot_be_given_is_refused():
    with pytest.raises(ConfigError, match="evaluate: make_env cannot be sent to worker processes .* use functools"):
        evaluate(parity, lambda: Countdown(), SEEDS, workers=2)
