import math

import numpy as np
import pytest

from offrl.errors import ConfigError
from offrl.statistics import (
    Interval,
    bootstrap_mean,
    crossed_interval,
    number_text,
    t_interval,
    t_p_value,
    t_quantile,
)


def test_equal_values_leave_no_doubt():
    assert bootstrap_mean([3.0] * 5) == (3.0, 3.0, 3.0)


def test_fewer_than_five_values_have_a_mean_and_no_interval():
    few = bootstrap_mean([1.0, 2.0, 3.0, 6.0])
    assert few == (3.0, None, None)
    assert str(few) == "3.0 (too few for an interval)"
    assert few.bounds(4) == "4 episodes: too few for an interval"
    assert few.bounds(1, "run") == "1 run: too few for an interval"
    assert few.to_dict() == {"mean": 3.0, "interval_95": None}
    low, high = bootstrap_mean([1.0, 2.0, 3.0, 6.0, 3.0])[1:]
    assert 1 < low < 3 < high < 6


def test_an_interval_in_words_and_for_json():
    wide = Interval(1234.56, -0.54, 2000.0)
    assert str(wide) == "1234.6 [-0.5, 2000.0]"
    assert wide.bounds(5, form="+,.1f") == "-0.5 to +2,000.0"
    assert wide.to_dict() == {"mean": 1234.56, "interval_95": [-0.54, 2000.0]}


def test_interval_is_about_two_standard_errors_wide():
    values = np.random.default_rng(1).normal(100, 20, size=400)
    mean, low, high = bootstrap_mean(values)
    assert mean == pytest.approx(values.mean())
    assert mean - low == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert high - mean == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_same_values_give_the_same_interval():
    assert bootstrap_mean([1.0, 2.0, 5.0, 7.0, 7.0]) == bootstrap_mean([1.0, 2.0, 5.0, 7.0, 7.0])


def test_as_many_resamples_are_drawn_as_are_asked_for():
    """The draws are those of slices of 100, and of what is left."""
    values = np.array([1.0, 2.0, 5.0, 7.0, 7.0])
    for count, slices in ((50, [50]), (1, [1]), (250, [100, 100, 50])):
        rng = np.random.default_rng(0)
        means = np.concatenate([values[rng.integers(5, size=(size, 5))].mean(axis=1) for size in slices])
        assert bootstrap_mean(values, count)[1:] == (np.quantile(means, 0.025), np.quantile(means, 0.975))
    for wrong in (0, -100, 50.5, True):
        with pytest.raises(ConfigError, match=r"bootstrap_mean.num_resamples: .*; expected 1 or more, a whole number"):
            bootstrap_mean(values, wrong)


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ((1234.5, 1200.0, 1300.0), ["1,234.50", "1,200.00", "1,300.00"]),
        ((60.11, -0.004), ["60.11", "-0.00"]),
        ((99_999.0,), ["99,999.00"]),
        ((0.0,), ["0.00"]),
        ((0.0021, 0.0, 0.01), ["0.00210", "0.00000", "0.01000"]),
        ((0.5, 0.25), ["0.5000", "0.2500"]),
        ((0.00012,), ["0.00012"]),
        ((9.1234e40, -3.0), ["9.123e+40", "-3"]),
        ((250_000.4, 249_000.0), ["250,000", "249,000"]),
        ((2.5e9,), ["2.5e+09"]),
        ((2.0, math.inf), ["2.00", "inf"]),
    ],
)
def test_numbers_of_any_size_can_be_read(numbers, shown):
    assert [number_text(each, beside=numbers) for each in numbers] == shown
    assert number_text(numbers[0], beside=numbers, sign="+") == "+" + shown[0]


def test_no_values_are_no_number():
    assert math.isnan(bootstrap_mean([]).mean)


@pytest.mark.parametrize(
    ("degrees_of_freedom", "printed"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (1000, 1.962), (10**6, 1.960)],
)
def test_t_quantiles_are_those_of_the_printed_tables(degrees_of_freedom, printed):
    assert round(t_quantile(degrees_of_freedom), 3) == printed


