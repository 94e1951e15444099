"""What a directory holds, to compare it with what another holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple


class Difference(NamedTuple):
    """How a tree differs from the one that it should be.

    Attributes:
        missing: Paths that are not there.
        changed: Paths with another content.
        left: Paths that are there and should not.
    """

    missing: tuple[str, ...]
    changed: tuple[str, ...]
    left: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether there is a difference."""
        return any(self)

    def to_text(self) -> str:
        """The first of each kind."""
        kinds = ((name, paths) for name, paths in self._asdict().items() if paths)
        return ", ".join(
            f"{name} {paths[0]}{f' and {len(paths) - 1} more' * (len(paths) > 1)}" for name, paths in kinds
        )


def read_tree(root: Path, ignored: Iterable[str] = ()) -> dict[str, str]:
    """The SHA-256 of each file below `root`, what links point to, and `directory` for directories.

    Args:
        root: Where to begin; a path in the result is relative to it.
        ignored: Patterns of paths that are left out.
    """
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if any(fnmatchcase(name, pattern) for pattern in ignored):
            continue
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_dir():
            found[name] = "directory"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def compare(found: Mapping[str, str], expected: Mapping[str, str]) -> Difference:
    """What is missing, changed or too much in `found`."""
    return Difference(
        tuple(sorted(expected.keys() - found.keys())),
        tuple(sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name])),
        tuple(sorted(found.keys() - expected.keys())),
    )
