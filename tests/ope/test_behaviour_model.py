"""Logged probabilities that count and that do not; the fitted model against a behaviour that is known."""

from dataclasses import replace

import numpy as np
import pytest
from naive_replay import NAMES, save_frames

from offrl import LearnerConfig, TaskSpec
from offrl.errors import ConfigError, DatasetError, SpecMismatchError
from offrl.ope import FittedBehaviour, LoggedBehaviour, fit_behaviour, logged_behaviour
from offrl.ope._calibration import expected_calibration_error, fit_temperature, negative_log_likelihood, softmax
from offrl.ope.behaviour import support_floor
from offrl.replay import open_replay
from offrl.shards import Episode

SPEC = TaskSpec.vector(4, NAMES)
QUICK = LearnerConfig(learning_rate=3e-3, precision="fp32", compile="off")


@pytest.fixture(autouse=True, scope="module")
def nothing_waits_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("offrl.system.files.sync", lambda path: None)
        yield


def episode(probability, actions=None, masks=None):
    """One of two steps or more, with these logged probabilities."""
    steps = len(probability)
    return Episode(
        observations=np.zeros((steps + 1, 4), np.float32),
        actions=np.zeros(steps, np.int64) if actions is None else np.array(actions),
        rewards=np.zeros(steps, np.float32),
        terminated=True,
        truncated=False,
        behaviour_probability=np.array(probability, np.float32),
        action_mask=None if masks is None else np.array(masks, np.bool_),
    )


def opened(folder, episodes, **settings):
    spec = replace(SPEC, action_masks=True) if episodes[0].action_mask is not None else SPEC
    save_frames(folder, [episodes], spec)
    return open_replay(folder, progress=False, **settings)


def test_probabilities_of_a_behaviour_that_explores_count(tmp_path):
    replay = opened(tmp_path, [episode([0.25, 1.0]), episode([0.5, 0.75])])
    found = logged_behaviour(replay)
    assert isinstance(found, LoggedBehaviour)
    assert found.reason is None
    assert found.probability.tolist() == [0.25, 1.0, 0.5, 0.75]


def test_those_of_the_part_are_read(tmp_path):
    episodes = [episode([0.5, 0.5]), episode([np.nan, 0.5]), episode([0.25, 0.25])]
    replay = opened(tmp_path, episodes, held_out=0.34)
    parts = [replay, replay.held_out()]
    assert sorted(part.reason is None for part in map(logged_behaviour, parts)) == [False, True]


@pytest.mark.parametrize(
    ("episodes", "reason"),
    [
        ([[1.0, 1.0], [1.0, 1.0]], "2 of 2 episodes are logged with probability 1 at every step: a behaviour that"),
        ([[1.0, 1.0], [0.5, 0.5]], "1 of 2 episodes are logged with probability 1"),
        ([[0.5, np.nan], [0.5, 0.5]], r"1 of 4 logged actions have no probability \(NaN\)"),
    ],
)
def test_probabilities_that_say_nothing_have_a_reason(tmp_path, episodes, reason):
    found = logged_behaviour(opened(tmp_path, [episode(each) for each in episodes]))
    assert found.probability is None
    assert np.char.startswith(found.reason, reason.replace("\\", ""))


def test_data_without_probabilities_has_a_reason(tmp_path):
    found = logged_behaviour(opened(tmp_path, [replace(episode([0.5]), behaviour_probability=None)]))
    assert found == LoggedBehaviour(None, "the data has no behaviour probabilities")


def test_one_certain_episode_in_a_hundred_counts_as_exploring(tmp_path):
    replay = opened(tmp_path, [episode([1.0])] + [episode([0.5])] * 99)
    assert logged_behaviour(replay).reason is None


def test_where_one_action_only_is_legal_its_probability_of_1_is_no_reason(tmp_path):
    forced, free = [True, False, False], [True, True, False]
    replay = opened(tmp_path / "forced", [episode([1.0, 0.5], masks=[forced, free])] * 2)
    assert logged_behaviour(replay).reason is None
    replay = opened(tmp_path / "free", [episode([1.0, 1.0], masks=[forced, free])] * 2)
    assert logged_behaviour(replay).reason.startswith("2 of 2 episodes")


