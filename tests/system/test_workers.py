import multiprocessing
import os
import signal
import threading
from functools import partial
from pathlib import Path

import pytest

from offrl import OfflineRLError
from offrl.errors import ConfigError
from offrl.system import workers
from offrl.system.workers import (
    WorkerPool,
    available_memory,
    holding_signals,
    num_cores,
    require_sendable,
    stop_requested,
)


def test_signals_wait_until_the_end_of_the_block():
    met = []
    before = signal.signal(signal.SIGTERM, lambda number, _: met.append(number))
    try:
        with holding_signals():
            signal.raise_signal(signal.SIGTERM)
            assert met == []
        assert met == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("in_thread", [False, True])
def test_workers_live_through_signals_from_their_first_moment_on(tmp_path, in_thread):
    pools = []

    def start():
        pools.append(WorkerPool([partial(Counter, 1, tmp_path / name) for name in "ab"]))

    def send_signals():
        for process in pools[0]._processes:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(process.pid, number)

    if in_thread:
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
    else:
        start()
    send_signals()  # they hardly began
    for worker in (0, 1):
        pools[0].ask(worker, "add", 1)
        assert pools[0].answer(worker)[0] == 2
    send_signals()
    for worker in (0, 1):
        pools[0].ask(worker, "add", 1)
        assert pools[0].answer(worker)[0] == 3
    pools[0].close()


class Interrupting:
    """Ctrl-C, as a worker is given what to make."""

    def __init__(self, goodbye):
        self.goodbye = goodbye

    def __reduce__(self):
        signal.raise_signal(signal.SIGINT)
        return partial, (Counter, 1, self.goodbye)


def test_no_worker_is_left_where_ctrl_c_comes_while_they_start(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        WorkerPool([partial(Counter, 1, tmp_path / "a"), Interrupting(tmp_path / "b")])
    assert multiprocessing.active_children() == []


def test_what_cannot_be_sent_is_named():
    require_sendable(num_cores, "here", "it")
    with pytest.raises(ConfigError, match="here: it cannot be sent to worker processes .*; use functools.partial"):
        require_sendable(lambda: 1, "here", "it")


def test_there_is_a_core():
    assert num_cores() >= 1


class Counter:
    """Counts from a number; leaves a file as it ends."""

    def __init__(self, count, goodbye):
        if count < 0:
            raise OfflineRLError("too few", where="Counter")
        self._count, self._goodbye = count, goodbye

    def add(self, number):
        self._count += number
        return self._count, os.getpid()

    def fail(self, text):
        raise KeyError(text)

    def vanish(self, code):
        os._exit(code)

    def count_until_stopped(self, _):
        while not stop_requested():
            self._count += 1
        return "stopped", stop_requested(), stop_requested(seconds_ago=3600)

    def is_stopped(self, _):
        return stop_requested()

    def count_until_abandoned(self, _):
        try:
            while not stop_requested():
                self._count += 1
        except OfflineRLError as error:
            self._count = error
            raise

    def count_for_ever(self, _):
        while True:
            self._count += 1

    def close(self):
        Path(self._goodbye).write_text(str(self._count))


def test_each_worker_keeps_what_it_made_and_closes_it(tmp_path):
    pool = WorkerPool([partial(Counter, 10, tmp_path / "a"), partial(Counter, 20, tmp_path / "b")])
    for worker in (0, 1):
        pool.ask(worker, "add", 1)
    (first, a), (second, b) = pool.answer(0), pool.answer(1)
    assert (first, second) == (11, 21)
    assert len({a, b, os.getpid()}) == 3
    pool.ask(1, "add", 5)
    assert pool.ready([0, 1]) == [1]
    assert pool.answer(1) == (26, b)
    pool.close()
    assert [(tmp_path / name).read_text() for name in "ab"] == ["11", "26"]


def test_what_goes_wrong_in_a_worker_is_raised_here(tmp_path):
    pool = WorkerPool([partial(Counter, 0, tmp_path / "a"), partial(Counter, -1, tmp_path / "b")])
    pool.ask(0, "fail", "a tyre")
    with pytest.raises(OfflineRLError, match="environment in a worker: KeyError: 'a tyre'"):
        pool.answer(0)
    pool.ask(0, "add", 2)  # it lives on
    assert pool.answer(0)[0] == 2
    pool.ask(1, "add", 2)
    with pytest.raises(OfflineRLError, match="Counter: too few"):
        pool.answer(1)
    pool.ask(0, "vanish", 3)
    with pytest.raises(OfflineRLError, match="evaluate: a worker process ended; run it with workers=0"):
        pool.answer(0)
    pool.close()
    assert list(tmp_path.iterdir()) == []


def test_busy_workers_are_stopped_and_answers_under_way_are_taken(tmp_path, monkeypatch):
    pool = WorkerPool([partial(Counter, 1, tmp_path / name) for name in "abc"])
    pool.ask(0, "count_until_stopped", None)
    pool.ask(1, "add", 1)
    pool.ask(2, "count_for_ever", None)
    assert pool.ready([1]) == [1]  # worker 1 has answered: the stop comes too late
    answers = pool.stop([0, 1])
    assert (answers[0], answers[1][0]) == (("stopped", True, False), 2)
    pool.ask(0, "is_stopped", None)
    assert pool.answer(0) is False  # the stop was for the answer before
    pool.ask(1, "add", 1)  # it did not take the stop for a call
    assert pool.answer(1)[0] == 3
    monkeypatch.setattr(workers, "_SECONDS_TO_END", 0)
    assert pool.stop([2]) == {}
    monkeypatch.undo()
    pool.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]  # worker 2 was ended


def test_a_worker_that_nobody_waits_for_gives_up(tmp_path):
    pool = WorkerPool([partial(Counter, 0, tmp_path / "a")])
    pool.ask(0, "count_until_abandoned", None)
    pool.close()
    assert (tmp_path / "a").read_text() == "worker: the answer is not needed any more"


def test_nobody_asks_this_process_to_stop():
    assert not stop_requested()


def test_available_memory_is_between_a_page_and_the_machine():
    assert 4096 < available_memory() < 2**50


@pytest.mark.parametrize(
    ("files", "left"),
    [
        (
            {"memory.max": "9000", "memory.current": "8000", "memory.stat": "anon 1\ninactive_file 30\nactive_file 4"},
            1034,
        ),
        ({"memory.max": "9000", "memory.current": "9500", "memory.stat": "anon 9500"}, 0),
        ({"memory.max": "900"}, 900),  # what cannot be read of the rest is not counted
        ({"memory.max": "max", "memory.current": "8000", "memory.stat": "anon 1"}, None),
        (
            {
                "memory/memory.limit_in_bytes": "9000",
                "memory/memory.usage_in_bytes": "7000",
                "memory/memory.stat": "cache 70\ntotal_inactive_file 50",
            },
            2050,
        ),
    ],
)
def test_of_a_containers_limit_what_it_has_not_taken_is_left(tmp_path, files, left):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    free = available_memory(tmp_path / "none")
    assert available_memory(tmp_path) == left or (left is None and 0.5 < available_memory(tmp_path) / free < 2)
