import os
import signal
import subprocess
import sys
import threading

import pytest

from offrl.errors import InUseError
from offrl.system.locks import clear_after_kill, locked

_HOLDER = """
import sys, time
from pathlib import Path
from offrl.system.locks import clear_after_kill, locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_lock_says_who_has_it_and_ends_with_its_process(tmp_path):
    lock = tmp_path / "run" / ".lock"
    with subprocess.Popen([sys.executable, "-c", _HOLDER, str(lock)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(InUseError, match=rf"run: is in use by process {holder.pid} of .* since 2"), locked(lock):
            pass
        holder.send_signal(signal.SIGKILL)
    with locked(lock):
        assert lock.exists()
    assert list(lock.parent.iterdir()) == []


def test_who_waits_gets_it_next(tmp_path):
    order = []

    def second():
        with locked(tmp_path / ".lock", wait=True):
            order.append("second")

    with locked(tmp_path / ".lock"):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize("clearing", [False, True])
def test_many_who_wait_are_never_two_at_once(tmp_path, clearing):
    inside, most = 0, 0
    counting = threading.Lock()

    def work():
        nonlocal inside, most
        for _ in range(20):
            if clearing:  # also where the file is removed between a waiting one's opening and locking it
                clear_after_kill(tmp_path / "new" / ".lock")
            with locked(tmp_path / "new" / ".lock", wait=True):
                with counting:
                    inside += 1
                    most = max(most, inside)
                os.sched_yield()
                with counting:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_what_fails_leaves_no_empty_directory(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "run" / ".lock"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "mine" / ".lock"):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_lock_that_was_left_is_removed_after_what_else_was(tmp_path):
    lock, litter = tmp_path / ".lock", tmp_path / ".partial"
    clear_after_kill(lock, litter.unlink)  # where no lock is, nothing was left
    litter.touch()
    lock.touch()
    seen = []
    clear_after_kill(lock, lambda: (seen.append(lock.exists()), litter.unlink()))
    assert seen == [True]
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_held_is_not_removed(tmp_path):
    with locked(tmp_path / ".lock"):
        clear_after_kill(tmp_path / ".lock", lambda: pytest.fail("was called"))
        assert (tmp_path / ".lock").exists()


def test_what_a_failing_disk_left_is_removed_although_the_lock_was_given_back(tmp_path):
    lock, litter = tmp_path / ".lock", tmp_path / "journal"
    clear_after_kill(lock, litter.unlink, left=[litter])
    assert not lock.exists()  # nothing there: not even a lock is made
    litter.touch()
    with locked(lock):
        clear_after_kill(lock, litter.unlink, left=[litter])
        assert litter.exists()  # somebody is at work
    clear_after_kill(lock, litter.unlink, left=[litter])
    assert [*tmp_path.iterdir()] == []
