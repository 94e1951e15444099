"""Locks between processes that end with the process that holds them, however it ends."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from offrl.errors import InUseError


@contextmanager
def locked(path: Path, *, target: Path | None = None, wait: bool = False) -> Iterator[None]:
    """Holds the lock `path`, a file of this purpose alone, which is removed in the end.

    The directory in which the lock lies appears where it is missing, and then goes again where the block raises and it
    is empty.

    Args:
        path: Of the lock, such as `runs/bcq-001/.lock`.
        target: What it protects, for the message; default: the lock's directory.
        wait: Until whoever has it lets go, rather than raise.

    Raises:
        InUseError: Another process, or another thread of this one, has it.
        OSError: The lock cannot be written.
    """
    target = path.parent if target is None else target
    file, is_new = _acquire(path, target, wait)
    try:
        yield
    except BaseException:
        _release(path, file)
        if is_new:
            with suppress(OSError):
                path.parent.rmdir()
        raise
    _release(path, file)


def clear_after_kill(path: Path, remove: Callable[[], object] = lambda: None, left: Sequence[Path] = ()) -> None:
    """Removes a lock that nobody holds any more, and before it what the process that was killed with it left.

    For whoever returns without the lock, because what it protects is whole already: the next who takes the lock would
    remove them, too, but may never come. A lock that is held is left alone, as is one that cannot be written.

    Args:
        path: Of the lock.
        remove: Called while the lock is held; not called where there is none, because a lock is the last that goes.
        left: Where one of these is there, the lock is taken although there is none: a process that met an error at the
            very end, such as a disk that fails, gave back its lock and could not remove them.
    """
    mode = "a+" if any(each.exists() for each in left) else "r+"
    with suppress(OSError), path.open(mode, encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_open_at(file, path):
            remove()
            path.unlink()


def _acquire(path: Path, target: Path, wait: bool) -> tuple[IO[str], bool]:
    """The lock, and whether its directory was made for it."""
    while True:
        is_new = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+", encoding="utf-8")
        except FileNotFoundError:  # the one before removed the directory in between
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            file.close()
            raise InUseError(
                f"is in use by {holder}", where=target, hint="wait until it has ended, or name another path"
            ) from None
        if _is_open_at(file, path):
            break
        file.close()  # the one before removed it: whoever comes next would lock another file
    holder = f"process {os.getpid()} of {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
    with suppress(OSError):  # it is held also where the disk is full
        file.truncate(0)
        os.write(file.fileno(), holder.encode())
    return file, is_new


def _release(path: Path, file: IO[str]) -> None:
    path.unlink(missing_ok=True)  # while it is held, so that none removes another's
    file.close()


def _is_open_at(file: IO[str], path: Path) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
