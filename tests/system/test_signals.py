import os
import signal

import pytest

from offrl.system.signals import Interrupted, raising_on_signals, stopping_on_signals

_ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", _ALL)
def test_the_first_signal_sets_the_request_and_the_second_raises(number):
    with stopping_on_signals() as request:
        assert not request
        os.kill(os.getpid(), number)
        assert request
        assert request.error().exit_code == 128 + number
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_signal_does_not_cut_a_save():
    done = []

    def save(request):
        with request.shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("saved")

    with stopping_on_signals() as request:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            save(request)
    assert done == ["saved"]


def test_the_own_signal_after_that_of_another_rank_is_no_second_one():
    with stopping_on_signals() as request:
        request.set(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # would cut the save that has begun because of the first
        assert request.error().exit_code == 143
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


def test_work_after_which_all_is_saved_ends_at_once():
    with stopping_on_signals() as request:
        with request.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("went on")
        assert request.error().exit_code == 143


def test_a_signal_that_is_ignored_stays_ignored():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stopping_on_signals() as request, raising_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert not request
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_sigterm_is_as_ctrl_c():
    with pytest.raises(KeyboardInterrupt) as caught, raising_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == 143
