"""What this machine has for this process, and worker processes, as collection and evaluation start them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from offrl.errors import ConfigError, OfflineRLError

MOST_THREADS = 1024
"""Of torch, which crashes on absurd numbers."""


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_GROUPS = (
    ("memory.max", "memory.current", "memory.stat", ("inactive_file", "active_file")),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        ("total_inactive_file", "total_active_file"),
    ),
)
"""Of a container, cgroups 2 and 1: its limit, what it has taken, and what of that the page cache would give back."""


def available_memory(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take without swapping, as far as the system says.

    Args:
        groups: Where the system says what a container may take.
    """
    limits = []
    try:  # Linux; counts what the page cache would give back
        meminfo = Path("/proc/meminfo").read_text()
        limits.append(next(int(line.split()[1]) * 1024 for line in meminfo.splitlines() if "MemAvailable" in line))
    except (OSError, StopIteration):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit, taken, stat, cached in _GROUPS:
        left = _number(groups / limit)
        if left is not None:  # else there is no such group, or its limit is "max"
            used = (_number(groups / taken) or 0) - sum(_counts(groups / stat).get(name, 0) for name in cached)
            limits.append(max(0, left - max(0, used)))
    return min(limits)


def _number(path: Path) -> int | None:
    """What a file says, if it is there and says a number."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _counts(path: Path) -> dict[str, int]:
    """Names and numbers, one of each on a line; none where the file cannot be read."""
    try:
        return {name: int(number) for name, number in map(str.split, path.read_text().splitlines())}
    except (OSError, ValueError):
        return {}


def require_sendable(task: Any, where: str, what: str) -> None:
    """Checks that workers, which are spawned, can be given `task`.

    Raises:
        ConfigError: they cannot; `what` names it.
    """
    try:
        ForkingPickler.dumps(task)
    except Exception as error:  # pickling calls the objects' own code
        raise ConfigError(
            f"{what} cannot be sent to worker processes ({error})",
            where=where,
            hint="use functools.partial and classes of an importable module, or work in this process (see `workers`)",
        ) from error


_SECONDS_TO_END = 8
"""In which workers finish what they are at: who asks a process to end waits 10 s before killing it, as Docker does."""
_SECONDS_TO_CLOSE = 1
"""In which they close what they made, once that time is over."""
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def holding_signals() -> Iterator[None]:
    """Holds back what asks this thread to end until the end of the block.

    Processes started in the block begin so, and let signals through when they are ready for them. Ctrl-C and a terminal
    that closes reach all processes of a group, and so may SIGTERM: a worker must not end by one before it ignores it.
    What a process ignores is handed down, too, but only the main thread may change that.
    """
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        resource_tracker.ensure_running()  # which lets some through again as it starts
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


class Served(Protocol):
    """What lives in a worker of a `WorkerPool`."""

    def close(self) -> None:
        """Called as the worker ends."""
        ...


class WorkerPool:
    """Processes that each make something of their own, keep it, and answer calls of its methods.

    Args:
        makers: One for each process; picklable.
        where: What error messages call the work.
    """

    def __init__(self, makers: Sequence[Callable[[], Served]], where: str = "evaluate") -> None:
        self._where = where
        self._deadline: float | None = None  # of the stop, where there was one
        # Never fork: torch and pygame hold threads and locks that a forked child inherits broken.
        context = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        try:
            with holding_signals():
                for make in makers:
                    ours, theirs = context.Pipe()
                    self._connections.append(ours)
                    process = context.Process(target=_serve, args=(theirs, make), daemon=True)
                    process.start()
                    theirs.close()
                    self._processes.append(process)
        except BaseException:  # ctrl-C among others: at its end this process would wait for workers that nobody closes
            self.close()
            raise

    def ask(self, worker: int, method: str, argument: Any) -> None:
        """Has a worker call a method; each call has one answer.

        Raises:
            OfflineRLError: the worker is gone.
        """
        with self._as_worker_error():
            self._connections[worker].send((method, argument))

    def answer(self, worker: int) -> Any:
        """What the worker's method returned; waits for it.

        Raises:
            OfflineRLError: the method raised, or the worker is gone.
        """
        with self._as_worker_error():
            answer = self._connections[worker].recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def ready(self, workers: Collection[int], timeout_seconds: float | None = None) -> list[int]:
        """Those of the workers that have an answer; waits until one has, or for `timeout_seconds`."""
        found = multiprocessing.connection.wait([self._connections[worker] for worker in workers], timeout_seconds)
        return [worker for worker in workers if self._connections[worker] in found]

    def stop(self, workers: Collection[int]) -> dict[int, Any]:
        """Has busy workers answer early with what they have, and waits 8 s at most; nothing but `close` may follow.

        A worker learns of it where its method calls `stop_requested`; one that has just answered ignores it.

        Args:
            workers: Those that were asked and whose answers were not taken yet.

        Returns:
            The answers by worker; an OfflineRLError where `answer` would raise it. Workers that take longer are ended
            and have none.

        Raises:
            KeyboardInterrupt: A second ctrl-C; the workers that have not answered are ended.
        """
        answers: dict[int, Any] = {}
        try:
            for worker in workers:
                with suppress(OSError):  # the worker is gone, which its answer says
                    self._connections[worker].send(_STOP)
            self._deadline = time.monotonic() + _SECONDS_TO_END
            while waiting := {*workers} - answers.keys():
                ready = self.ready(waiting, max(0.0, self._deadline - time.monotonic()))
                if not ready:
                    break
                for worker in ready:
                    try:
                        answers[worker] = self.answer(worker)
                    except OfflineRLError as error:
                        answers[worker] = error
        finally:
            for worker in {*workers} - answers.keys():
                self._processes[worker].kill()
        return answers

    @contextmanager
    def _as_worker_error(self) -> Iterator[None]:
        """Says in one line that the other side of a connection is gone."""
        try:
            yield
        except (EOFError, OSError) as error:
            raise OfflineRLError(
                "a worker process ended",
                where=self._where,
                hint="run it with workers=0 (collect: workers=1) to see why, or with fewer if memory is short; a "
                "script needs its `if __name__ == '__main__':` line",
            ) from error

    def close(self) -> None:
        """Ends the processes, which close what they made; those that take longer than 8 s, all together, are killed."""
        for connection in self._connections:
            connection.close()
        now = time.monotonic()
        deadline = max(self._deadline or now + _SECONDS_TO_END, now + _SECONDS_TO_CLOSE)
        for process in self._processes:
            process.join(timeout=max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()


_connection: Connection | None = None
"""In a worker: the connection to who asks."""


_STOP = None
"""The one message that a worker is sent while it makes an answer; calls of methods are pairs."""

_stopped_at: float | None = None
"""In a worker: when it read, while it made the present answer, that it should stop; of `time.monotonic`."""


def stop_requested(seconds_ago: float = 0.0) -> bool:
    """In a worker that makes an answer: whether it should return now with what it has. False outside of workers.

    Args:
        seconds_ago: True only if the worker has known for so long.

    Raises:
        OfflineRLError: Nobody waits for the answer any more: the other side has closed the connection.
    """
    global _stopped_at
    if _connection is not None and _stopped_at is None and _connection.poll(0):
        try:
            _connection.recv()  # a stop: the next call comes after this one's answer
        except (EOFError, OSError):
            raise OfflineRLError("the answer is not needed any more", where="worker") from None
        _stopped_at = time.monotonic()
    return _stopped_at is not None and time.monotonic() - _stopped_at >= seconds_ago


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Ignores a signal, in this process alone: what is ignored by SIG_IGN stays so in those it starts."""


def _leave_with_parent() -> None:
    """Ends this process when its parent has ended, even in the middle of an answer."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _serve(connection: Connection, make: Callable[[], Served]) -> None:
    """A worker's life: answers calls until the other side closes."""
    global _connection, _stopped_at
    _connection = connection
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent ends it
    for number in _SIGNALS[1:]:  # likewise, but processes that the work starts get them
        signal.signal(number, _do_nothing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    served: Served | None = None
    try:
        while True:
            message = connection.recv()
            if message is _STOP:  # sent while the answer was on its way
                continue
            method, argument = message
            _stopped_at = None
            try:
                served = served or make()
                connection.send(getattr(served, method)(argument))
            except OfflineRLError as error:
                connection.send(error)
            except Exception as error:
                connection.send(OfflineRLError(f"{type(error).__name__}: {error}", where="environment in a worker"))
    except (EOFError, OSError):
        pass
    finally:
        if served is not None:
            served.close()
