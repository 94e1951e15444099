"""How fast training is; and when it has become much slower than it was, why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from offrl.system.load import OtherLoad
from offrl.system.workers import num_cores

_SECONDS = 5.0  # shorter periods are too often disturbed by chance
_SLOW, _RECOVERED = 0.5, 0.8  # of the best rate so far
_MOSTLY = 0.5
"""Waiting for data is named as the cause where it takes so much of the time."""
_OTHERS = 0.2
"""Other processes are, where they take so many cores: on a single core half of it halves the rate."""


class Clock:
    """Measures updates per second and the share of time spent waiting for data.

    Attributes:
        last_wait: Seconds that the last update waited for its data.
    """

    def __init__(self, step: int) -> None:
        self._step, self._start, self._waited = step, time.perf_counter(), 0.0
        self.last_wait = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The block waits for data."""
        start = time.perf_counter()
        yield
        self.last_wait = time.perf_counter() - start
        self._waited += self.last_wait

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens in the block is no part of the measured time."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def read(self, step: int) -> dict[str, float]:
        """The figures since the last reading."""
        now = time.perf_counter()
        seconds = now - self._start
        figures = {"updates_per_second": (step - self._step) / seconds, "data_wait": self._waited / seconds}
        self._step, self._start, self._waited = step, now, 0.0
        return figures


class RateWatch:
    """Compares the rate of updates with the best one so far.

    Args:
        load: Measures what other processes take.
    """

    def __init__(self, load: OtherLoad | None = None) -> None:
        self._load = OtherLoad() if load is None else load
        self._updates, self._seconds, self._waited = 0, 0.0, 0.0
        self._best = 0.0
        self._is_slow = False

    def add(self, updates: int, seconds: float, waited: float) -> str | None:
        """Counts updates.

        Args:
            updates: That were made.
            seconds: That they took, waiting for their data included, and nothing else.
            waited: Seconds of these for their data.

        Returns:
            A line, where the rate has fallen to less than half of the best; once, until it has recovered.
        """
        self._updates += updates
        self._seconds += seconds
        self._waited += waited
        if self._seconds < _SECONDS:
            return None
        rate, waiting = self._updates / self._seconds, self._waited / self._seconds
        others = self._load.cores()
        self._updates, self._seconds, self._waited = 0, 0.0, 0.0
        was_slow, self._is_slow = self._is_slow, rate < (_RECOVERED if self._is_slow else _SLOW) * self._best
        self._best = max(self._best, rate)
        if was_slow or not self._is_slow:
            return None
        return f"training makes {rate:.3g} updates/s, where it made {self._best:.3g}: {_cause(waiting, others)}"


def _cause(waiting: float, others: float | None) -> str:
    if waiting > _MOSTLY:
        return (
            f"it waits for data {waiting:.0%} of the time; keep the frames in memory (tier='ram') or on a faster disk"
        )
    if others is not None and others > _OTHERS:
        advice = "stop them"
        if torch.get_num_threads() > 1:
            advice += ", or interrupt the run and resume it with fewer threads (--threads 1)"
        return f"other processes keep {others:.1f} of {num_cores()} cores busy; {advice}"
    known = "" if others is None else "hardly anything else runs here; "
    return f"{known}the processor may be throttled, or shared with other machines"
