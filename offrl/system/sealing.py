"""Seals: the hash of every file of a directory, written last, checked when a file is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offrl.system.files import open_regular
from offrl.system.json_files import read_json, write_sealed_json

SEAL_NAME = "seal.json"


def write_sealed(directory: Path, contents: Mapping[str, bytes], **about: Any) -> None:
    """Writes files, and `seal.json` with the size and SHA-256 of each and whatever else is to be kept with them.

    Args:
        directory: One that is not in its place yet, see `offrl.system.files.new_directory`.
        contents: By the names of the files.
        about: JSON-ready.
    """
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    _write_seal(directory, contents, about)


def seal_files(directory: Path, names: Sequence[str]) -> None:
    """Writes `seal.json` for files that are there already."""
    _write_seal(directory, {name: (directory / name).read_bytes() for name in names}, {})


def _write_seal(directory: Path, contents: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
    files = {name: _describe(content) for name, content in sorted(contents.items())}
    write_sealed_json(directory / SEAL_NAME, {**about, "files": files})


def read_seal(directory: Path) -> dict[str, Any] | None:
    """What the seal says; None where there is none.

    Raises:
        OSError, ValueError: it is there and cannot be read, or was changed.
    """
    try:
        found = read_json(directory / SEAL_NAME)
    except FileNotFoundError:
        return None
    if not isinstance(found.get("files"), dict):
        raise ValueError(f"{SEAL_NAME} names no files")
    return found


def read_sealed(directory: Path, name: str, seal: Mapping[str, Any] | None) -> bytes:
    """A file's content, checked against the seal of its directory where there is one.

    Raises:
        OSError: It cannot be read.
        ValueError: It was changed, or is none of those that were sealed.
    """
    with open_regular(directory / name) as file:
        content = file.read()
    if seal is not None:
        expected = seal["files"].get(name)
        if expected is None:
            raise ValueError(f"{SEAL_NAME} does not name it")
        if expected != _describe(content):
            raise ValueError(f"it was changed since it was written: {SEAL_NAME} has another sha256 for it")
    return content


def _describe(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
