"""Signals that ask a process to end: ctrl-C, SIGTERM and SIGHUP, all answered alike."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end; a KeyboardInterrupt, so that whoever tidies up after ctrl-C does so here.

    Args:
        number: Of the signal.
        is_agreed: See below.

    Attributes:
        is_agreed: Whether all ranks end here together, after everything is saved; else others may know nothing of it.
        exit_code: 128 and the signal's number, as in shells: 130 after ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """

    def __init__(self, number: int, *, is_agreed: bool = False) -> None:
        super().__init__(signal.Signals(number).name)
        self.is_agreed = is_agreed
        self.exit_code = 128 + number


class StopRequest:
    """What a block under `stopping_on_signals` looks at: whether a signal has come, and which."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._has_come = False
        self._depth = 0
        self._is_late = False
        self._raises = False

    def __bool__(self) -> bool:
        """Whether a signal has come."""
        return self._number is not None

    def set(self, number: int = signal.SIGINT) -> None:
        """Says that another process has met a signal: the first one that comes here is still no second one.

        All ranks are sent the same signal, one after the other, and may have told each other of it in between.
        """
        self._number = self._number or number

    def error(self, *, is_agreed: bool = False) -> Interrupted:
        """To be raised when everything is saved."""
        return Interrupted(self._number or signal.SIGINT, is_agreed=is_agreed)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """No signal cuts the block; a second one that came meanwhile is raised after it."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self._is_late and not self._depth:
            raise self.error()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """The first signal already ends the block, without a word; for work before which everything was saved."""
        self._raises = True
        try:
            yield
        except Interrupted as error:
            self._number = self._number or error.exit_code - 128
        finally:
            self._raises = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_second, self._has_come = self._has_come, True
        if not (is_second or self._raises):
            self._number = self._number or number
        elif self._depth:
            self._is_late = True
        else:
            raise Interrupted(number)


@contextmanager
def stopping_on_signals() -> Iterator[StopRequest]:
    """The first signal sets the request that it gives, so that nothing is cut in half; a second one ends the block.

    Only in the main thread, which alone may handle signals; elsewhere the request stays unset. What ignores a signal,
    as under nohup, goes on to ignore it.
    """
    request = StopRequest()
    with _handling(request._handle):
        yield request


@contextmanager
def raising_on_signals() -> Iterator[None]:
    """In the block SIGTERM and SIGHUP raise `Interrupted`, as ctrl-C raises KeyboardInterrupt."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    with _handling(handle):
        yield


@contextmanager
def _handling(handle: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {}
    try:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, handle)
        yield
    finally:
        for number, handler in previous.items():
            with suppress(TypeError):  # set by something outside Python
                signal.signal(number, handler)
