"""Keeps freed memory in malloc's pool instead of returning it to the system."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h


def keep_freed_memory() -> None:
    """Lets glibc keep the large blocks that are freed, for the whole process; elsewhere it does nothing.

    Every update allocates the same tensors again. By default each large one is a fresh mapping, whose pages the
    kernel has to clear: a quarter of an update with NatureEncoder, half of one with CompactEncoder, two thirds of
    gathering a batch.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the largest that glibc accepts
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
