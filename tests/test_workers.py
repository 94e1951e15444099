import signal
import threading

import pytest

from offrl.errors import ConfigError
from offrl.workers import available_memory, deaf_to_interrupts, num_cores, require_sendable


def test_interrupts_are_ignored_in_the_block_only():
    before = signal.getsignal(signal.SIGINT)
    with deaf_to_interrupts():
        signal.raise_signal(signal.SIGINT)  # nothing happens
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_may_start_workers_too():
    entered = []

    def start():
        with deaf_to_interrupts():
            entered.append(True)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert entered == [True]


def test_what_cannot_be_sent_is_named():
    require_sendable(num_cores, "here", "it")
    with pytest.raises(ConfigError, match="here: it cannot be sent to worker processes .*; use functools.partial"):
        require_sendable(lambda: 1, "here", "it")


def test_there_is_a_core():
    assert num_cores() >= 1


def test_available_memory_is_between_a_page_and_the_machine():
    assert 4096 < available_memory() < 2**50