def test_a_logged_action_of_probability_0_is_refused(tmp_path):
    replay = opened(tmp_path, [episode([0.5, 0.5]), episode([0.5, 0.0])])
    with pytest.raises(DatasetError, match="is 0 for the action taken in episode 1, and .* at 1 tr"):
        logged_behaviour(replay)


# Calibration.


def test_temperature_by_hand():
    """Logits 0 and log 9, the second action taken 3 times of 4: softmax must be 1/4 and 3/4, so T = log 9 / log 3."""
    logits = np.array([[0.0, np.log(9)]] * 4)
    assert fit_temperature(logits, np.array([0, 1, 1, 1])) == pytest.approx(2.0)
    masked = np.hstack([logits, np.full((4, 1), -np.inf)])
    assert fit_temperature(masked, np.array([0, 1, 1, 1])) == pytest.approx(2.0)
    assert softmax(masked / 2.0)[0] == pytest.approx([0.25, 0.75, 0.0])


def test_temperature_stays_in_its_limits():
    logits = np.array([[0.0, 1.0]] * 2)
    assert fit_temperature(logits, np.array([1, 1])) == pytest.approx(1 / 20)
    assert fit_temperature(logits, np.array([0, 0])) == pytest.approx(20)
    assert fit_temperature(np.zeros((2, 2)), np.array([0, 1])) == 1


def test_temperature_undoes_what_made_a_model_too_sure():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(20_000, 4))
    action = (generator.random(20_000)[:, None] > softmax(logits).cumsum(axis=1)).sum(axis=1)
    assert fit_temperature(3 * logits, action) == pytest.approx(3, rel=0.05)
    assert expected_calibration_error(softmax(logits), action) < 0.02 < 0.1
    assert expected_calibration_error(softmax(3 * logits), action) > 0.1


def test_likelihood_and_calibration_error_by_hand():
    probabilities = np.array([[0.5, 0.5, 0.0], [0.1, 0.9, 0.0], [0.1, 0.9, 0.0], [0.0, 0.0, 1.0]])
    action = np.array([1, 1, 0, 2])
    assert negative_log_likelihood(probabilities, action) == pytest.approx(-np.log(0.5 * 0.9 * 0.1) / 4)
    # Bins of 0.5 (taken 0 of 1), 0.9 (1 of 2) and 1.0 (1 of 1).
    assert expected_calibration_error(probabilities, action) == pytest.approx((0.5 + 2 * 0.4 + 0.0) / 4)


# The fitted model.


def explored(num_episodes, *, masked=False, steps=20, seed=0):
    """Episodes of a softmax policy of the observation, and its probabilities [N, A] in their order."""
    generator = np.random.default_rng(seed)
    episodes, probabilities = [], []
    for _ in range(num_episodes):
        observations = generator.normal(size=(steps + 1, 4)).astype(np.float32)
        logits = 1.5 * observations[:-1, :3].astype(np.float64)
        legal = np.ones((steps, 3), np.bool_)
        if masked:
            legal[:, 2] = generator.random(steps) < 0.5  # which no observation tells
        chosen = softmax(np.where(legal, logits, -np.inf))
        actions = (generator.random(steps)[:, None] > chosen.cumsum(axis=1)).sum(axis=1)
        episodes.append(
            Episode(
                observations,
                actions,
                np.zeros(steps, np.float32),
                True,
                False,
                action_mask=legal if masked else None,
            )
        )
        probabilities.append(chosen)
    return episodes, np.concatenate(probabilities)


@pytest.mark.parametrize("masked", [False, True])
def test_the_model_finds_the_behaviours_probabilities(tmp_path, masked):
    episodes, true = explored(200, masked=masked)
    legal = {} if masked else {"legal_actions": [0, 1]}  # for a policy: the behaviour took others
    train = opened(tmp_path, episodes, held_out=0.3, sampling="top-returns:0.01", **legal)
    held_out = train.held_out()
    found = fit_behaviour(train, held_out, updates=100, learner=LearnerConfig(learning_rate=1e-3), device="cpu")
    assert isinstance(found, FittedBehaviour)
    true = true[held_out.rows]
    assert np.abs(found.probabilities - true).mean() < 0.05
    assert np.abs(true.mean(axis=0) - true).mean() > 0.15
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)
    if masked:
        assert (found.probabilities[~held_out.store.action_mask[held_out.rows]] == 0).all()
    taken = found.probabilities[np.arange(len(true)), held_out.store.actions[held_out.rows]]
    np.testing.assert_allclose(found.probability, np.maximum(taken, 1e-3), rtol=1e-6)
    before, after = found.negative_log_likelihood
    assert after < before + 0.005  # fitted on the other half, a temperature near 1 may cost a little
    assert found.calibration_error[1] < 0.06
    assert str(found).startswith("behaviour probabilities were fitted, not logged: temperatures ")


