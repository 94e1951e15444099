"""JSON files: written whole, with a hash of what they say; read with a limit, without numbers that are none."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from offrl.errors import ConfigError
from offrl.system.files import read_at_most, replacing

MAX_BYTES = 64 * 2**20
_SEALED, _SHA256 = "sealed", "content_sha256"
_FORMAT = 1


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a JSON file in one step.

    Raises:
        ValueError: it holds NaN or infinity, which JSON does not know.
    """
    content = json_bytes(data)
    with replacing(path) as partial:
        partial.write_bytes(content)


def json_bytes(data: Mapping[str, Any]) -> bytes:
    """The content of a JSON file.

    Raises:
        ValueError: it holds NaN or infinity, which JSON does not know.
    """
    return f"{json.dumps(data, indent=2, allow_nan=False)}\n".encode()


def require_json(data: Mapping[str, Any], where: str) -> None:
    """Checks that a file can hold it, before anything is done that would be lost.

    Raises:
        ConfigError: it holds what JSON does not know.
    """
    try:
        json.dumps(data, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{error}", where=where, expected="what JSON knows: finite numbers, texts, lists and dicts of these"
        ) from error


def write_sealed_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a JSON file that says the hash of its own content, so that a change to it is noticed by `read_json`."""
    write_json(path, sealed(data))


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data with two entries more: that there is a hash, and the hash."""
    content = json.loads(json.dumps({_SEALED: _FORMAT, **data}, allow_nan=False))  # as it will be read
    return {**content, _SHA256: _digest(content)}


def read_json(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """What a JSON file says, without the entries of its seal. One without a seal, as others write, is read as it is.

    Raises:
        OSError: There is no such file, it cannot be read, or it is no regular file.
        ValueError: It is larger than `max_bytes`, not JSON, no object, holds a number that is not finite, or was
            changed since its seal was written.
    """
    content = read_at_most(path, max_bytes)
    if len(content) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    return parse_json(content)


def parse_json(content: bytes | str) -> dict[str, Any]:
    """As `read_json`, of the content of a file."""
    try:
        found = json.loads(content, parse_constant=_refuse_number, parse_float=_finite, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"it is of type {type(found).__name__}, not a JSON object")
    if _SEALED in found or _SHA256 in found:
        seal = found.pop(_SHA256, None)
        if found.get(_SEALED) != _FORMAT or seal != _digest(found):
            raise ValueError("it was changed since it was written: its content and content_sha256 differ")
        del found[_SEALED]
    return found


def is_sealed(content: bytes) -> bool:
    """Whether a JSON file says the hash of its own content."""
    return f'"{_SHA256}"'.encode() in content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large for a number")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found
