"""When training says that it has become slow, and what it names as the cause."""

import pytest
import torch

from offrl.training import _clock
from offrl.training._clock import RateWatch


class Load:
    """Says what it is told to."""

    def __init__(self, cores=None):
        self.said = cores

    def cores(self):
        return self.said


@pytest.fixture(autouse=True)
def four_cores(monkeypatch):
    monkeypatch.setattr(_clock, "num_cores", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)


def test_half_the_rate_is_not_slow_and_less_is_said_once():
    watch = RateWatch(Load(1.25))
    assert watch.add(100, 5.0, 0.0) is None  # 20 updates/s
    assert watch.add(50, 5.0, 0.0) is None  # 10: just half
    line = watch.add(49, 5.0, 0.0)
    assert line == (
        "training makes 9.8 updates/s, where it made 20: other processes keep 1.2 of 4 cores busy; stop them, or "
        "interrupt the run and resume it with fewer threads (--threads 1)"
    )
    assert watch.add(20, 5.0, 0.0) is None  # still slow, and said
    assert watch.add(90, 5.0, 0.0) is None  # recovered
    assert watch.add(20, 5.0, 0.0) is not None


def test_who_has_one_thread_is_not_told_to_take_fewer(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    watch = RateWatch(Load(1.25))
    watch.add(100, 5.0, 0.0)
    assert watch.add(10, 5.0, 0.0).endswith("other processes keep 1.2 of 4 cores busy; stop them")


def test_less_than_five_seconds_say_nothing():
    watch = RateWatch(Load())
    assert watch.add(100, 5.0, 0.0) is None
    assert watch.add(1, 4.9, 0.0) is None
    assert watch.add(0, 0.1, 0.0) is not None  # together they do


def test_a_run_that_is_slow_from_the_beginning_is_compared_with_nothing():
    watch = RateWatch(Load(4.0))
    assert [watch.add(1, 5.0, 0.0) for _ in range(5)] == [None] * 5


@pytest.mark.parametrize(
    ("waited", "others", "cause"),
    [
        (4.0, 3.0, "it waits for data 80% of the time; keep the frames in memory"),
        (2.0, 0.3, "other processes keep 0.3 of"),
        (2.0, 0.1, "updates/s, where it made 20: hardly anything else runs here; the processor may be throttled"),
        (2.0, None, "updates/s, where it made 20: the processor may be throttled"),
    ],
)
def test_the_cause_is_named(waited, others, cause):
    watch = RateWatch(Load(others))
    watch.add(100, 5.0, 0.0)
    assert cause in watch.add(10, 5.0, waited)