def test_t_quantiles_by_hand():
    assert t_quantile(1) == pytest.approx(math.tan(0.475 * math.pi))  # Cauchy's distribution
    assert t_quantile(2) == pytest.approx(0.95 * (2 / (1 - 0.95**2)) ** 0.5)  # P(|T| < t) = t / sqrt(2 + t**2)


def test_t_interval_by_hand():
    # Mean 20, standard deviation 10 with ddof 1, standard error 10 / sqrt(3); 4.303 with two degrees of freedom.
    mean, low, high = t_interval([10.0, 20.0, 30.0])
    assert mean == 20
    assert high - mean == pytest.approx(4.303 * 10 / 3**0.5, abs=0.01)
    assert mean - low == pytest.approx(high - mean)
    # Two runs, 2 apart: the standard error is 1.
    assert t_interval([99.0, 101.0]) == pytest.approx((100, 100 - 12.7062, 100 + 12.7062), abs=1e-4)


def test_one_training_run_has_no_t_interval():
    assert t_interval([5.0]) == (5.0, None, None)


def test_many_values_take_standard_errors():
    values = np.tile([0.0, 2.0], 10_000)
    assert bootstrap_mean(values) == pytest.approx((1.0, 1 - 1.96 / 20_000**0.5, 1 + 1.96 / 20_000**0.5))


def test_p_values_by_hand():
    assert t_p_value(-1.0, 1) == pytest.approx(0.5)  # Cauchy's: P(|T| > t) = 1 - 2 / pi * atan(t)
    assert t_p_value(2.0, 2) == pytest.approx(1 - 2 / 6**0.5)  # 1 - t / sqrt(2 + t**2)
    assert t_p_value(t_quantile(3.7), 3.7) == pytest.approx(0.05)


def test_an_interval_over_rows_and_columns_by_hand():
    assert crossed_interval([[1.0, 2, 3, 4, 5]]) == (3.0, None, None)  # one run says nothing of others
    assert crossed_interval(np.ones((3, 4))) == (1.0, 1.0, 1.0)
    # All runs alike: only tracks vary, and the interval is theirs.
    columns = np.tile([1.0, 2, 3, 6], (5, 1))
    assert crossed_interval(columns) == pytest.approx(t_interval([1.0, 2, 3, 6]))
    assert crossed_interval(columns.T) == pytest.approx(crossed_interval(columns))
    # Both: variances of the means 14/3 over 4 and 10 over 5, and degrees of freedom as in Welch's test.
    parts = (14 / 12, 2.0)
    half = t_quantile(sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 4)) * sum(parts) ** 0.5
    assert crossed_interval(columns + 2 * np.arange(5.0)[:, None]) == pytest.approx((7, 7 - half, 7 + half))


@pytest.mark.parametrize("scale", [2.0**-300, 2.0**-1000, 2.0**600])
def test_an_interval_over_rows_and_columns_of_any_size(scale):
    """Squares of squares of 1e-90 are 0, those of 1e180 infinite."""
    table = np.array([[1.0, 2, 3], [2, 2, 5], [4, 3, 7]])
    assert crossed_interval(scale * table) == tuple(scale * each for each in crossed_interval(table))


def test_an_interval_over_rows_and_columns_is_no_narrower_than_over_either():
    few = np.array([[1.0, 2], [5, 6.5]])
    assert crossed_interval(few).high >= t_interval(few.mean(axis=1)).high


def test_an_interval_over_rows_and_columns_covers_the_mean():
    rng = np.random.default_rng(0)
    holds = 0
    for _ in range(400):
        found = crossed_interval(7 + rng.normal(0, 3, (5, 1)) + rng.normal(0, 1, (1, 20)) + rng.normal(0, 1, (5, 20)))
        holds += found.low <= 7 <= found.high
    assert holds >= 368  # 95 % of 400 are 380; their standard deviation is 4.4
