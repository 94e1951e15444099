"""The numbers by which estimators of value are judged, on cases that can be checked by hand."""

import numpy as np
import pytest

from benchmarks.scoring.ranking import (
    binomial_interval,
    chosen_over_best,
    ranks,
    regret,
    spearman,
    spearman_interval,
)

TRUTH = np.array([10.0, 20.0, 30.0, 50.0])


def test_equal_values_share_their_ranks():
    np.testing.assert_array_equal(ranks(np.array([3.0, 1.0, 3.0, 2.0])), [3.5, 1, 3.5, 2])


def test_spearman_by_hand():
    # Ranks 2, 1, 3, 4 against 1, 2, 3, 4: 1 - 6 * (1 + 1) / (4 * 15) = 0.8.
    assert spearman(np.array([2.0, 1.0, 3.0, 4.0]), TRUTH) == pytest.approx(0.8)
    assert spearman(-TRUTH, TRUTH) == pytest.approx(-1)
    assert np.isnan(spearman(np.ones(4), TRUTH))


def test_the_interval_of_a_perfect_ranking_is_a_point():
    assert spearman_interval(TRUTH * 2, TRUTH) == pytest.approx((1, 1, 1))


def test_regret_is_a_share_of_the_range():
    estimates = np.array([4.0, 3.0, 2.0, 1.0])  # takes the worst first
    assert regret(estimates, TRUTH, 1) == 1
    assert regret(estimates, TRUTH, 3) == pytest.approx(0.5)  # 30 of 10 to 50
    assert regret(estimates, TRUTH, 4) == 0
    assert chosen_over_best(estimates, TRUTH) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Tables of Clopper and Pearson; 0 of n has the closed form 1 - 0.025 ** (1 / n).
    [(0, 10, 0, 1 - 0.025**0.1), (10, 10, 0.025**0.1, 1), (5, 10, 0.1871, 0.8129), (90, 100, 0.8238, 0.9510)],
)
def test_the_binomial_interval_of_tables(successes, trials, low, high):
    assert binomial_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_intervals_of_all_sets_are_counted_together(hooks):
    from benchmarks.pages.offline import _pooled

    def result(**fqe):
        every = ("fqe", "phdr", "wdr", "dr", "wpdis", "pdis", "wis", "is")
        return {"rankings": {name: fqe if name == "fqe" else {"intervals": 0} for name in every}}

    first = result(intervals=10, intervals_that_hold=9, intervals_without_a_remark=4, that_hold_without_a_remark=4)
    second = result(intervals=6, intervals_that_hold=3, intervals_without_a_remark=1, that_hold_without_a_remark=0)
    assert "| fqe | 12 of 16 | 75% (48% to 93%) | 4 of 5 | 80% (28% to 99%) |" in _pooled([first, second])
    earlier = result(intervals=4, intervals_that_hold=4)  # did not count those without a remark
    assert "| fqe | 16 of 20 | 80% (56% to 94%) |  |  |" in _pooled([first, second, earlier])


def test_estimates_are_compared_with_what_they_estimate_and_with_what_is_wanted(tmp_path, monkeypatch):
    from benchmarks import ope
    from benchmarks.judging.candidates import Candidate

    candidates = [Candidate("bc", 0, step, None) for step in (1, 2, 3)]
    # Returns of 100, 200 and 300, whose discounted ones order the last two the other way round.
    played = {1: ([100.0, 100.0], [10.0, 12.0]), 2: ([200.0, 200.0], [30.0, 32.0]), 3: ([300.0, 300.0], [20.0, 22.0])}
    monkeypatch.setattr(
        ope, "truth", lambda work, each: dict(zip(("returns", "discounted"), played[each.step], strict=True))
    )

    def said(value, low, high, remark):
        interval = None if low is None else [low, high]
        return {"value": {"mean": value, "interval_95": interval}, "remark": remark}

    # The first interval holds 11; the second, without a remark, does not hold 31; the third estimate has none.
    estimates = [said(11.0, 10.0, 12.0, "a rough number"), said(40.0, 35.0, 45.0, ""), said(25.0, None, None, "")]
    given = {"estimators": dict.fromkeys(ope.ESTIMATORS, estimates), "criteria": {"agreement": [0.1, 0.2, 0.3]}}
    found = ope.compare(tmp_path, candidates, given)
    row = found["rankings"]["fqe"]
    assert (row["spearman"], row["spearman_of_discounted"]) == (pytest.approx(0.5), pytest.approx(1.0))
    assert (row["intervals"], row["intervals_that_hold"], row["without_a_remark"]) == (2, 1, 2)
    assert (row["intervals_without_a_remark"], row["that_hold_without_a_remark"]) == (1, 0)
    assert row["mean_absolute_error"] == pytest.approx((0 + 9 + 4) / 3)
    assert found["rankings"]["agreement"]["spearman"] == pytest.approx(1.0)
    assert found["rankings"][ope.EXACT]["spearman"] == pytest.approx(0.5)
    assert found["candidates"][1]["estimates"]["fqe"] == estimates[1]
    assert found["candidates"][1]["standard_error"] == pytest.approx(1.0)
