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
        every = ("fqe", "wdr", "dr", "wpdis", "pdis", "wis", "is")
        return {"rankings": {name: fqe if name == "fqe" else {"intervals": 0} for name in every}}

    first = result(intervals=10, intervals_that_hold=9, intervals_without_a_remark=4, that_hold_without_a_remark=4)
    second = result(intervals=6, intervals_that_hold=3, intervals_without_a_remark=1, that_hold_without_a_remark=0)
    assert "| fqe | 12 of 16 | 75% (48% to 93%) | 4 of 5 | 80% (28% to 99%) |" in _pooled([first, second])
    earlier = result(intervals=4, intervals_that_hold=4)  # did not count those without a remark
    assert "| fqe | 16 of 20 | 80% (56% to 94%) |  |  |" in _pooled([first, second, earlier])
