"""`offrl.estimate` on a task whose values anybody can compute, and what it refuses or warns of."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from naive_replay import save_frames
from two_rooms import POLICIES, SPEC, VALUES, two_rooms

import offrl
from offrl import TaskSpec
from offrl.errors import ConfigError, RunError
from offrl.ope import ESTIMATORS, Estimated, Estimates, OpeConfig, Steps, estimate_each
from offrl.ope._parts import parts_of
from offrl.ope.fitted_values import fitting_gap
from offrl.ope.intervals import Estimate
from offrl.ope.judgement import verdict
from offrl.replay import Replay, open_replay
from offrl.report.ope_page import ope_section
from offrl.shards import Episode
from offrl.statistics import Interval

QUICK = {"updates": 500, "batch_size": 64, "learning_rate": 3e-3, "refits": 2, "resamples": 200}


@pytest.fixture(autouse=True, scope="module")
def nothing_waits_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("offrl.system.files.sync", lambda path: None)
        yield


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    replay = two_rooms(tmp_path_factory.mktemp("rooms"), held_out=0.5)
    return estimate_each(POLICIES, replay, OpeConfig(**QUICK), device="cpu", progress=False)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_finds_the_value(found, name, estimator):
    row = found[name][estimator]
    value = row.estimate.value
    assert value.low - 0.03 <= VALUES[name][0] <= value.high + 0.03
    assert "do not use" not in row.remark


def test_the_difference_is_to_the_behaviour_which_is_the_uniform_policy(found):
    same = found["uniform"]["is"].estimate
    assert same.difference.mean == same.difference.low == same.difference.high == 0  # the same weights of 1
    better = found["always 0"]["wdr"].estimate.difference
    assert better.low > 0
    assert found["always 1"]["wdr"].estimate.difference.high < 0


def test_what_it_rests_on(found):
    of_uniform, of_one = found["uniform"], found["always 0"]
    assert isinstance(of_uniform, Estimates)
    assert isinstance(of_uniform["fqe"], Estimated)
    assert (of_uniform.held_out, of_uniform.training) == (150, 150)
    assert of_uniform["is"].effective_size == pytest.approx(150)
    assert 20 < of_one["is"].effective_size < 60  # a quarter of the episodes is what it would have done
    assert of_uniform["fqe"].effective_size is None
    assert (of_uniform["fqe"].refits, of_uniform["is"].refits) == (2, 0)
    assert of_uniform.support == pytest.approx(1)
    assert of_uniform.behaviour_source == "logged"


def test_it_can_be_read_by_people_and_programs(found):
    text = found["always 0"].to_text()
    assert "150 held out, on which values are read; 150 to fit models on" in text
    assert [line.split()[0] for line in text.splitlines() if line.split()[:1] and line.split()[0] in ESTIMATORS] == [
        *ESTIMATORS
    ]
    data = json.loads(json.dumps(found["always 0"].to_dict(), allow_nan=False))
    assert [each["estimator"] for each in data["estimates"]] == [*ESTIMATORS]
    assert data["split"] == {"held_out": 0.5, "split_seed": 0}


def test_the_same_seed_gives_the_same_numbers(tmp_path):
    replay = two_rooms(tmp_path, 40, held_out=0.5)
    # What a policy may learn from it says nothing of the behaviour.
    confined = Replay(replay.store, held_out=0.5, discount=replay.config.discount, legal_actions=[0])
    config = OpeConfig(**{**QUICK, "updates": 20})
    first, second, third = (
        offrl.estimate(POLICIES["uniform"], each, config, device="cpu", progress=False).to_dict()
        for each in (replay, replay, confined)
    )
    assert first == second
    assert first == third


def test_a_behaviour_that_says_nothing_is_fitted_with_a_warning_or_refused(tmp_path):
    replay = two_rooms(tmp_path, 60, held_out=0.5)
    replay.store.behaviour_probability[:] = 1
    config = {**QUICK, "updates": 200, "estimators": ["wis"]}
    found = offrl.estimate(POLICIES["always 0"], replay, OpeConfig(**config), device="cpu", progress=False)
    assert found.behaviour_source.startswith("fitted, not logged (30 of 30 episodes are logged with probability 1")
    assert any("probabilities were fitted" in warning for warning in found.warnings)
    assert found["wis"].estimate.value.mean == pytest.approx(0.9, abs=0.1)
    with pytest.raises(ConfigError, match="say nothing: 30 of 30 episodes.*take fitted ones"):
        offrl.estimate(POLICIES["always 0"], replay, OpeConfig(**config, behaviour="logged"), progress=False)


def test_where_the_log_cuts_episodes_fitted_values_are_compared_with_the_behaviours_own(tmp_path):
    # Two steps of the uniform behaviour: 0.5 * 0.3 + 0.25 * 0.9 = 0.375; never cut it is worth 0.47. The last action of
    # a cut episode counts once more, which takes 0.03 off.
    replay = two_rooms(tmp_path, 600, longest=2, held_out=0.5)
    settings = OpeConfig(**QUICK | {"updates": 1500}, estimators=["fqe", "is"])
    found = offrl.estimate(POLICIES["uniform"], replay, settings, device="cpu", progress=False)
    assert found.behaviour.mean == pytest.approx(0.375, abs=0.05)
    assert found.behaviour_fitted.mean == pytest.approx(0.44, abs=0.05)
    assert found["fqe"].estimate.value.mean == pytest.approx(VALUES["uniform"][0], abs=0.05)
    assert found["fqe"].estimate.behaviour == found.behaviour_fitted
    assert found["fqe"].estimate.difference.mean == pytest.approx(0.03, abs=0.04)
    assert found["is"].estimate.difference.mean == pytest.approx(0, abs=1e-9)  # both end where the log does
    assert "by fitted Q, beyond where the log is cut, too" in found.to_text()
    whole = two_rooms(tmp_path / "whole", 20, held_out=0.5)
    assert offrl.estimate(POLICIES["uniform"], whole, OpeConfig(**QUICK), progress=False).behaviour_fitted is None


def test_without_held_out_episodes_nothing_is_estimated(tmp_path):
    replay = two_rooms(tmp_path, 5)
    for given in (replay, "data/here"):
        with pytest.raises(ConfigError, match="no held-out episodes.*held_out=0.2"):
            offrl.estimate(POLICIES["uniform"], given)
    with pytest.raises(ConfigError, match="no policies"):
        estimate_each({}, replay)


def test_cut_episodes_few_episodes_and_clipping_are_named(tmp_path):
    replay = two_rooms(tmp_path, 20, longest=1, held_out=0.5)
    config = OpeConfig(**{**QUICK, "estimators": ["is"], "clip": 1.0})
    warnings = offrl.estimate(POLICIES["always 0"], replay, config, progress=False).warnings
    assert any("cuts" in each and "miss what would have come after" in each for each in warnings)
    assert any("Only 10 held-out episodes: the intervals are wide" in each for each in warnings)
    assert any("Weights above 1 are cut" in each for each in warnings)
    like_the_behaviour = offrl.estimate(POLICIES["uniform"], replay, config, progress=False).warnings
    assert not any("are cut:" in each for each in like_the_behaviour)  # all weights are 1


def test_whether_a_cut_counts_is_asked_of_each_episode(tmp_path):
    """Of a short episode and a very long one it is the short one that would have gone on to something."""
    ended = {"terminated": False, "truncated": True}
    short, long = (
        Episode(np.zeros((steps + 1, 2), np.float32), np.zeros(steps, np.int64), np.zeros(steps, np.float32), **ended)
        for steps in (10, 1000)
    )
    for episodes, counted in (([short, long] * 2, 2), ([long] * 4, 0)):  # 0.99**10 is 0.90, 0.99**1000 4e-5
        save_frames(tmp_path / str(counted), [episodes], SPEC)
        replay = open_replay(tmp_path / str(counted), progress=False, held_out=0.5, discount=0.99)
        assert parts_of(replay, OpeConfig()).num_cut == counted


def test_among_many_equally_likely_actions_each_one_is_supported(tmp_path):
    """Bandit data of 25 offers, shown with probability 0.04 each."""
    replay = bandit(tmp_path, np.full(400, 0.04), num_actions=25)
    config = OpeConfig(estimators=["wis"], resamples=100)
    found = offrl.estimate(lambda seen: np.full((len(seen), 25), 0.04), replay, config, progress=False)
    assert found.support == pytest.approx(1)
    assert found.warnings == ()


def test_probabilities_that_do_not_fit_the_actions_are_named(tmp_path):
    """Two actions, taken equally often, and logged with 0.1: 1 / 0.1 is more than their number."""
    replay = bandit(tmp_path / "wrong", np.full(400, 0.1), num_actions=2)
    config = OpeConfig(estimators=["is"], resamples=100)
    found = offrl.estimate(lambda seen: np.zeros(len(seen), np.int64), replay, config, progress=False)
    assert found["is"].estimate.value.mean > 3  # no more than 1 is possible
    assert any("1 / probability is 10.0 on average, where at most 2.0" in each for each in found.warnings)


def test_logged_probabilities_are_taken_when_asked_for_where_some_episodes_are_certain(tmp_path):
    certain = np.arange(400) % 4 == 0
    replay = bandit(tmp_path, np.where(certain, 1.0, 0.5), num_actions=2)
    config = OpeConfig(estimators=["wis"], resamples=100, behaviour="logged")
    found = offrl.estimate(lambda seen: np.zeros(len(seen), np.int64), replay, config, progress=False)
    assert found.behaviour_source == "logged"
    (said,) = found.warnings
    assert "of 200 episodes are logged with probability 1 at every step" in said


def bandit(folder, probabilities, num_actions):
    """Episodes of one step with these logged probabilities, uniformly random actions, and reward 1."""
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            np.zeros((2, 2), np.float32),
            rng.integers(num_actions, size=1),
            np.ones(1, np.float32),
            terminated=True,
            truncated=False,
            behaviour_probability=np.array([each], np.float32),
        )
        for each in probabilities
    ]
    save_frames(folder, [episodes], TaskSpec.vector(2, [f"offer {number}" for number in range(num_actions)]))
    return open_replay(folder, progress=False, held_out=0.5, discount=0.0)


def test_a_policy_of_a_run_is_judged_on_what_that_run_held_out(tmp_path):
    replay = two_rooms(tmp_path / "data", held_out=0.4)
    training = offrl.FitConfig(updates=2, batch_size=8)
    fit = {"learner": offrl.LearnerConfig(precision="fp32", compile="off"), "loggers": []}
    offrl.fit(offrl.DQN(SPEC), replay, training, run=tmp_path / "run", **fit)
    policy = offrl.load(tmp_path / "run", threshold=0.0)
    quick = OpeConfig(estimators=("is",), resamples=100)
    assert offrl.estimate(policy, replay, quick, progress=False).held_out > 0
    other = Replay(replay.store, held_out=0.4, split_seed=7)
    for judged in (policy, policy.with_threshold(0.5)):
        with pytest.raises(
            ConfigError, match=r"policy: was trained on episodes that held_out=0.4 and split_seed=7 hold"
        ):
            offrl.estimate(judged, other, quick, progress=False)
    offrl.fit(offrl.DQN(SPEC), Replay(replay.store), training, run=tmp_path / "greedy", **fit)
    with pytest.raises(ConfigError, match="was trained on all episodes"):
        offrl.estimate(offrl.load(tmp_path / "greedy"), replay, quick, progress=False)


def test_where_hardly_an_episode_agrees_wdr_has_no_interval(tmp_path):
    replay = two_rooms(tmp_path, 16, held_out=0.5)  # of the 8 two agree with the policy
    found = offrl.estimate(POLICIES["always 0"], replay, OpeConfig(**QUICK), device="cpu", progress=False)
    row = found["wdr"]
    assert row.effective_size < 10
    assert row.estimate.value.low is row.estimate.difference.low is None
    assert row.remark.endswith("of 8 episodes: do not use")
    assert found["fqe"].estimate.value.low is not None


def test_the_history_is_that_of_the_settings(tmp_path):
    replay = two_rooms(tmp_path, 200, held_out=0.5)
    short, long = (
        offrl.estimate(POLICIES["always 0"], replay, OpeConfig(**QUICK, history=history), device="cpu", progress=False)
        for history in (1, 1_000)
    )
    assert long["phdr"].estimate == long["wdr"].estimate == short["wdr"].estimate != short["phdr"].estimate


def test_without_a_discount_fits_are_kept_too(tmp_path):
    """Values have no bounds then, which JSON could not hold as infinities."""
    replay = two_rooms(tmp_path / "data", 20, held_out=0.5)
    config = OpeConfig(**{**QUICK, "updates": 3, "estimators": ["fqe"], "discount": 1.0})
    first, again = (
        offrl.estimate(POLICIES["uniform"], replay, config, fits=tmp_path / "fits", device="cpu", progress=False)
        for _ in range(2)
    )
    assert first.to_dict() == again.to_dict()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"estimators": ["fqe", "magic"]}, "one or more of fqe, phdr, wdr"),
        ({"estimators": "fqe"}, "one or more of fqe, phdr, wdr"),
        ({"estimators": [["fqe"]]}, "one or more of fqe, phdr, wdr"),
        ({"discount": 1.5}, "a number in"),
        ({"behaviour": "guessed"}, "behaviour"),
        ({"updates": 0}, "updates"),
        ({"refits": 0}, "refits"),
        ({"refit_best": 0}, "refit_best"),
        ({"clip": 0}, "a number over 0, or None"),
        ({"resamples": 10}, "resamples"),
        ({"learning_rate": -1}, "a number over 0"),
    ],
)
def test_settings_outside_what_is_allowed(wrong, said):
    with pytest.raises(ConfigError, match=said):
        OpeConfig(**wrong)


def test_support_that_is_an_estimate_says_so():
    interval = Interval(10.0, 10.0, 10.0)
    estimate = Estimate(interval, interval, interval, 0)

    def said(support, most, gap=0.0):
        return verdict("fqe", estimate, None, 900, support=support, most_support=most, gap=gap)

    assert said(0.2, 0.4).startswith("at least 60% of the policy's actions are hardly in the data: ")
    assert (
        said(0.2, 0.6) == "about 80% of the policy's actions, of few that tell, are hardly in the data: a rough number"
    )
    assert said(0.2, 0.6, gap=50.0).startswith("held-out steps show values about 50.00 too low: do not use")
    assert said(0.6, 0.9) == ""


HARDLY = "hardly any held-out episode could have come from this policy: do not use"


@pytest.mark.parametrize(
    ("estimator", "mean", "undefined", "size", "support", "gap", "said"),
    [
        ("wis", 1.0, 0, 3.0, 1.0, 0.0, "effective sample size 3.0 of 900 episodes: do not use"),
        ("wis", 1.0, 0, 20.0, 1.0, 0.0, "effective sample size 20.0 of 900 episodes: a rough number"),
        ("wis", 1.0, 0, 31.0, 1.0, 0.0, ""),
        ("wis", 1.0, 5, 31.0, 1.0, 0.0, "undefined in 5 of 1,000 resamples, so no interval: a rough number"),
        ("wis", 1.0, 5, 3.0, 1.0, 0.0, "effective sample size 3.0 of 900 episodes: do not use"),
        ("wis", math.nan, 1000, 0.0, 1.0, 0.0, HARDLY),
        ("is", math.inf, 1000, 900.0, 1.0, 0.0, "the weights leave the range of floating point: do not use"),
        ("fqe", math.nan, 0, None, 1.0, 0.0, HARDLY),
        ("wdr", 1.0, 0, 3.0, 0.9, 0.0, "effective sample size 3.0 of 900 episodes: do not use"),
        ("dr", 1e42, 0, 3.0, 0.9, 0.0, "effective sample size 3.0 of 900 episodes: do not use"),
        ("dr", 1.0, 0, 0.0, 0.9, 0.0, "effective sample size 0.0 of 900 episodes: do not use"),
        ("dr", 1.0, 0, 11.0, 0.9, 5.0, ""),
        ("fqe", 1.0, 0, None, 0.4, 0.0, "60% of the policy's actions are hardly in the data: their values"),
        ("dr", 1.0, 0, 31.0, 0.4, 0.0, "60% of the policy's actions are hardly in the data: their values"),
        ("fqe", 1.0, 0, None, 0.9, 0.2, "held-out steps show values about 0.2000 too low: do not use"),
        ("fqe", 0.0, 0, None, 0.9, -0.2, ""),  # of a behaviour worth 3
        ("fqe", 0.0, 0, None, 0.9, -0.4, "held-out steps show values about 0.4000 too high: do not use"),
    ],
)
def test_in_words_what_not_to_use(estimator, mean, undefined, size, support, gap, said):
    interval = Interval(mean, mean, mean)
    behaviour = Interval(3.0 if mean == 0 else 1.0, None, None)
    estimate = Estimate(interval, behaviour, interval, undefined)
    found = verdict(estimator, estimate, size, 900, support=support, gap=gap)
    assert found.startswith(said)
    assert (found == "") == (said == "")


@pytest.mark.parametrize(
    ("covered", "size", "said"),
    [
        (None, 9.9, "effective sample size 9.9 of 900 episodes: do not use"),
        (0.6, 4.9, "effective sample size 4.9 of 900 episodes: do not use"),
        (0.6, 5.1, ""),
        (0.4, 5.1, "at 60% of the steps nothing agrees with the policy for so long: do not use"),
    ],
)
def test_weights_of_the_latest_decisions_take_fewer_episodes_and_cover_the_steps(covered, size, said):
    interval = Interval(1.0, 0.5, 1.5)
    estimate = Estimate(interval, interval, interval, 0)
    assert verdict("phdr", estimate, size, 900, support=1.0, gap=0.9, covered=covered) == said


@pytest.mark.parametrize(("agreeing", "is_told"), [(30, True), (90, False)])
def test_where_hardly_a_step_is_corrected_it_is_said(tmp_path, agreeing, is_told):
    """All 40 episodes do what the policy does for so many of their 100 steps, and then never again."""
    same = Episode(
        observations=np.zeros((101, 2), np.float32),
        actions=np.where(np.arange(100) < agreeing, 0, 1),
        rewards=np.ones(100, np.float32),
        terminated=True,
        truncated=False,
        behaviour_probability=np.full(100, 0.5, np.float32),
    )
    save_frames(tmp_path, [[same] * 40], SPEC)
    replay = open_replay(tmp_path, held_out=0.5, discount=0.99, progress=False)
    config = OpeConfig(**{**QUICK, "updates": 3, "estimators": ["fqe", "phdr"]})
    row = offrl.estimate(POLICIES["always 0"], replay, config, device="cpu", progress=False)["phdr"]
    assert row.effective_size == pytest.approx(20)
    assert ("of the steps nothing agrees" in row.remark) == is_told


def test_resamples_that_overflow_are_no_lack_of_episodes():
    interval = Interval(1e307, None, None)
    estimate = Estimate(interval, Interval(1.0, 0.5, 1.5), interval, 7, infinite=4)
    found = verdict("dr", estimate, 31.0, 900, support=1.0, resamples=200)
    assert found == "the weights leave the range of floating point in 4 of 200 resamples: do not use"


def test_small_and_large_values_can_be_read():
    """Click-through rates, and weights that have run away."""
    rate, lift = Interval(0.0021, 0.0012, 0.00345), Interval(-0.00004, -0.0009, 0.0012)
    wild = Interval(9.1234e40, None, None)
    rows = (
        Estimated("wis", Estimate(rate, rate, lift, 0), 80.0, 0, 0, ""),
        Estimated("dr", Estimate(wild, rate, wild, 0), 1.0, 0, 0, "do not use"),
    )
    found = Estimates("mine", 0.0, 900, 100, {}, rate, None, "logged", 1.0, rows, ())
    lines = [" ".join(line.split()) for line in found.to_text().splitlines()]
    assert "wis 0.002100 0.001200 to 0.003450 -0.000040 [-0.000900 to +0.001200] 80.0" in lines
    assert "dr 9.123e+40 +9.123e+40 1.0" in lines
    assert "0.002100 [0.001200 to 0.003450], as logged" in found.to_text()
    page = ope_section(found.to_dict(), where=Path("ope.json"))
    for shown in ("0.002100", "0.001200 to 0.003450", "-0.000040 [-0.000900 to +0.001200]", "9.123e+40", "+9.123e+40"):
        assert f">{shown}<" in page


def test_a_file_is_judged_with_a_warning(tmp_path):
    replay = two_rooms(tmp_path / "data", 20, held_out=0.5)
    offrl.export_onnx(offrl.DQN(SPEC), tmp_path / "policy.onnx", contract="uint8")
    policies = {"file": offrl.OnnxPolicy(tmp_path / "policy.onnx"), "network": offrl.TorchPolicy(offrl.DQN(SPEC))}
    found = estimate_each(policies, replay, OpeConfig(estimators=["is"], resamples=100), progress=False)
    said = "An ONNX file does not say what it was trained on: if on these episodes, the values flatter it."
    assert [said in found[name].warnings for name in policies] == [True, False]


def test_the_held_out_part_is_not_the_whole_replay(tmp_path):
    replay = two_rooms(tmp_path, 6, held_out=0.5)
    said = "estimate.replay: the held-out episodes alone; .*; pass the replay that you called held_out"
    with pytest.raises(ConfigError, match=said):
        offrl.estimate(POLICIES["uniform"], replay.held_out())


def test_a_fit_that_has_not_ended_is_named(tmp_path):
    replay = two_rooms(tmp_path, 300, held_out=0.5)
    config = OpeConfig(**{**QUICK, "updates": 3, "estimators": ["fqe"]})
    row = offrl.estimate(POLICIES["always 0"], replay, config, device="cpu", progress=False)["fqe"]
    assert row.remark.startswith("held-out steps show values about")
    assert "too low: do not use, take more updates" in row.remark
    value = row.estimate.value
    assert value.low < value.mean < 1 < value.high  # it reaches to where the steps point


def test_what_rests_on_few_episodes_has_no_interval_and_one_fit_is_named(tmp_path):
    replay = two_rooms(tmp_path, 16, held_out=0.5)
    config = OpeConfig(**{**QUICK, "updates": 20, "refits": 1})
    found = offrl.estimate(POLICIES["always 0"], replay, config, device="cpu", progress=False)
    for name in ("dr", "is", "wis", "pdis", "wpdis"):
        assert found[name].effective_size < 10
        assert found[name].estimate.value[1:] == found[name].estimate.difference[1:] == (None, None)
    assert found["fqe"].estimate.value.low is None
    assert any("fitted once" in each for each in found.warnings)


def test_what_was_fitted_is_kept_and_not_fitted_again(tmp_path, monkeypatch):
    replay = two_rooms(tmp_path / "data", 40, held_out=0.5)
    config = OpeConfig(**{**QUICK, "updates": 30, "behaviour": "fitted"})
    asked = {"device": "cpu", "progress": False}
    whole = offrl.estimate(POLICIES["always 0"], replay, config, **asked)
    fits = tmp_path / "fits"
    offrl.estimate(POLICIES["always 0"], replay, replace(config, refits=1), fits=fits, **asked)  # and then it stopped
    counts, update = [], offrl.training.Learner.update
    monkeypatch.setattr(offrl.training.Learner, "update", lambda *given: counts.append(1) or update(*given))
    for updates in (30, 30):  # the second fit's, and then none
        assert offrl.estimate(POLICIES["always 0"], replay, config, fits=fits, **asked) == whole
        assert len(counts) == updates
    assert sorted(path.name for path in fits.iterdir()) == ["behaviour", "fitted-q-1", "fitted-q-2"]
    with pytest.raises(RunError, match="behaviour: a fit of 30 updates; expected 40; name a new directory"):
        offrl.estimate(POLICIES["always 0"], replay, replace(config, updates=40), fits=fits, **asked)
    assert offrl.estimate(POLICIES["always 0"], replay, config, fits=fits, **asked) == whole
    with pytest.raises(RunError, match="policies"):
        offrl.estimate(POLICIES["always 1"], replay, config, fits=fits, **asked)


def test_the_best_few_are_refitted_and_alone_have_intervals(tmp_path):
    replay = two_rooms(tmp_path, 100, held_out=0.5)
    settings = {**QUICK, "updates": 200, "estimators": ["fqe"]}
    every = estimate_each(POLICIES, replay, OpeConfig(**settings), device="cpu", progress=False)
    few = estimate_each(POLICIES, replay, OpeConfig(**settings, refit_best=1), device="cpu", progress=False)
    once = estimate_each(POLICIES, replay, OpeConfig(**settings | {"refits": 1}), device="cpu", progress=False)
    best = max(VALUES, key=lambda name: VALUES[name][0])
    for name in POLICIES:
        row = few[name]["fqe"]
        assert row.refits == (2 if name == best else 1)
        if name == best:
            assert row.estimate.value.low is not None
            # The refit is of this policy alone, so that its network is another one than that of a refit of all.
            assert row.estimate.value.mean == pytest.approx(every[name]["fqe"].estimate.value.mean, abs=0.1)
        else:
            assert row.estimate.value == once[name]["fqe"].estimate.value


def test_the_gap_of_two_episodes_by_hand():
    reward, value = np.array([[1.0, 1.0], [1.0, 0.0]]), np.array([[2.0, 1.0], [2.0, 0.0]])
    steps = Steps(reward, np.ones((2, 2)), np.array([2, 1]), 0.5, q=value, value=value, end_value=np.array([0.0, 0.5]))
    # Errors: 1 + 0.5 * 1 - 2 = -0.5 and 1 - 1 = 0, then 1 + 0.5 * 0.5 - 2 = -0.75: mean -1.25 / 3, for 1 + 0.5 steps of
    # the first and, as it is cut, 1 / (1 - 0.5) of the second. The sums of -0.5 and -0.75 are +1/3 and -1/3 from
    # mean * length: a deviation of sqrt(2 / 9) / 3 = 0.16.
    assert fitting_gap(steps) == pytest.approx(-1.25 / 3 * (1.5 + 2) / 2)
    # Without a discount all steps count alike: errors of -1 and -1, then -1.5.
    assert fitting_gap(replace(steps, discount=1.0, q=value + 1)) == pytest.approx(-3.5 / 3 * (2 + 1) / 2)
    assert fitting_gap(replace(steps, q=value - np.array([[0.5, 0.0], [0.75, 0.0]]))) == 0


def test_the_gap_of_bandit_data_is_the_mean_error_whatever_the_discount():
    reward = np.array([[1.0], [2.0], [1.0], [2.0]])
    value, once = np.full((4, 1), 1.0), np.ones((4, 1))
    steps = Steps(reward, once, np.ones(4, int), 0.99, q=value, value=value, end_value=np.zeros(4))
    assert fitting_gap(steps) == pytest.approx(0.5)  # not 50: nothing comes after


def test_an_undefined_number_is_none_for_programs(tmp_path):
    replay = two_rooms(tmp_path, 6, held_out=0.5)
    config = OpeConfig(**{**QUICK, "estimators": ["wis"]})

    def never_as_logged(observations):  # in no episode both steps are as logged
        return np.where(np.arange(len(observations)) % 2 == 0, 1 - np.roll(observations[:, 0], 0), 0).astype(np.int64)

    found = offrl.estimate(never_as_logged, replay, config, progress=False)
    data = json.dumps(found.to_dict(), allow_nan=False)
    assert "NaN" not in data
