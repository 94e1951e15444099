"""Files that are either whole or not there; where what can be made again is kept; sizes in words."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path to write to, beside `path`; moved to `path` at the end, removed if the block raises.

    The bytes reach the disk before the name does, so that a power cut leaves no empty file under it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Gives a directory to fill, beside `path`; it becomes `path` at the end and is removed if the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        yield partial
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def sync(path: Path) -> None:
    """Waits until a file's bytes have reached the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a JSON file in one step."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def require_writable(path: Path) -> None:
    """Checks that a file can be written there, before the work whose result it is to hold.

    Raises:
        OSError: it cannot.
    """
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
