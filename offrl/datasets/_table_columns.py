"""The columns of a table that hold what `TableColumns` asks for, found in its header."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offrl.datasets.tables import TableColumns
from offrl.errors import DatasetError

_OPTIONAL = ("step", "probability", "terminated", "truncated")  # read under these names where nobody names others
_LEGAL = "legal_*"
_SHOWN = 12  # names that a message lists


_HINTS = {"episode": "where each row is a decision of its own, add a column that numbers the rows"}


@dataclass(frozen=True)
class FoundColumns:
    """The columns of one table, by what they hold.

    Attributes:
        episode: See `TableColumns`, as for all others.
        action: See there.
        reward: See there.
        observations: Names in the order of the observation.
        legal: Names in the table's order, or as listed; None where the table has none.
        legal_labels: For each of them the text that stands for its action.
        legal_listed: Whether they were listed one by one, in the order of the actions.
        step: None where the table has none.
        probability: None where the table has none.
        terminated: None where the table has none.
        truncated: None where the table has none.
    """

    episode: str
    action: str
    reward: str
    observations: tuple[str, ...]
    legal: tuple[str, ...] | None
    legal_labels: tuple[str, ...]
    legal_listed: bool
    step: str | None
    probability: str | None
    terminated: str | None
    truncated: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """All that are read."""
        single = (self.episode, self.action, self.reward, self.step, self.probability, self.terminated, self.truncated)
        return (*(name for name in single if name is not None), *self.observations, *(self.legal or ()))


def find_columns(
    columns: TableColumns, names: tuple[str, ...], path: Path, features: tuple[str, ...] | None = None
) -> FoundColumns:
    """Looks the columns up in a table's header.

    Args:
        columns: What to look for.
        names: The header.
        path: The table, for messages.
        features: Columns of the observation, in its order, where a task names them and `columns` says nothing else.

    Raises:
        DatasetError: A column that the table lacks, or that would be two things at once.
    """
    legal: list[tuple[str, str]] | None = None
    if columns.legal is not None or any(_matches(_LEGAL, names)):
        legal = _listed(columns.legal or _LEGAL, names, path, "legal")
    single: dict[str, Any] = {
        name: _named(getattr(columns, name), names, path, name) for name in ("episode", "action", "reward")
    }
    for name in _OPTIONAL:
        asked = getattr(columns, name) or (name if name in names else None)
        single[name] = None if asked is None else _named(asked, names, path, name)
    if features is not None and columns.observations == TableColumns.observations:
        observations = tuple(_named(name, names, path, "observations") for name in features)
    else:
        observations = tuple(name for name, _ in _listed(columns.observations, names, path, "observations"))
    found = FoundColumns(
        **single,
        observations=observations,
        legal=None if legal is None else tuple(name for name, _ in legal),
        legal_labels=tuple(label for _, label in legal or ()),
        legal_listed="*" not in (columns.legal or _LEGAL),
    )
    if twice := [name for index, name in enumerate(found.names) if name in found.names[:index]]:
        raise DatasetError(
            f"column {twice[0]!r} is asked for twice",
            where=path,
            expected="each column in one place",
            hint="make the pattern narrower, or list the columns",
        )
    return found


def _listed(text: str, names: tuple[str, ...], path: Path, field: str) -> list[tuple[str, str]]:
    """The columns that a list of names and patterns asks for, each with what `*` stands for in it."""
    found: list[tuple[str, str]] = []
    for item in filter(None, map(str.strip, text.split(","))):
        columns = [(item, item)] if item in names else list(_matches(item, names)) if "*" in item else []
        if not columns:
            raise _missing(item, names, path, field)
        found += columns
    return found


def _matches(pattern: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    expression = re.compile("(.*)".join(map(re.escape, pattern.split("*"))))
    for name in names:
        if match := expression.fullmatch(name):
            yield name, match[1]


def _named(name: str, names: tuple[str, ...], path: Path, field: str) -> str:
    if name not in names:
        raise _missing(name, names, path, field)
    return name


def _missing(name: str, names: tuple[str, ...], path: Path, field: str) -> DatasetError:
    option = "observation" if field == "observations" else field
    plural = "columns" if field in ("observations", "legal") else "column"
    near = difflib.get_close_matches(name.replace("*", ""), names, n=3)
    listed = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return DatasetError(
        f"has no column {name!r}",
        where=path,
        expected=f"one for --{option}-{plural} (TableColumns.{field}), of {', '.join(near) if near else listed}",
        hint=f"did you mean {near[0]}?" if near else _HINTS.get(field),
    )
