"""Runs `offrl` in forks of a process that has imported everything, disturbs it, and says how it ended."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from benchmarks.faulting.events import Event, Watch, install_filter

TIME_LIMIT = 60.0  # seconds; an operation takes about one, and nothing waits for longer than this
_CLONE_NEWPID = 0x20000000


@dataclass(frozen=True)
class Disturbance:
    """What happens to a process.

    Attributes:
        event: The number of the file event in front of which it happens, from 1; None for a time instead.
        seconds: After which it is killed; None where `event` says when.
        error: That the event fails with; None kills the process.
        before_kill: Called in front of the kill, such as to cut the power of a disk.
    """

    event: int | None = None
    seconds: float | None = None
    error: int | None = None
    before_kill: Callable[[], None] | None = None


@dataclass
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code; minus the signal's number where one killed it; None where it had to be stopped, because it
            took longer than `TIME_LIMIT`.
        output: What it printed, both streams.
        events: Its file events, where they were watched.
        seconds: How long it took.
        disturbed: Whether the disturbance happened before the end.
        peak: Bytes of memory at most, those that it shares with the process that it is a fork of included.
    """

    code: int | None
    output: str
    seconds: float
    events: list[Event] = field(default_factory=list)
    disturbed: bool = False
    peak: int = 0

    @property
    def is_refusal(self) -> bool:
        """Whether it ended with exit code 2, one line that says error, and no traceback."""
        errors = [line for line in self.output.splitlines() if line.startswith("error: ")]
        return self.code == 2 and len(errors) == 1 and "Traceback" not in self.output


class Running:
    """A fork that runs one command.

    Args:
        arguments: Of `offrl`.
        work: Its current directory; its events below it are watched where `watched`.
        log: The file for what it prints.
        watched: Whether file events are seen.
        alone: Whether it is process 1 of a namespace of its own, as in a container; where that is refused it only
            takes itself for process 1.
    """

    def __init__(
        self, arguments: Sequence[str], work: Path, log: Path, *, watched: bool = False, alone: bool = False
    ) -> None:
        self._log, self._start, self._watch, self._peak = log, time.monotonic(), None, 0
        ours, theirs = socket.socketpair()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of forks beside threads, which import started and nothing needs
            self._pid = os.fork()
        if not self._pid:
            ours.close()
            _become(arguments, work, log, theirs if watched else None, alone)
        theirs.close()
        with ours:
            if watched:
                _, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
                self._watch = Watch(listener, work)

    def wait(self, disturbance: Disturbance | None = None) -> Ended:
        """Waits for its end, and disturbs it on the way."""
        plan, events, disturbed = disturbance or Disturbance(), list[Event](), False
        while (status := self._status()) is None:
            now = time.monotonic() - self._start
            if now > TIME_LIMIT:
                self.kill()
                os.waitpid(self._pid, 0)
                return self._ended(None, events, disturbed)
            if plan.seconds is not None and now >= plan.seconds:
                disturbed = True
                self.kill()
            event = None if self._watch is None else self._watch.next(0.02)
            if self._watch is None:
                time.sleep(0.002)
            if event is None or self._watch is None:
                continue
            events.append(event)
            if len(events) != plan.event:
                self._watch.allow()
            elif plan.error is not None:
                disturbed = True
                self._watch.fail(plan.error)
            else:
                disturbed = True
                if plan.before_kill is not None:
                    plan.before_kill()
                self.kill()
                self._watch.allow()
        return self._ended(status, events, disturbed)

    def kill(self) -> None:
        """Ends it at once, and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        with suppress(ProcessLookupError):  # before it led a group
            os.kill(self._pid, signal.SIGKILL)

    def _status(self) -> int | None:
        pid, status, used = os.wait4(self._pid, os.WNOHANG)
        self._peak = used.ru_maxrss * 1024
        return None if pid == 0 else os.waitstatus_to_exitcode(status)

    def _ended(self, code: int | None, events: list[Event], disturbed: bool) -> Ended:
        if self._watch is not None:
            self._watch.close()
        output = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        return Ended(code, output, time.monotonic() - self._start, events, disturbed, self._peak)


def _become(arguments: Sequence[str], work: Path, log: Path, supervisor: socket.socket | None, alone: bool) -> None:
    """What the fork does; it does not return."""
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1), os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(work)
        # The one of the parent is shared: who was killed while holding it would keep it from all others.
        tqdm.set_lock(threading.RLock())
        if alone:
            _be_process_one()
        if supervisor is not None:
            listener = install_filter()
            socket.send_fds(supervisor, [b"l"], [listener])
            os.close(listener)
        code = run_here(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def run_here(arguments: Sequence[str]) -> int:
    """Runs `offrl` in this process; its exit code."""
    from offrl.cli import main

    try:
        main([*arguments], prog_name="offrl")
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


def _be_process_one() -> None:
    if ctypes.CDLL(None).unshare(_CLONE_NEWPID):
        os.getpid = lambda: 1
        return
    child = os.fork()  # the first one in the new namespace is its process 1
    if child:
        os._exit(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
