"""How often a policy would be taken if the held-out episodes were drawn again."""

import numpy as np
import pytest
from naive_replay import make_episode, make_spec, save_frames
from test_criteria import LOG, READING

from offrl import DiscreteBCQ
from offrl.replay import open_replay
from offrl.selection import CRITERIA, Candidate, Log, rank
from offrl.selection._drawn import Drawn
from offrl.selection._resampling import resamples
from offrl.selection.ranking import _first_in
from offrl.selection.reading import read_candidate

SECOND_FIRST_SECOND = Drawn(rows=np.array([2, 0, 1, 2]), episodes=np.array([1, 0, 1]))


def log_of(lengths, width=1):
    """One-step discounts of 1, and the number of its episode as each reward."""
    starts = np.cumsum([0, *lengths[:-1]])
    is_first = np.isin(np.arange(sum(lengths)), starts)
    return Log(
        action=np.zeros(sum(lengths), np.int64),
        reward=np.repeat(np.arange(len(lengths)), lengths).astype(np.float64),
        discount=np.ones(sum(lengths)),
        is_first=is_first,
    )


def test_statistics_of_episodes_that_are_drawn_again():
    reading, log = READING.take(SECOND_FIRST_SECOND), LOG.take(SECOND_FIRST_SECOND)
    found = {name: CRITERIA[name].function(reading, log) for name in ("agreement", "fqe", "sbv", "support")}
    # The policy takes action 0 throughout, which is logged in the second step of the first episode alone.
    assert found["agreement"] == pytest.approx(1 / 4)
    assert found["fqe"] == pytest.approx((3 + 1 + 3) / 3)
    assert found["sbv"] == pytest.approx((0 + 0.25 + 4 + 0) / 4)
    assert found["support"] == pytest.approx(3 / 4)  # 0.04 alone is too little
    # -7 + 0 in the first episode and 1 in each copy of the second.
    assert CRITERIA["discounted_advantage"].function(reading, log) == pytest.approx((1 - 7 + 1) / 3)


def test_resamples_hold_whole_episodes_in_order():
    lengths = [3, 1, 4, 2, 5]
    log = log_of(lengths)
    drawn = [*resamples(log, seed=0)]
    assert len(drawn) == 200
    for each in drawn:
        taken = log.take(each)
        assert taken.reward.tolist() == [number for number in each.episodes for _ in range(lengths[number])]
        assert taken.is_first.sum() == 5
    # In a resample of 5 an episode is missing with probability 0.8**5 = 0.33.
    missing = np.mean([0 not in each.episodes for each in drawn])
    assert missing == pytest.approx(0.8**5, abs=0.1)
    again = [*resamples(log, seed=0)]
    assert all((a.rows == b.rows).all() for a, b in zip(drawn, again, strict=True))
    assert any((a.rows[:1] != b.rows[:1]).any() for a, b in zip(drawn, resamples(log, seed=1), strict=True))


def test_few_episodes_are_not_drawn_again_and_long_logs_less_often():
    assert [*resamples(log_of([2, 3, 1, 1]), seed=0)] == []
    assert len([*resamples(log_of([50_000] * 5), seed=0)]) == 80


def test_who_is_first_in_resamples():
    more = [CRITERIA["agreement"]]
    # Two candidates in four resamples: the first is better, equal (half of it counts), worse, worse.
    again = np.array([[5.0, 3.0, 1.0, 1.0], [4.0, 3.0, 2.0, 9.0]])[:, :, None]
    assert _first_in(more, again) == [1.5 / 4, 2.5 / 4]
    # A resample in which a statistic is a number for none is left out.
    again[:, 3] = np.nan
    assert _first_in(more, again) == [0.5, 0.5]
    assert _first_in(more, np.full((2, 4, 1), np.nan)) == [None, None]
    assert _first_in(more, np.empty((2, 0))) == [None, None]
    # Mean ranks of 1.5 for both: which of them is taken says nothing of how sure that is.
    both = [CRITERIA["agreement"], CRITERIA["fqe"]]
    assert _first_in(both, np.array([[[1.0, 9.0]], [[2.0, 8.0]]])) == [0.5, 0.5]


def test_a_ranking_says_how_often_each_policy_would_be_taken(tmp_path):
    save_frames(tmp_path, [[make_episode(seed, 4, pixels=0) for seed in range(12)]], make_spec(pixels=0))
    replay = open_replay(tmp_path, progress=False, held_out=0.5).held_out()
    policies = [DiscreteBCQ(replay.spec, seed=seed).eval() for seed in range(3)]
    candidates = [Candidate(str(seed), lambda each=each: each) for seed, each in enumerate(policies)]
    found = rank(candidates, replay, [CRITERIA["agreement"]], progress=False)
    log = Log.of(replay)
    agrees = [
        next(iter(read_candidate(each, replay, [each.threshold], with_values=False))).action == log.action
        for each in policies
    ]
    firsts = np.zeros(3)
    for drawn in resamples(log, seed=0):
        of_each = [np.concatenate([agree.reshape(6, 4)[e] for e in drawn.episodes]).mean() for agree in agrees]
        best = np.array(of_each) == max(of_each)
        firsts += best / best.sum()
    shares = {each.name: each.first_in for each in found.policies}
    assert shares == {str(seed): pytest.approx(firsts[seed] / 200) for seed in range(3)}
    assert 0 < found.winner.first_in < 1
    assert found.to_text().splitlines()[0].endswith("first in")
    assert f"of 6 episodes and in {found.winner.first_in:.0%} of resamples of these" in found.reason()
    assert found.to_dict()["winner"]["first_in"] == found.winner.first_in
