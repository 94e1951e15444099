from dataclasses import dataclass, replace
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from offrl import BC, OfflineRLError, TaskSpec
from offrl.envs import DATA_SEEDS, SCORE_SEEDS, TUNING_SEEDS, RandomActions, RandomBehaviour, make
from offrl.envs.seeds import episode_rng
from offrl.errors import ConfigError, SpecMismatchError
from offrl.evaluation import EpisodeEvaluator, evaluate, evaluate_behaviour, sweep_thresholds
from offrl.policies import TorchPolicy
from offrl.statistics import bootstrap_mean


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


@pytest.mark.parametrize(
    ("num_envs", "workers"), [(1, 0), (3, 0), (8, 0), (20, 0), (1, 2), (3, 1), (3, 2), (8, 3), (20, 2)]
)
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


def test_an_evaluation_says_what_it_was_played_with():
    versions = evaluate(parity, Countdown, [1], workers=0).versions
    assert versions["numpy"] == np.__version__
    assert {"offrl", "gymnasium", "torch"} <= versions.keys()


def test_what_is_no_policy_is_refused_before_anything_is_played():
    bc = BC(TaskSpec.vector(2, ("left", "right")))
    with pytest.raises(ConfigError, match=r"evaluate: BC is an algorithm; .* wrap it: offrl.TorchPolicy\(algorithm\)"):
        evaluate(bc, failing_env, [1])
    with pytest.raises(ConfigError, match="sweep_thresholds: BC is an algorithm"):
        sweep_thresholds(bc, [0.1], failing_env)
    with pytest.raises(ConfigError, match=r"the policy is 'runs/bcq'; .* pass offrl.load\('runs/bcq'\)"):
        evaluate("runs/bcq", failing_env, [1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_policy_of_more_actions_is_refused_before_it_plays(workers):
    policy = TorchPolicy(BC(TaskSpec.vector(4, ("left", "right", "jump"))))
    message = "evaluate: the environment has 2 actions; expected 3, as the policy's task has; take the environment"
    with pytest.raises(SpecMismatchError, match=message):
        evaluate(policy, partial(make, "CartPole-v1"), [1], workers=workers)


def test_a_policy_of_data_that_lacks_actions_plays_with_a_warning():
    policy = TorchPolicy(BC(TaskSpec.vector(6, ("back", "hold"))))
    make_env = partial(make, "Acrobot-v1", max_episode_steps=3)
    with pytest.warns(UserWarning, match="has 3 actions and the policy's task 2: the others are never taken"):
        assert evaluate(policy, make_env, [1], workers=0).lengths == (3,)


def test_no_seeds_are_refused():
    with pytest.raises(ConfigError, match="evaluate: no seeds"):
        evaluate(parity, Countdown, [])
    with pytest.raises(ConfigError, match="evaluate_behaviour: no seeds"):
        evaluate_behaviour(RandomBehaviour(), Countdown, [])
    with pytest.raises(ConfigError, match=r"evaluate_behaviour.behaviour: 'random'; expected a Behaviour"):
        evaluate_behaviour("random", Countdown, SEEDS)


def test_seeds_of_the_data_and_mixed_ones_are_refused_before_anything_is_played():
    for play in (partial(evaluate, parity), partial(evaluate_behaviour, RandomBehaviour())):
        with pytest.raises(ConfigError, match="seed 1000000005, on which data is collected"):
            play(failing_env, [3, DATA_SEEDS[5]], workers=0)
        with pytest.raises(ConfigError, match="seed 1000000, which .* beside seed 2000000"):
            play(failing_env, [SCORE_SEEDS[0], TUNING_SEEDS[0]], workers=0)


def test_an_environment_that_workers_cannot_be_given_is_refused():
    with pytest.raises(ConfigError, match="evaluate: make_env cannot be sent to worker processes .* use functools"):
        evaluate(parity, lambda: Countdown(), SEEDS, workers=2)


@dataclass
class LateStarter:
    """Looks into the environment: as `parity`, but for the first action of its life, which is 0."""

    has_begun: bool = False

    def begin(self, env, rng):
        self.env = env

    def __call__(self, observation):
        action = 0 if not self.has_begun else 2 if self.env._left % 2 == 0 else 1
        self.has_begun = True
        return action, 1.0


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_a_behaviour_plays_each_episode_with_a_life_of_its_own(workers):
    behaviour = LateStarter()
    result = evaluate_behaviour(behaviour, Countdown, SEEDS, workers=workers)
    assert result.scores == tuple(float(s + s // 2 - (2 if s % 2 == 0 else 1)) for s in SEEDS)
    assert (result.seeds, result.lengths) == (tuple(SEEDS), tuple(SEEDS))
    assert result.finished == tuple(s % 3 == 0 for s in SEEDS)
    assert not behaviour.has_begun


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_what_a_behaviour_draws_depends_on_the_seed_of_the_episode_alone(workers):
    seeds = [40, 50, 60, 50]
    here = evaluate_behaviour(RandomBehaviour(), Countdown, seeds, workers=0)
    assert here.scores[1] == here.scores[3]
    assert len({score / seed for score, seed in zip(here.scores, seeds, strict=True)}) == 3
    there = evaluate_behaviour(RandomBehaviour(), Countdown, seeds[::-1], workers=workers)
    assert there.scores == here.scores[::-1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_behaviours_environment_that_fails_is_named(workers):
    expected = ValueError if workers == 0 else OfflineRLError
    with pytest.raises(expected, match="a wheel came off"):
        evaluate_behaviour(RandomBehaviour(), Countdown, [1, 666, 2], workers=workers)


def test_a_behaviour_that_workers_cannot_be_given_is_refused():
    class Local(RandomBehaviour):
        pass

    with pytest.raises(ConfigError, match="evaluate_behaviour: make_env or behaviour cannot be sent"):
        evaluate_behaviour(Local(), Countdown, SEEDS, workers=2)


@dataclass
class Bold:
    """Action 2 with a threshold below 0.2, else 1."""

    threshold: float

    def with_threshold(self, threshold):
        return replace(self, threshold=threshold)

    def __call__(self, observations):
        return np.full(len(observations), 2 if self.threshold < 0.2 else 1)


def test_a_sweep_by_hand():
    sweep = sweep_thresholds(Bold(0.3), [0.0, 0.3, 0.1], Countdown, [3, 1, 4], workers=0)
    assert [each.scores for each in sweep.evaluations.values()] == [(6, 2, 8), (3, 1, 4), (6, 2, 8)]
    assert sweep.baseline == 0.3  # the policy's own
    gained = bootstrap_mean([3, 1, 4])
    assert sweep.differences == {0.0: gained, 0.3: (0, None, None), 0.1: gained}
    entry = sweep.to_dict()["policies"]["threshold 0.1"]
    assert (entry["threshold"], entry["mean"], entry["minus_baseline"]["mean"]) == (0.1, 16 / 3, 8 / 3)
    head, _, own, *_ = sweep.to_text().splitlines()
    assert head == "threshold  mean  95 % interval  median  10th percentile  steps  laps  paired difference to 0.3"
    assert own.split() == ["0.3", "2.7", "too", "few", "3.0", "1.4", "2.7", "1", "-"]
    assert len(own) == len(head)
    assert sweep_thresholds(Bold(0.5), [0.1, 0.0], Countdown, [3], workers=0).baseline == 0.1  # the first


def test_a_sweep_chooses_so_it_keeps_off_the_seeds_for_scores():
    with pytest.raises(ConfigError, match="seed 2000003, which is kept for scores, where a setting is chosen"):
        sweep_thresholds(Bold(0.3), [0.3], failing_env, [SCORE_SEEDS[3]])
    with pytest.raises(ConfigError, match="no thresholds"):
        sweep_thresholds(Bold(0.3), [], failing_env)


def test_thresholds_may_be_an_array_and_are_written_as_plain_numbers():
    sweep = sweep_thresholds(Bold(0.3), np.array([0.0, 0.5]), Countdown, [3, 1], workers=0)
    assert [(type(threshold), threshold) for threshold in sweep.evaluations] == [(float, 0.0), (float, 0.5)]
    assert [each.scores for each in sweep.evaluations.values()] == [(6, 2), (3, 1)]


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        (0.3, r"thresholds is 0.3; expected several of them; pass \[0.3\]"),
        (np.array(0.3), r"thresholds is array\(0.3\)"),
        (np.array([]), "no thresholds"),
        ("0.3", "threshold '0'; expected a number"),
        ([0.1, None], "threshold None; expected a number"),
    ],
)
def test_what_are_no_thresholds_is_one_line(thresholds, message):
    with pytest.raises(ConfigError, match=f"sweep_thresholds: {message}"):
        sweep_thresholds(Bold(0.3), thresholds, failing_env)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "0 environments; expected 1 or more, a whole number"),
        ({"num_envs": 2.5}, "2.5 environments"),
        ({"workers": -3}, "-3 workers; expected 0 or more, or None"),
        ({"workers": "2"}, "'2' workers"),
        ({"seeds": {1, 2}}, r"seeds is \{1, 2\}"),
        ({"make_env": "CartPole-v1"}, "make_env is 'CartPole-v1'; expected a function"),
    ],
)
def test_what_episodes_cannot_be_played_with_is_one_line_whoever_plays(arguments, message):
    given = {"make_env": failing_env, "seeds": [1], **arguments}
    ways = {
        "evaluate": partial(evaluate, parity),
        "sweep_thresholds": partial(sweep_thresholds, Bold(0.3), [0.1]),
        "EpisodeEvaluator": EpisodeEvaluator,
    }
    if "num_envs" not in arguments:
        ways["evaluate_behaviour"] = partial(evaluate_behaviour, RandomBehaviour())
    for name, play in ways.items():
        with pytest.raises(ConfigError, match=f"^{name}: {message}"):
            play(**given)


