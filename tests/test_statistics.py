import math

import numpy as np
import pytest

from offrl.statistics import bootstrap_mean


def test_equal_values_leave_no_doubt():
    assert bootstrap_mean([3.0, 3.0, 3.0]) == (3.0, 3.0, 3.0)


def test_interval_is_about_two_standard_errors_wide():
    values = np.random.default_rng(1).normal(100, 20, size=400)
    mean, low, high = bootstrap_mean(values)
    assert mean == pytest.approx(values.mean())
    assert mean - low == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert high - mean == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_same_values_give_the_same_interval():
    assert bootstrap_mean([1.0, 2.0, 5.0]) == bootstrap_mean([1.0, 2.0, 5.0])


def test_no_values_are_no_number():
    assert math.isnan(bootstrap_mean([]).mean)


def test_many_values_take_standard_errors():
    values = np.tile([0.0, 2.0], 10_000)
    assert bootstrap_mean(values) == pytest.approx((1.0, 1 - 1.96 / 20_000**0.5, 1 + 1.96 / 20_000**0.5))
