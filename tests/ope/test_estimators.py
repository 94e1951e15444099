"""Estimators against hand computations, naive loops, dynamic programming and simulated logs."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offrl.errors import ConfigError
from offrl.ope import (
    Steps,
    clipped,
    direct_method,
    doubly_robust,
    effective_sample_size,
    per_decision_is,
    trajectory_is,
    weighted_doubly_robust,
    weighted_is,
    weighted_per_decision_is,
)

IMPORTANCE = [trajectory_is, weighted_is, per_decision_is, weighted_per_decision_is]
ALL = [*IMPORTANCE, direct_method, doubly_robust, weighted_doubly_robust]


# Two episodes, discount 1/2: the first of two steps, the second of one, after which 99s must not count.
TWO = {
    "reward": [[2.0, 8.0], [4.0, 99.0]],
    "ratio": [[0.5, 3.0], [2.0, 99.0]],
    "length": [2, 1],
    "discount": 0.5,
    "q": [[1.0, 4.0], [3.0, 99.0]],
    "value": [[2.0, 6.0], [5.0, 99.0]],
}


@pytest.mark.parametrize(
    ("estimator", "value"),
    [
        (trajectory_is, (1.5 * (2 + 4) + 2 * 4) / 2),
        (weighted_is, (1.5 * 6 + 2 * 4) / 3.5),
        (per_decision_is, (0.5 * 2 + 0.5 * 1.5 * 8 + 2 * 4) / 2),
        (weighted_per_decision_is, (0.5 * 2 + 2 * 4) / 2.5 + 0.5 * (1.5 * 8) / 3.5),  # the ended one keeps its 2
        (direct_method, (2 + 5) / 2),
        (doubly_robust, (2 + 0.5 * (2 + 0.5 * (6 + 3 * (8 - 4)) - 1) + 5 + 2 * (4 - 3)) / 2),
        (
            weighted_doubly_robust,
            (2 + 5) / 2  # V at first, all weights 1
            + (0.5 * (2 - 1) + 2 * (4 - 3)) / 2.5
            + 0.5 * (0.5 * 6) / 2.5
            + 0.5 * (1.5 * (8 - 4)) / 3.5,
        ),
        (effective_sample_size, 3.5**2 / (1.5**2 + 2**2)),
    ],
)
def test_two_episodes_by_hand(estimator, value):
    assert estimator(Steps(**TWO)).tolist() == [pytest.approx(value, rel=1e-12)]


def test_where_the_log_was_cut_the_models_value_goes_on():
    steps = Steps(**TWO, end_value=[0.0, 20.0])
    before = Steps(**TWO)
    assert doubly_robust(steps) - doubly_robust(before) == pytest.approx(0.5 * 2 * 20 / 2)
    assert weighted_doubly_robust(steps) - weighted_doubly_robust(before) == pytest.approx(0.5 * 2 * 20 / 2.5)
    assert per_decision_is(steps) == per_decision_is(before)


# Naive loops: one resample at a time, an episode that is in it k times written down k times.


@dataclass
class NaiveEpisode:
    reward: list[float]
    ratio: list[float]
    q: list[float]
    value: list[float]
    end_value: float
    history: int | None = None

    def weight(self, step):
        """The product of the ratios up to a step, or of the latest ones; an ended episode keeps its last."""
        done = self.ratio[: step + 1]
        return math.prod(done if self.history is None else done[max(0, len(done) - self.history) :])


def naive_return(episode, discount):
    return sum(discount**t * reward for t, reward in enumerate(episode.reward))


def naive_trajectory_is(episodes, discount):
    return sum(each.weight(99) * naive_return(each, discount) for each in episodes) / len(episodes)


def naive_weighted_is(episodes, discount):
    total = sum(each.weight(99) for each in episodes)
    return sum(each.weight(99) * naive_return(each, discount) for each in episodes) / total if total else math.nan


def naive_per_decision_is(episodes, discount):
    terms = [discount**t * each.weight(t) * r for each in episodes for t, r in enumerate(each.reward)]
    return sum(terms) / len(episodes)


def naive_weighted_per_decision_is(episodes, discount):
    found = 0.0
    for t in range(max(len(each.reward) for each in episodes)):
        total = sum(each.weight(t) for each in episodes)
        if total == 0:
            return math.nan
        found += discount**t * sum(each.weight(t) * each.reward[t] for each in episodes if t < len(each.reward)) / total
    return found


def naive_direct_method(episodes, discount):
    return sum(each.value[0] for each in episodes) / len(episodes)


def naive_doubly_robust(episodes, discount):
    """The recursion of Jiang and Li 2016, or with a history V(s_0) + sum_t g^t w_t (r_t + g V(s_t+1) - Q(s_t, a_t))."""
    total = 0.0
    for each in episodes:
        if each.history is not None:
            following = [*each.value[1:], each.end_value]
            errors = [r + discount * v - q for r, v, q in zip(each.reward, following, each.q, strict=True)]
            total += each.value[0] + sum(discount**t * each.weight(t) * error for t, error in enumerate(errors))
            continue
        found = each.end_value
        for t in reversed(range(len(each.reward))):
            found = each.value[t] + each.ratio[t] * (each.reward[t] + discount * found - each.q[t])
        total += found
    return total / len(episodes)


def naive_weighted_doubly_robust(episodes, discount):
    found = 0.0
    for t in range(max(len(each.reward) for each in episodes) + 1):
        total, total_before = (sum(each.weight(step) for each in episodes) for step in (t, t - 1))
        for each in episodes:
            length = len(each.reward)
            if t < length and total:
                found += discount**t * each.weight(t) / total * (each.reward[t] - each.q[t])
            value = each.value[t] if t < length else each.end_value if t == length else 0.0
            if total_before:
                found += discount**t * each.weight(t - 1) / total_before * value
    return found


def naive_effective_sample_size(episodes, discount):
    weights = [each.weight(99) for each in episodes]
    return sum(weights) ** 2 / sum(weight**2 for weight in weights) if any(weights) else 0.0


NAIVE = {
    trajectory_is: naive_trajectory_is,
    weighted_is: naive_weighted_is,
    per_decision_is: naive_per_decision_is,
    weighted_per_decision_is: naive_weighted_per_decision_is,
    direct_method: naive_direct_method,
    doubly_robust: naive_doubly_robust,
    weighted_doubly_robust: naive_weighted_doubly_robust,
    effective_sample_size: naive_effective_sample_size,
}
numbers = st.floats(-10, 10)
ratios = st.one_of(st.just(0.0), st.floats(1e-3, 1e3))


@st.composite
def naive_episodes(draw):
    def row(values):
        return draw(st.lists(values, min_size=length, max_size=length))

    length = draw(st.integers(1, 4))
    return NaiveEpisode(row(numbers), row(ratios), row(numbers), row(numbers), draw(numbers))


def padded(rows, fill):
    width = max(map(len, rows))
    return np.array([[*row, *[fill] * (width - len(row))] for row in rows])


def steps_of(episodes, discount):
    return Steps(
        reward=padded([each.reward for each in episodes], 7.0),
        ratio=padded([each.ratio for each in episodes], np.nan),
        length=np.array([len(each.reward) for each in episodes]),
        discount=discount,
        q=padded([each.q for each in episodes], 7.0),
        value=padded([each.value for each in episodes], 7.0),
        end_value=np.array([each.end_value for each in episodes]),
    )


@settings(max_examples=200, deadline=None)
@given(
    st.data(),
    st.lists(naive_episodes(), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.5, 0.97, 1.0]),
    st.sampled_from([None, 0, 1, 2]),
)
def test_estimates_equal_naive_loops_over_the_repeated_episodes(data, episodes, discount, history):
    # With a history as long as the episodes weights are those without.
    history = None if history is None or history >= max(len(each.reward) for each in episodes) else history
    episodes = [replace(each, history=history) for each in episodes]
    steps = replace(steps_of(episodes, discount), history=history)
    one = st.lists(st.integers(0, 3), min_size=len(episodes), max_size=len(episodes)).filter(any)
    counts = np.array(data.draw(st.lists(one, min_size=1, max_size=3)))
    for estimator, naive in NAIVE.items():
        if history is not None and estimator is effective_sample_size:
            continue  # by hand in test_steps.py
        expected = [
            # The horizon stays that of all episodes: `weighted` sums go on with the last weights, and add nothing.
            naive([each for each, count in zip(episodes, row, strict=True) for _ in range(count)], discount)
            for row in counts
        ]
        found = estimator(steps, counts)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-6, err_msg=naive.__name__)
        np.testing.assert_allclose(estimator(steps), [naive(episodes, discount)], rtol=1e-8, atol=1e-6)


# A small decision process: 2 states, 2 actions, 3 steps, and an end that may come earlier.


class Process:
    """P[s, a, s'] with state 2 the end, rewards R[s, a], policies [s, a] and the first state's distribution."""

    discount = 0.9
    horizon = 3
    start = np.array([0.6, 0.4])
    reward = np.array([[1.0, -2.0], [0.5, 3.0]])
    step = np.array([[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], [[0.3, 0.3, 0.4], [0.6, 0.1, 0.3]]])
    behaviour = np.array([[0.7, 0.3], [0.4, 0.6]])
    target = np.array([[0.2, 0.8], [0.5, 0.5]])

    def values(self):
        """Q [T, S, A] and V [T, S] of the target policy by dynamic programming; state 2 has value 0."""
        following, q, v = np.zeros(3), [], []
        for _ in range(self.horizon):
            q.insert(0, self.reward + self.discount * self.step @ following)
            v.insert(0, (self.target * q[0]).sum(axis=1))
            following = np.append(v[0], 0.0)
        return np.array(q), np.array(v)

    def value(self):
        return float(self.start @ self.values()[1][0])

    def trajectories(self):
        """All (probability under the behaviour, states, actions)."""

        def go_on(probability, states, actions):
            if len(actions) == self.horizon or states[-1] == 2:
                yield probability, states[: len(actions)], actions
                return
            state = states[-1]
            for action, following in product(range(2), range(3)):
                chance = self.behaviour[state, action] * self.step[state, action, following]
                yield from go_on(probability * chance, [*states, following], [*actions, action])

        for state in range(2):
            yield from go_on(self.start[state], [state], [])

    def simulate(self, num_episodes, generator):
        """States and actions [N, T] and lengths [N]; 0 after the end."""
        state = (generator.random(num_episodes) >= self.start[0]).astype(int)
        states, actions, length = [], [], np.zeros(num_episodes, int)
        for _ in range(self.horizon):
            alive, safe = state < 2, np.minimum(state, 1)
            action = (generator.random(num_episodes) >= self.behaviour[safe, 0]).astype(int)
            states.append(safe)
            actions.append(action)
            length += alive
            moved = (generator.random(num_episodes)[:, None] > self.step[safe, action].cumsum(axis=1)).sum(axis=1)
            state = np.where(alive, np.minimum(moved, 2), 2)
        return np.stack(states, axis=1), np.stack(actions, axis=1), length

    def steps(self, states, actions, length, q=None):
        """The steps of such episodes, with this Q [T, S, A] as the model; the true one by default."""
        q = self.values()[0] if q is None else q
        times = np.arange(self.horizon)
        return Steps(
            reward=self.reward[states, actions],
            ratio=(self.target / self.behaviour)[states, actions],
            length=length,
            discount=self.discount,
            q=q[times, states, actions],
            value=(self.target[states] * q[times, states]).sum(axis=2),
        )


WRONG_Q = np.arange(12.0).reshape(3, 2, 2) - 5


@pytest.fixture(scope="module")
def enumerated():
    """Every trajectory once, with its probability."""
    process = Process()
    probability, states, actions = zip(*process.trajectories(), strict=True)
    assert sum(probability) == pytest.approx(1)
    assert len(probability) > 100
    whole = [np.array([[*row, *[0] * (3 - len(row))] for row in rows]) for rows in (states, actions)]
    return process, np.array(probability), (*whole, np.array([len(row) for row in actions]))


@pytest.mark.parametrize("q", [None, WRONG_Q], ids=["true model", "wrong model"])
@pytest.mark.parametrize("estimator", [trajectory_is, per_decision_is, doubly_robust])
def test_the_expectation_over_all_trajectories_is_the_value(enumerated, estimator, q):
    process, probability, episodes = enumerated
    one_each = estimator(process.steps(*episodes, q), np.eye(len(probability)))
    assert probability @ one_each == pytest.approx(process.value(), abs=1e-12)


@pytest.mark.parametrize("estimator", ALL)
def test_with_every_trajectory_as_often_as_it_is_likely_each_estimate_is_the_value(enumerated, estimator):
    """Consistency, and the direct method with the true model."""
    process, probability, episodes = enumerated
    steps = process.steps(*episodes)
    assert estimator(steps, probability[None]) == pytest.approx(process.value(), abs=1e-12)


def test_doubly_robust_with_the_true_model_has_less_variance(enumerated):
    process, probability, episodes = enumerated
    per_decision, robust = (
        estimator(process.steps(*episodes), np.eye(len(probability))) for estimator in (per_decision_is, doubly_robust)
    )
    variance = [probability @ (found - process.value()) ** 2 for found in (per_decision, robust)]
    assert variance[1] < variance[0] / 2


def test_doubly_robust_with_a_true_model_of_a_certain_world_is_exact_for_each_episode():
    """Nothing is random but the behaviour: V(s_0) + sum g^t w_t (r_t + g V(s_t+1) - Q(s_t, a_t)), all errors 0."""
    process = Process()
    process.start = np.array([1.0, 0.0])
    process.step = np.array([[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    steps = process.steps(*process.simulate(50, np.random.default_rng(0)))
    assert len(set(steps.returns)) > 3
    for estimator in (doubly_robust, weighted_doubly_robust):
        np.testing.assert_allclose(estimator(steps, np.eye(50)), process.value())
    # A clipped weight leaves it to the model, which is right.
    np.testing.assert_allclose(doubly_robust(clipped(steps, 1.0), np.eye(50)), process.value())


@pytest.mark.parametrize("estimator", [trajectory_is, per_decision_is, doubly_robust])
def test_unbiased_over_ten_thousand_simulated_datasets(estimator):
    process, size = Process(), 20
    num_datasets = 10_000
    episodes = process.simulate(num_datasets * size, np.random.default_rng(1))
    # Episode by episode, then means of twenty: these estimators are means over episodes.
    steps = process.steps(*episodes, WRONG_Q)
    of_dataset = []
    for start in range(0, num_datasets, 500):
        rows = slice(start * size, (start + 500) * size)
        part = Steps(
            steps.reward[rows],
            steps.ratio[rows],
            steps.length[rows],
            steps.discount,
            steps.q[rows],
            steps.value[rows],
        )
        of_dataset.append(estimator(part, np.kron(np.eye(500), np.ones(size))))
    found = np.concatenate(of_dataset)
    error = found.mean() - process.value()
    assert found.std() > 0.1
    assert abs(error) < 3 * found.std() / np.sqrt(num_datasets)


@pytest.mark.parametrize("estimator", [weighted_is, weighted_per_decision_is, weighted_doubly_robust])
def test_weighted_estimates_come_closer_with_more_episodes(estimator):
    process = Process()
    found = [
        float(estimator(process.steps(*process.simulate(size, np.random.default_rng(2)), WRONG_Q))[0])
        for size in (30, 300_000)
    ]
    assert abs(found[1] - process.value()) < 0.02 < abs(found[0] - process.value())


def test_the_behaviour_itself_has_its_mean_return():
    steps = Steps(**{**TWO, "ratio": np.ones((2, 2))})
    for estimator in IMPORTANCE:
        assert estimator(steps) == pytest.approx((2 + 4 + 4) / 2)
    assert effective_sample_size(steps) == pytest.approx(2)


# One step: contextual bandits.


def test_bandit_data_by_hand():
    steps = Steps(
        reward=[[1.0], [0.0], [2.0]],
        ratio=[[2.0], [0.5], [1.0]],
        length=[1, 1, 1],
        discount=0.9,
        q=[[0.5], [0.5], [1.5]],
        value=[[1.0], [0.2], [0.3]],
    )
    for ips in (trajectory_is, per_decision_is):
        assert ips(steps) == pytest.approx((2 + 0 + 2) / 3)
    for snips in (weighted_is, weighted_per_decision_is):
        assert snips(steps) == pytest.approx((2 + 0 + 2) / 3.5)
    assert direct_method(steps) == pytest.approx(1.5 / 3)
    assert doubly_robust(steps) == pytest.approx((1.5 + 2 * 0.5 - 0.5 * 0.5 + 0.5) / 3)
    assert weighted_doubly_robust(steps) == pytest.approx(1.5 / 3 + (2 * 0.5 - 0.5 * 0.5 + 0.5) / 3.5)


# Range of numbers.


def long_steps(ratio, reward=1.0, horizon=1000):
    ratio = np.array(ratio, np.float64)
    shape = (len(ratio), horizon)
    return Steps(np.full(shape, reward), np.repeat(ratio[:, None], horizon, axis=1), np.full(len(ratio), horizon), 1.0)


def test_a_thousand_steps_neither_underflow_nor_overflow_where_weights_are_normalised():
    for ratio in (0.1, 10.0, 1e9):  # weights of 1e-1000, 1e1000 and 1e9000
        steps = long_steps([ratio, ratio])
        for estimator in (weighted_is, weighted_per_decision_is):
            assert estimator(steps) == pytest.approx(1000)
        assert effective_sample_size(steps) == pytest.approx(2)


@pytest.mark.parametrize("power", [90, 150, 322, 2000])  # 1e-322 is a float of a few bits
def test_a_resample_without_the_heaviest_episode_is_as_exact(power):
    """The second episode's weight is 10**-power of the first one's, and the third one's a third of that."""
    reward = np.array([[0.0], [3.0], [9.0]]) * np.eye(1, 1000, 999)
    ratio = np.ones((3, 1000))
    ratio[1:] = 10 ** (-power / 1000)
    ratio[2, 0] /= 3
    steps = Steps(reward, ratio, np.full(3, 1000), 1.0)
    counts = np.array([[1, 1, 1], [0, 2, 1], [0, 0, 1]])
    expected = [0.0, (2 * 3 + 9 / 3) / (2 + 1 / 3), 9.0]
    for estimator in (weighted_is, weighted_per_decision_is):
        np.testing.assert_allclose(estimator(steps, counts), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        effective_sample_size(steps, counts), [1.0, (2 + 1 / 3) ** 2 / (2 + 1 / 9), 1.0], rtol=1e-9
    )


def as_float(exact):
    try:
        return float(exact)
    except OverflowError:
        return math.inf


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 6), st.integers(1, 5))
def test_weights_far_outside_the_range_of_floats_are_as_exact_fractions(data, num_episodes, horizon):
    """Weights from 1e-1500 to 1e1500, and some of 0; positive rewards, so that nothing cancels."""
    powers = st.one_of(st.just(0.0), st.integers(-300, 300).map(lambda power: 10.0**power))
    rewards = st.floats(0.1, 10)

    def draw_table(values):
        row = st.lists(values, min_size=horizon, max_size=horizon)
        return data.draw(st.lists(row, min_size=num_episodes, max_size=num_episodes))

    ratio, reward, q, value = map(draw_table, (powers, rewards, rewards, rewards))
    counts = data.draw(st.lists(st.integers(0, 2), min_size=num_episodes, max_size=num_episodes).filter(any))
    steps = Steps(reward, ratio, [horizon] * num_episodes, 0.5, q=q, value=value)
    exact = [
        NaiveEpisode(*([Fraction(each) for each in row] for row in rows), Fraction(0))
        for rows in zip(reward, ratio, q, value, strict=True)
    ]
    drawn = [each for each, count in zip(exact, counts, strict=True) for _ in range(count)]
    for estimator in (*IMPORTANCE, weighted_doubly_robust, effective_sample_size):
        expected = as_float(NAIVE[estimator](drawn, Fraction(1, 2)))
        found = estimator(steps, np.array([counts]))
        np.testing.assert_allclose(found, [expected], rtol=1e-8, atol=1e-12, err_msg=str(estimator))