def test_halves_are_calibrated_on_each_other(tmp_path):
    """Episode by episode, the logits were divided by the temperature of the other half's transitions."""
    episodes, _ = explored(40)
    train = opened(tmp_path, episodes, held_out=0.5)
    held_out = train.held_out()
    sure = fit_behaviour(train, held_out, updates=200, learner=QUICK, floor=0.2, device="cpu")
    assert sure.temperatures[0] != sure.temperatures[1]
    assert min(sure.temperatures) > 1.05  # 400 transitions again and again: too sure
    assert sure.negative_log_likelihood[1] < sure.negative_log_likelihood[0]
    assert sure.calibration_error[1] < sure.calibration_error[0]
    assert sure.probability.min() == 0.2
    assert sure.raised == (sure.probability == 0.2).mean() > 0
    action = held_out.store.actions[held_out.rows]
    # log p scaled back by its temperature is the model's logits up to a constant of each row.
    is_second = np.zeros(20, np.bool_)
    is_second[np.random.default_rng(0).permutation(20)[10:]] = True
    in_second = np.repeat(is_second, 20)
    scale = np.where(in_second, sure.temperatures[1], sure.temperatures[0])[:, None]
    logits = np.log(sure.probabilities.astype(np.float64)) * scale
    for half, temperature in ((~in_second, sure.temperatures[0]), (in_second, sure.temperatures[1])):
        assert fit_temperature(logits[~half], action[~half]) == pytest.approx(temperature, rel=1e-3)
    again = fit_behaviour(train, held_out, updates=200, learner=QUICK, floor=0.2, device="cpu")
    np.testing.assert_array_equal(again.probability, sure.probability)


def test_what_would_leak_or_cannot_be_calibrated_is_refused(tmp_path):
    episodes, _ = explored(6, steps=2)
    whole, train = opened(tmp_path / "six", episodes), open_replay(tmp_path / "six", held_out=0.4, progress=False)
    with pytest.raises(ConfigError, match=r"held-out replay: held-out episodes are among the training episodes; .*"):
        fit_behaviour(whole, train.held_out(), updates=1)
    single = open_replay(tmp_path / "six", held_out=0.1, progress=False)
    with pytest.raises(ConfigError, match="fit_behaviour: one held-out episode; expected two or more"):
        fit_behaviour(single, single.held_out(), updates=1)
    masked, _ = explored(6, steps=2, masked=True)
    with pytest.raises(SpecMismatchError):
        fit_behaviour(train, opened(tmp_path / "masked", masked), updates=1)
    with pytest.raises(ConfigError, match=r"fit_behaviour.floor: 1; expected a number in \[0, 1\)"):
        fit_behaviour(train, train.held_out(), updates=1, floor=1)
    no_part = "None; expected a Replay over a store; open the data with held_out=0.2, say"
    with pytest.raises(ConfigError, match=f"fit_behaviour.held_out: {no_part}"):
        fit_behaviour(whole, whole.held_out(), updates=1)
    with pytest.raises(ConfigError, match=f"logged_behaviour: {no_part}"):
        logged_behaviour(whole.held_out())


@pytest.mark.parametrize(
    ("num_legal", "likeliest", "floor"),
    [
        (2, 0.9, 0.05),
        (10, 0.1, 0.05),  # also where all are equally likely
        (25, 0.0, 0.02),  # what is not known: half an equal share
        (25, 0.34, 0.034),
        (25, 0.04, 0.02),  # all equally likely, and supported
        (25, 0.9, 0.05),
    ],
)
def test_what_the_behaviour_takes_too_rarely_is_not_supported(num_legal, likeliest, floor):
    assert support_floor(np.array([num_legal]), np.array([likeliest])) == pytest.approx([floor])
