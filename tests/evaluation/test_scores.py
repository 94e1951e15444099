from dataclasses import replace

import pytest

from offrl.errors import ConfigError
from offrl.evaluation import Evaluation, Sweep

LAPS = Evaluation(
    seeds=(7, 8, 9),
    scores=(10.0, 40.0, 10.0),
    lengths=(1, 2, 3),
    finished=(False, True, False),
    versions={"torch": "2"},
)
FIVE = Evaluation(seeds=(1, 2, 3, 4, 5), scores=(10.0, 40.0, 10.0, 10.0, 30.0), lengths=(1, 2, 3, 4, 5))


def test_summary_by_hand():
    summary = LAPS.to_dict()
    assert (summary["mean"], summary["median"], summary["mean_length"]) == (20, 10, 2)
    assert (summary["finished"], summary["finished_share"]) == (1, 1 / 3)
    assert summary["standard_deviation"] == pytest.approx(200**0.5)
    assert summary["versions"] == {"torch": "2"}
    assert summary["per_episode"][1] == {"seed": 8, "score": 40, "length": 2, "finished": True}
    assert (LAPS.best, LAPS.worst) == (8, 7)
    assert summary["interval_95"] is None  # of three episodes
    assert LAPS.mean == (20, None, None)
    low, high = FIVE.to_dict()["interval_95"]
    assert 10 <= low < 20 < high < 40
    # Of 0, 10, ..., 100 exactly one in ten lies below 10.
    assert Evaluation(tuple(range(11)), tuple(range(100, -1, -10)), (1,) * 11).percentile_10 == 10


def test_the_table_by_hand():
    assert LAPS.to_text().splitlines() == [
        "seed  score  steps       lap",
        "   7   10.0      1         -",
        "   8   40.0      2  finished",
        "   9   10.0      3         -",
        "",
        "episodes            3, seeds 7 to 9",
        "mean score          20.0, 3 episodes: too few for an interval",
        "standard deviation  14.1",
        "median score        10.0",
        "10th percentile     10.0",
        "mean length         2.0 steps",
        "finished laps       1 of 3 (33%)",
        "versions            torch 2",
    ]
    assert "mean score          20.0, 95 % interval 10.0 to " in FIVE.to_text()
    bare = replace(LAPS, finished=(), versions={})
    assert "lap" not in bare.to_text()
    assert "finished_share" not in bare.to_dict()
    assert bare.finished_share is None


def test_paired_difference_by_hand():
    ours = Evaluation((1, 2), (10.0, 100.0), (1, 1))
    theirs = Evaluation((1, 2), (5.0, 95.0), (1, 1))
    assert ours.minus(theirs) == (5, None, None)
    better = replace(FIVE, scores=tuple(score + 5 for score in FIVE.scores))
    assert better.minus(FIVE) == (5, 5, 5)  # paired: the tracks' own difference cancels
    with pytest.raises(ConfigError, match="the evaluations' seeds differ"):
        ours.minus(Evaluation((1, 3), (5.0, 95.0), (1, 1)))
    with pytest.raises(ConfigError, match="minus: a int; expected an Evaluation"):
        ours.minus(3)


def test_a_sweep_is_compared_with_its_baseline():
    same = replace(FIVE, scores=(20.0,) * 5)
    sweep = Sweep({0.3: same, 0.1: replace(same, scores=(30.0,) * 5)}, baseline=0.3)
    assert sweep.differences == {0.3: (0, 0, 0), 0.1: (10, 10, 10)}
    entry = sweep.to_dict()["policies"]["threshold 0.1"]
    assert entry["minus_baseline"] == {"mean": 10, "interval_95": [10, 10]}
    assert (entry["threshold"], entry["mean"], entry["episodes"]) == (0.1, 30, 5)
    assert sweep.to_text().splitlines() == [
        "threshold  mean  95 % interval  median  10th percentile  steps  paired difference to 0.3",
        "      0.3  20.0   20.0 to 20.0    20.0             20.0    3.0                         -",
        "      0.1  30.0   30.0 to 30.0    30.0             30.0    3.0     +10.0, +10.0 to +10.0",
        "",
        "5 episodes, seeds 1 to 5",
    ]


def test_a_sweep_over_few_episodes_claims_no_interval():
    sweep = Sweep({0.3: LAPS, 0.1: replace(LAPS, scores=(20.0, 50.0, 20.0))}, baseline=0.3)
    assert sweep.to_dict()["policies"]["threshold 0.1"]["minus_baseline"] == {"mean": 10, "interval_95": None}
    assert sweep.to_text().splitlines() == [
        "threshold  mean  95 % interval  median  10th percentile  steps  laps  paired difference to 0.3",
        "      0.3  20.0        too few    10.0             10.0    2.0     1                         -",
        "      0.1  30.0        too few    20.0             20.0    2.0     1            +10.0, too few",
        "",
        "3 episodes, seeds 7 to 9",
        "3 episodes: too few for an interval",
    ]