def test_an_episode_that_is_in_no_resample_moves_nothing():
    steps = Steps(np.ones((2, 2)), np.array([[1e270, 1e300], [1.0, 1.0]]), [2, 2], 0.5)
    np.testing.assert_allclose(trajectory_is(steps, np.array([[0, 1], [0, 3], [1, 0]])), [1.5, 1.5, math.inf])


def test_unweighted_estimates_out_of_range_are_infinite_and_never_nan():
    assert trajectory_is(long_steps([10.0])).tolist() == [math.inf]
    assert per_decision_is(long_steps([10.0], -1.0)).tolist() == [-math.inf]
    assert trajectory_is(long_steps([0.1])).tolist() == [0.0]
    # What a weight of 1e1000 weighs is 0.
    reward = np.zeros((1, 1000))
    reward[0, 0] = 2.0
    steps = Steps(reward, np.full((1, 1000), 10.0), [1000], 1.0)
    assert per_decision_is(steps) == pytest.approx(20)


def test_an_action_that_the_policy_never_takes_ends_the_episodes_weight():
    steps = Steps(**{**TWO, "ratio": [[0.5, 0.0], [2.0, 1.0]]})
    assert trajectory_is(steps) == pytest.approx(2 * 4 / 2)
    assert weighted_is(steps) == pytest.approx(4)
    assert per_decision_is(steps) == pytest.approx((0.5 * 2 + 2 * 4) / 2)
    assert effective_sample_size(steps) == 1


