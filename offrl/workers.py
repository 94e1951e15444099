"""Worker processes, as collection and evaluation start them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from typing import Any

from offrl.errors import ConfigError


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
            mend="use functools.partial and classes of an importable module, or work in this process (see `workers`)",
        ) from error


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes started in the block ignore ctrl-C, from their first moment on: it is for the parent to end them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