class Echo(gymnasium.Env):
    """Episodes of twenty steps, whose scores spell the actions."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.num_steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.num_steps += 1
        return np.zeros(1, np.float32), float(action) * 3.0**self.num_steps, False, self.num_steps == 20, {}


def noisy_echo():
    return RandomActions(Echo(), 0.5)


def always_one(observations):
    return np.ones(len(observations), np.int64)


def expected_echo(seed):
    rng = episode_rng(seed)
    actions = [rng.integers(3) if rng.random() < 0.5 else 1 for _ in range(20)]
    return sum(action * 3.0**number for number, action in enumerate(actions, 1))


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_random_actions_are_those_of_the_episodes_seed_whoever_plays_it(workers):
    seeds = [5, 3, 8, 3]
    result = evaluate(always_one, noisy_echo, seeds, num_envs=3, workers=workers)
    assert result.scores == tuple(expected_echo(seed) for seed in seeds)
    assert len(set(result.scores)) == 3


def test_an_epsilon_of_nothing_leaves_the_actions_alone():
    result = evaluate(always_one, lambda: RandomActions(Echo(), 0.0), [5], workers=0)
    assert result.scores == (sum(3.0**number for number in range(1, 21)),)


@pytest.mark.parametrize(
    "policy",
    [
        lambda observations: np.full(len(observations), 0.9),
        lambda observations: np.zeros((len(observations), 1), np.int64),
        lambda observations: 0,
    ],
)
def test_what_a_policy_returns_is_one_integer_for_each_observation(policy):
    with pytest.raises(SpecMismatchError, match=r"the policy's actions: \S+ \[.*\]; expected integers \[20\]"):
        evaluate(policy, partial(make, "CartPole-v1"), [5], workers=0)
