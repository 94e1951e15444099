"""Processes side by side: how many at a time, what a failure does, and how signals reach them."""

import os
import signal
import sys
import threading

import pytest

from offrl.system.side_by_side import side_by_side
from offrl.system.signals import Interrupted, raising_on_signals


def python(code):
    return [sys.executable, "-c", code]


def run(commands, at_once=2, **options):
    return [*side_by_side(commands, at_once=at_once, environment=os.environ, **options)]


def test_all_run_and_what_they_say_is_kept():
    ended = run({name: python(f"print({name!r} * 2)") for name in "abc"})
    assert sorted(ended) == [("a", 0, "aa\n"), ("b", 0, "bb\n"), ("c", 0, "cc\n")]


def test_no_more_than_so_many_run_at_a_time(tmp_path):
    # Each counts those that run, itself included, and waits until the file of the next one says that it may end.
    code = (
        "import sys, pathlib, time; here = pathlib.Path(sys.argv[1]); mine = here / sys.argv[2]; mine.touch();"
        "print(len([*here.iterdir()])); time.sleep(0.3); mine.unlink()"
    )
    ended = run({name: [*python(code), str(tmp_path), name] for name in "abcde"}, at_once=2)
    assert max(int(each.output) for each in ended) <= 2
    assert len(ended) == 5


def test_after_a_failure_no_more_are_started(tmp_path):
    commands = {"a": python("raise SystemExit(3)"), "b": python(f"open({str(tmp_path / 'b')!r}, 'w')")}
    assert run(commands, at_once=1) == [("a", 3, "")]
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_once_and_waited_for(tmp_path, number):
    code = f"""
import pathlib, signal, time
told = []
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, lambda number, frame: told.append(number))
pathlib.Path({str(tmp_path / "ready")!r}).touch()
while not told:
    time.sleep(0.01)
time.sleep(0.3)  # saves
pathlib.Path({str(tmp_path / "told")!r}).write_text(str([int(each) for each in told]))
"""
    me, sent = threading.main_thread().ident, []

    def send():
        if (tmp_path / "ready").exists() and not sent:
            sent.append(number)
            signal.pthread_kill(me, number)

    with raising_on_signals(), pytest.raises(KeyboardInterrupt) as error:
        run({"a": python(code)}, meanwhile=send)
    assert (tmp_path / "told").read_text() == str([int(number)])
    assert number == signal.SIGINT or (isinstance(error.value, Interrupted) and error.value.exit_code == 128 + number)


def test_whoever_stops_listening_leaves_nobody_behind(tmp_path):
    commands = {"a": python("print(1)"), "b": python("import time; time.sleep(1000)")}
    found = side_by_side(commands, at_once=2, environment=os.environ)
    assert next(found).name == "a"
    found.close()  # would wait for ever if b was not told to end


def test_a_process_that_prints_more_than_a_pipe_holds_ends():
    (ended,) = run({"a": python("print('x' * 1_000_000)")})
    assert (ended.exit_code, len(ended.output.strip())) == (0, 1_000_000)
