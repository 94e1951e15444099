"""What this machine has for this process, and worker processes, as collection and evaluation start them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from offrl.errors import ConfigError


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Bytes that this process may still take without swapping, as far as the system says."""
    limits = []
    try:  # Linux; counts what the page cache would give back
        meminfo = Path("/proc/meminfo").read_text()
        limits.append(next(int(line.split()[1]) * 1024 for line in meminfo.splitlines() if "MemAvailable" in line))
    except (OSError, StopIteration):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # a container's limit, cgroups 2 and 1
        try:
            limits.append(int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):  # absent, or "max"
            continue
    return min(limits)


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
