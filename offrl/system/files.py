"""Files and directories that are either whole or not there, also after a kill or a power cut; sizes in words.

Everything that offrl writes goes the same way: under a name of its own beside the target, onto the disk, and by one
rename to its place. Whoever writes holds a lock on what it writes, which ends with its process: what lies there
unlocked was left by one that was killed, and the next who writes to the same target removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path, *, sweeps: bool = True) -> Iterator[Path]:
    """Gives a path to write to, beside `path`; moved to `path` at the end, removed if the block raises.

    The bytes are on the disk before the name is, and the name before this returns.

    Args:
        path: Of the file.
        sweeps: Whether what killed processes left of earlier attempts is looked for, which reads the whole directory;
            False for whom writes many files there and has called `remove_all_partials`, or made the directory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if sweeps:
        remove_partials(path)
    with _held(path, os.O_CREAT | os.O_EXCL | os.O_RDWR) as partial:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Gives a directory to fill, beside `path`; it becomes `path` at the end and is removed if the block raises.

    Raises:
        OSError: `path` exists by then and is not an empty directory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_partials(path)
    with _held(path, os.O_RDONLY | os.O_DIRECTORY) as partial:
        yield partial
        sync_tree(partial)
        partial.rename(path)
        sync(path.parent)


@contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """As `new_directory`, for a directory that may be there already, which is then removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_partials(path)
    with _held(path, os.O_RDONLY | os.O_DIRECTORY) as partial:
        yield partial
        sync_tree(partial)
        if path.exists():  # no call exchanges two directories everywhere: for a moment none has the name
            discarded = _partial(path)
            path.rename(discarded)
            partial.rename(path)
            shutil.rmtree(discarded, ignore_errors=True)
        else:
            partial.rename(path)
        sync(path.parent)


@contextmanager
def _held(path: Path, flags: int) -> Iterator[Path]:
    """A new file or directory under a name of its own beside `path`, locked; removed where it still has that name."""
    while True:
        partial = _partial(path)
        if flags & os.O_DIRECTORY:
            partial.mkdir()
        try:
            descriptor = os.open(partial, flags, 0o666)
        except FileNotFoundError:  # taken for litter before it was locked
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_open_at(descriptor, partial):
            break
        os.close(descriptor)
    try:
        yield partial
    finally:
        _remove(partial)
        os.close(descriptor)


def _partial(path: Path) -> Path:
    # No process number: in containers every process is number 1.
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")


def remove_directory(path: Path) -> None:
    """Removes a directory that is there whole or not at all: it loses its name first."""
    discarded = _partial(path)
    path.rename(discarded)
    shutil.rmtree(discarded, ignore_errors=True)


def remove_partials(path: Path) -> None:
    """Removes what processes that were killed left of their attempts to write `path`."""
    # Or of attempts to write such an attempt, where the writer's writer replaces, too.
    name = re.compile(rf"\.+{re.escape(path.name)}(\.[0-9a-f]{{12}}\.partial)+")
    with suppress(OSError):  # somebody else removes it, or it is not ours to remove
        for found in [each for each in path.parent.iterdir() if name.fullmatch(each.name)]:
            with suppress(OSError):
                descriptor = os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(found)
                finally:
                    os.close(descriptor)


def remove_all_partials(directory: Path) -> None:
    """Removes what processes that were killed left of their attempts to write anything into `directory`."""
    name = re.compile(r"\.(.+)\.[0-9a-f]{12}\.partial")
    for target in {found[1] for each in directory.iterdir() if (found := name.fullmatch(each.name))}:
        remove_partials(directory / target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_open_at(descriptor: int, path: Path) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def sync(path: Path) -> None:
    """Waits until a file's bytes, or the names in a directory, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Waits until everything in a directory has reached the disk."""
    for root, _, names in os.walk(directory, topdown=False):
        for name in names:
            if not (Path(root) / name).is_symlink():
                sync(Path(root) / name)
        sync(Path(root))


def open_regular(path: Path) -> IO[bytes]:
    """Opens a file for reading; pipes and devices, which might never end, are refused without being read.

    Raises:
        OSError: there is none, it cannot be read, or it is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is a pipe or device and no regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_at_most(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file; of a larger one its first `max_bytes` + 1 bytes, by which it is known.

    Raises:
        OSError: see `open_regular`.
    """
    with open_regular(path) as file:
        # A read of as many bytes as there may be at most would allocate them first.
        return file.read(min(os.fstat(file.fileno()).st_size, max_bytes) + 1)


def require_writable(path: Path) -> None:
    """Checks that a file can be written there, before the work whose result it is to hold.

    Raises:
        OSError: it cannot, or the path names no file.
    """
    if not path.name:  # of an empty text, or of a root
        raise OSError(errno.EINVAL, "is no name of a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def cache_home() -> Path:
    """Where what can be made or fetched again is kept: $OFFRL_CACHE, else ~/.cache/offrl."""
    return Path(os.environ.get("OFFRL_CACHE") or Path.home() / ".cache" / "offrl")


def parse_size(text: str) -> int:
    """Bytes, from 500M or 1.5G; units are decimal.

    Raises:
        ValueError: not such a text.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text, re.IGNORECASE)
    if found is None:
        raise ValueError(f"{text!r} is not a size such as 500M or 1.5G")
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " "))