def test_without_any_weight_weighted_estimates_are_undefined_and_the_model_stands():
    steps = Steps(**{**TWO, "ratio": np.zeros((2, 2))})
    assert trajectory_is(steps) == 0
    assert np.isnan(weighted_is(steps))
    assert np.isnan(weighted_per_decision_is(steps))
    assert weighted_doubly_robust(steps) == direct_method(steps) == 3.5
    assert effective_sample_size(steps) == 0
    # Only the resample with the second episode alone has a weight.
    steps = Steps(**{**TWO, "ratio": [[0.0, 1.0], [2.0, 1.0]]})
    np.testing.assert_array_equal(weighted_is(steps, np.array([[2, 0], [0, 2]])), [np.nan, 4.0])


@pytest.mark.parametrize("estimator", [direct_method, doubly_robust, weighted_doubly_robust])
def test_estimators_with_a_model_refuse_steps_without(estimator):
    steps = Steps(TWO["reward"], TWO["ratio"], TWO["length"], 0.5)
    with pytest.raises(ConfigError, match=r"Steps\.(q|value): no values of a model; expected Q and V"):
        estimator(steps)


def forgotten():
    """All 16 episodes of four steps, in each of which one of two actions is drawn; the policy always takes 1.

    The third step's reward is 1 where the first action was, which no observation tells.
    """
    actions = np.array([*product([0, 1], repeat=4)])
    reward = np.zeros(actions.shape)
    reward[:, 2] = actions[:, 0]
    # What is right on average of what is seen: the third step's reward is 0.5 to a model that does not know the first.
    value = np.tile([0.5, 0.5, 0.5, 0.0], (16, 1))
    return Steps(reward, 2.0 * actions, np.full(16, 4), 1.0, q=value, value=value)


def test_partial_histories_correct_a_model_that_does_not_see_what_was_done_before():
    steps = forgotten()
    found = {history: float(weighted_doubly_robust(replace(steps, history=history))[0]) for history in range(5)}
    assert direct_method(steps) == pytest.approx(0.5)
    # The first two decisions say nothing of it. The reward is worth 1 to the policy, and three decisions hold it.
    assert found == pytest.approx({0: 0.5, 1: 0.5, 2: 0.5, 3: 1.0, 4: 1.0})
    assert weighted_doubly_robust(steps) == pytest.approx(1.0)


def test_a_history_of_all_steps_is_the_estimator_itself_and_without_agreement_the_model_stands():
    steps = forgotten()
    for estimator in ALL:
        np.testing.assert_array_equal(estimator(replace(steps, history=4)), estimator(steps))
    never = replace(steps, ratio=np.zeros((16, 4)), history=2)
    assert weighted_doubly_robust(never) == direct_method(never) == pytest.approx(0.5)
