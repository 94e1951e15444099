"""Every file event of a process, seen before it happens: seccomp's user notifications, of system calls.

A process installs a filter and hands its listener to a supervisor, who then lets each write, fsync, rename, ... happen,
lets it fail, or kills the process in front of it. So the events of C and Rust code are seen as well as Python's. Linux
only; `are_seen()` says whether it works here.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import re
import select
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# Where each call has the descriptor or the path that it changes; numbers for x86-64 and for arm64, None where there
# is no such call. A rename is named by what it replaces.
_CALLS: dict[str, tuple[str, str, int | None, int | None]] = {
    "write": ("write", "fd 0", 1, 64),
    "pwrite64": ("write", "fd 0", 18, 68),
    "writev": ("write", "fd 0", 20, 66),
    "pwritev": ("write", "fd 0", 296, 70),
    "sendfile": ("write", "fd 0", 40, 71),
    "copy_file_range": ("write", "fd 2", 326, 285),
    "fallocate": ("write", "fd 0", 285, 47),
    "ftruncate": ("truncate", "fd 0", 77, 46),
    "truncate": ("truncate", "path 0", 76, 45),
    "fsync": ("fsync", "fd 0", 74, 82),
    "fdatasync": ("fsync", "fd 0", 75, 83),
    "rename": ("rename", "path 1", 82, None),
    "renameat": ("rename", "at 2", 264, 38),
    "renameat2": ("rename", "at 2", 316, 276),
    "link": ("link", "path 1", 86, None),
    "linkat": ("link", "at 2", 265, 37),
    "symlink": ("link", "path 1", 88, None),
    "symlinkat": ("link", "at 1", 266, 36),
    "mkdir": ("mkdir", "path 0", 83, None),
    "mkdirat": ("mkdir", "at 0", 258, 34),
    "rmdir": ("unlink", "path 0", 84, None),
    "unlink": ("unlink", "path 0", 87, None),
    "unlinkat": ("unlink", "at 0", 263, 35),
    "open": ("open", "path 0", 2, None),
    "openat": ("open", "at 0", 257, 56),
}
_OPEN_FLAGS = {"open": 1, "openat": 2}  # the argument with the flags
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_MACHINES = {"x86_64": (0xC000003E, 0, 317), "aarch64": (0xC00000B7, 1, 277)}  # audit number, column, seccomp's number

_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_CONTINUE = 1
_RANDOM = re.compile(r"[0-9a-f]{12,}|(?<=\.tmp)\w{6}$|(?<=\.)\d+(?=\.partial)")
_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER, _NEW_LISTENER = 38, 1, 8


class Event(NamedTuple):
    """Something about to happen to a file.

    Attributes:
        kind: write, truncate, fsync, rename, link, mkdir, unlink, or open for writing.
        path: relative to the directory that is watched; what is random in temporary names is a `*`.
    """

    kind: str
    path: str


def install_filter() -> int:
    """Makes every file event of this process, its threads and children wait for a supervisor.

    Returns:
        The listener's descriptor, for a `Watch` in another process.

    Raises:
        OSError: The kernel, or the container, does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    program = _program()
    buffer = ctypes.create_string_buffer(program, len(program))
    about = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    listener: int = libc.syscall(_machine()[2], _SET_MODE_FILTER, _NEW_LISTENER, about)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def are_seen() -> bool:
    """Whether file events can be watched here; tried in a child."""
    child = os.fork()
    if not child:
        with suppress(BaseException):
            install_filter()
            os._exit(0)
        os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _machine() -> tuple[int, int, int]:
    found = _MACHINES.get(platform.machine())
    if found is None or platform.system() != "Linux":
        raise OSError(errno.ENOSYS, "file events are watched on Linux on x86-64 and arm64 only")
    return found


def _numbers() -> dict[int, str]:
    column = _machine()[1]
    found = {name: (first, second)[column] for name, (_, _, first, second) in _CALLS.items()}
    return {number: name for name, number in found.items() if number is not None}


def _program() -> bytes:
    """The filter as BPF: notify of the calls above, but for files opened to be read and for stdout and stderr."""
    architecture, _, _ = _machine()
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 0)]
    notify, allow = (_RETURN, 0, 0, _NOTIFY), (_RETURN, 0, 0, _ALLOW)
    for number, name in _numbers().items():
        how, argument = _CALLS[name][1].split()
        if name in _OPEN_FLAGS:
            load = (_LOAD, 0, 0, 16 + 8 * _OPEN_FLAGS[name])
            code += [(_EQUAL, 0, 4, number), load, (_ANY_BIT, 0, 1, _WRITING), notify, allow]
        elif how == "fd":
            code += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, 16 + 8 * int(argument)), (_GREATER, 0, 1, 2), notify, allow]
        else:
            code += [(_EQUAL, 0, 1, number), notify]
    return b"".join(struct.pack("HBBI", *each) for each in [*code, allow])


class Watch:
    """The supervisor's side: the events of one process below a directory, one after the other.

    Args:
        listener: What `install_filter` returned, in this process.
        root: The directory; what happens elsewhere is let through and not counted.
    """

    def __init__(self, listener: int, root: Path) -> None:
        self._listener, self._root, self._names = listener, str(root.resolve()), _numbers()
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._pending = 0

    def next(self, seconds: float) -> Event | None:
        """The next event, which waits until `allow` or `fail` is called; None where none comes within the time."""
        for _, state in self._poll.poll(seconds * 1000):
            if not state & select.POLLIN:  # the process has ended
                self._poll.unregister(self._listener)
                continue
            notification = bytearray(80)
            try:
                fcntl.ioctl(self._listener, _RECEIVE, notification)
            except OSError:  # it was killed in between
                continue
            self._pending, thread, _, number, _, _, *arguments = struct.unpack("QIIiIQ6Q", notification)
            kind, place, *_ = _CALLS[self._names[number]]
            path = self._path(thread, place, arguments)
            if path is not None and (path == self._root or path.startswith(f"{self._root}/")):
                return Event(kind, _RANDOM.sub("*", path[len(self._root) + 1 :]) or ".")
            self.allow()
        return None

    def allow(self) -> None:
        """Lets it happen."""
        self._answer(struct.pack("QqiI", self._pending, 0, 0, _CONTINUE))

    def fail(self, number: int) -> None:
        """Lets the call return an error instead."""
        self._answer(struct.pack("QqiI", self._pending, 0, -number, 0))

    def close(self) -> None:
        """Gives up the listener."""
        os.close(self._listener)

    def _answer(self, answer: bytes) -> None:
        with suppress(OSError):  # it was killed in between
            fcntl.ioctl(self._listener, _ANSWER, answer)

    def _path(self, thread: int, place: str, arguments: list[int]) -> str | None:
        how, at = place.split()[0], int(place.split()[1])
        try:
            if how == "fd":
                return str(Path(f"/proc/{thread}/fd/{arguments[at] & 0xFFFFFFFF}").readlink())
            text = _text_at(thread, arguments[at + (how == "at")])
            descriptor = ctypes.c_int(arguments[at] & 0xFFFFFFFF).value if how == "at" else -100  # AT_FDCWD
            start = f"/proc/{thread}/cwd" if descriptor == -100 else f"/proc/{thread}/fd/{descriptor}"
            return os.path.normpath(Path(start).readlink() / text)
        except OSError:
            return None


def _text_at(thread: int, address: int) -> str:
    with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        found = memory.read(4096 - address % 4096)  # the next page need not be there
        return os.fsdecode((found if b"\0" in found else found + memory.read(4096)).split(b"\0", 1)[0])
