import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from offrl.envs import EpsilonGreedy, RandomBehaviour
from offrl.envs.behaviours import Bursts, num_actions
from offrl.errors import ConfigError


class FourActions(gymnasium.Env):
    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Discrete(4)


class ManyActions(gymnasium.Env):
    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Discrete(10_000)


class AlwaysTwo:
    def begin(self, env, rng):
        pass

    def __call__(self, observation):
        return 2, 1.0


def test_random_actions_are_all_played_with_probability_one_in_a():
    behaviour = RandomBehaviour()
    behaviour.begin(FourActions(), np.random.default_rng(0))
    actions, probabilities = zip(*[behaviour(None) for _ in range(100)], strict=True)
    assert set(actions) == {0, 1, 2, 3}
    assert set(probabilities) == {0.25}


def test_epsilon_greedy_tells_its_exact_probabilities():
    behaviour = EpsilonGreedy(AlwaysTwo(), 0.4)
    behaviour.begin(FourActions(), np.random.default_rng(0))
    seen = [behaviour(None) for _ in range(2000)]
    told = dict(seen)
    assert told == {0: pytest.approx(0.1), 1: pytest.approx(0.1), 2: pytest.approx(0.7), 3: pytest.approx(0.1)}
    for action, probability in told.items():
        share = sum(a == action for a, _ in seen) / len(seen)
        assert share == pytest.approx(probability, abs=0.04)  # 4 standard deviations


@pytest.mark.parametrize("noise", [EpsilonGreedy, Bursts])
@pytest.mark.parametrize("epsilon", [1.5, "0.3", float("nan"), None])
def test_epsilon_out_of_range_is_refused(noise, epsilon):
    with pytest.raises(ConfigError, match=rf"{noise.__name__}.epsilon: {epsilon!r}; expected a number in \[0, 1\]"):
        noise(AlwaysTwo(), epsilon)


def test_continuous_actions_are_refused():
    with pytest.raises(ConfigError, match="expected Discrete"):
        num_actions(gymnasium.make("Pendulum-v1"))


def test_bursts_hold_one_action_for_one_to_seven_steps_and_start_with_a_quarter_of_epsilon():
    bursts = Bursts(AlwaysTwo(), 0.2)
    bursts.begin(ManyActions(), np.random.default_rng(0))
    actions, probabilities = zip(*[bursts(None) for _ in range(20_000)], strict=True)
    assert np.isnan(probabilities).all()
    edges = [i for i in range(1, len(actions)) if actions[i] != actions[i - 1]] + [len(actions)]
    runs = [(actions[start], end - start) for start, end in zip([0, *edges], edges, strict=False)]
    assert {length for action, length in runs if action != 2} == set(range(1, 8))
    starts = sum(action != 2 for action, _ in runs)
    free = sum(length for action, length in runs if action == 2)
    assert starts / (free + starts) == pytest.approx(0.05, abs=0.006)  # 4 standard deviations


def test_a_burst_ends_with_its_episode():
    bursts, env = Bursts(AlwaysTwo(), 1.0), ManyActions()
    for seed in range(50):
        bursts.begin(env, np.random.default_rng(seed))
        fresh = Bursts(AlwaysTwo(), 1.0)
        fresh.begin(env, np.random.default_rng(seed))
        assert [bursts(None)[0] for _ in range(5)] == [fresh(None)[0] for _ in range(5)]


def test_without_noise_there_are_no_bursts_and_the_behaviour_is_certain():
    bursts = Bursts(AlwaysTwo(), 0.0)
    bursts.begin(FourActions(), np.random.default_rng(0))
    assert {bursts(None) for _ in range(1000)} == {(2, 1.0)}
