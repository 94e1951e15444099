"""Disks that are small, or lose their power: a tmpfs, and an ext4 image on a loop device. They need root on Linux."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SHUTDOWN, _WITHOUT_FLUSH = 0x8004587D, 2  # ext4's ioctl: from now on nothing reaches the disk, not even the journal


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """A disk of so many bytes over the directory `place`.

    Raises:
        OSError, subprocess.CalledProcessError: It cannot be mounted here.
    """
    _call("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    try:
        yield
    finally:
        _call("umount", str(place))


def resize(place: Path, size: int) -> None:
    """Makes room on a `small_disk`."""
    _call("mount", "-o", f"remount,size={size}", str(place))


class Image:
    """An ext4 disk in a file, to be mounted over the directory `place`.

    Args:
        file: Of the image; written anew.
        place: Where it is mounted, by `with image.mounted():`.

    Raises:
        OSError, subprocess.CalledProcessError: It cannot be made here.
    """

    def __init__(self, file: Path, place: Path) -> None:
        self._file, self._place, self._empty = file, place, file.with_suffix(".empty")
        with self._empty.open("wb") as image:
            image.truncate(48 * 2**20)
        _call("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", str(self._empty))

    def clear(self) -> None:
        """Makes it empty."""
        shutil.copyfile(self._empty, self._file)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """The disk is there, with what reached it before."""
        _call("mount", "-o", "loop", str(self._file), str(self._place))
        try:
            yield
        finally:
            _call("umount", str(self._place))

    def cut_power(self) -> None:
        """From now on nothing reaches the disk; what was not synchronised is lost."""
        descriptor = os.open(self._place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSH))
        finally:
            os.close(descriptor)


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
