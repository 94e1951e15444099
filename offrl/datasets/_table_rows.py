"""The cells of a table as arrays, each checked on its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.datasets._table_columns import FoundColumns
from offrl.datasets._table_files import Table, is_empty, moments, numbers
from offrl.errors import DatasetError

_FINITE = "a finite number in the range of float32"


@dataclass(frozen=True)
class Rows:
    """The cells of a table's R rows as numbers; NaN where a cell is empty.

    Attributes:
        episode: int64 [R], numbered as they first occur.
        episode_names: the cell of each episode.
        action: int64 [R], numbered as they first occur; -1 where empty.
        action_cells: the cell of each action.
        observations: float32 [R, D].
        rewards: [R].
        step: [R], or None where the table has no such column, as the next ones.
        probability: [R].
        terminated: [R].
        truncated: [R].
        legal: bool [R, A]; False where empty.
    """

    episode: NDArray[np.int64]
    episode_names: list[Any]
    action: NDArray[np.int64]
    action_cells: list[Any]
    observations: NDArray[np.float32]
    rewards: NDArray[np.float64]
    step: NDArray[np.float64] | None
    probability: NDArray[np.float64] | None
    terminated: NDArray[np.float64] | None
    truncated: NDArray[np.float64] | None
    legal: NDArray[np.bool_] | None

    @classmethod
    def read(cls, table: Table, found: FoundColumns) -> Rows:
        """Reads the columns and checks every cell on its own."""
        parts: dict[str, list[NDArray[Any]]] = {}
        episodes, actions = _Numbering(), _Numbering()
        first_row = 0
        for chunk in table.chunks(found.names):
            part = _chunk(table, found, chunk, first_row, episodes, actions)
            for name, array in part.items():
                parts.setdefault(name, []).append(array)
            first_row += len(part["episode"])
        if not first_row:
            raise DatasetError("holds no rows", where=table.path, expected="a header and 1 row or more")
        if not actions.cells:
            raise DatasetError("holds no transitions", where=table.path, expected="an action in 1 row or more")
        optional = dict.fromkeys(("step", "probability", "terminated", "truncated", "legal"))
        joined: dict[str, Any] = {**optional, **{name: np.concatenate(arrays) for name, arrays in parts.items()}}
        return cls(**joined, episode_names=list(episodes.cells), action_cells=list(actions.cells))


class _Numbering:
    """Cells of any kind, numbered in the order in which they first occur.

    Spaces around texts do not count, and true and false are names in Parquet as in CSV.
    """

    def __init__(self) -> None:
        self.cells: dict[Any, int] = {}

    def __call__(self, cells: Any) -> NDArray[np.int64]:
        """Numbers [n]; -1 for an empty cell."""
        known = self.cells
        plain = (str(cell).strip() if isinstance(cell, str | bool) else cell for cell in cells)
        found = [-1 if is_empty(cell) else known.setdefault(cell, len(known)) for cell in plain]
        return np.array(found, np.int64)


def _chunk(
    table: Table, found: FoundColumns, chunk: dict[str, Any], first_row: int, episodes: _Numbering, actions: _Numbering
) -> dict[str, NDArray[Any]]:
    """A part of each array of `Rows`."""
    part: dict[str, NDArray[Any]] = {}
    for name, column, numbering in (("episode", found.episode, episodes), ("action", found.action, actions)):
        try:
            part[name] = numbering(chunk[column])
        except TypeError:  # a list or the like
            raise table.fault("nested values", row=first_row, column=column, expected="a number or text") from None

    def checked(column: str, is_right: Any, expected: str, where: Any = True) -> NDArray[np.float64]:
        values = numbers(table, column, chunk[column], first_row)
        wrong = np.flatnonzero(~is_right(values) & where)
        if wrong.size:
            raise _wrong(table, column, values[wrong[0]], first_row + int(wrong[0]), expected)
        return values

    empty = np.flatnonzero(part["episode"] < 0)
    if empty.size:
        raise table.fault("is empty", row=first_row + empty[0], column=found.episode, expected="the row's episode")
    has_action = part["action"] >= 0
    vectors = [checked(column, _is_float32, _FINITE) for column in found.observations]
    part["observations"] = np.stack(vectors, axis=1).astype(np.float32)
    part["rewards"] = checked(found.reward, _is_float32, _FINITE, has_action)
    lost = np.flatnonzero(~has_action & (np.nan_to_num(part["rewards"]) != 0))
    if lost.size:
        raise table.fault(
            "is empty beside a reward",
            row=first_row + lost[0],
            column=found.action,
            expected="an action; a row without one only says what the step before it led to",
        )
    if found.step is not None:
        part["step"] = moments(table, found.step, chunk[found.step], first_row)
        missing = np.flatnonzero(~np.isfinite(part["step"]))
        if missing.size:
            raise _wrong(table, found.step, part["step"][missing[0]], first_row + int(missing[0]), _FINITE)
    if found.probability is not None:
        part["probability"] = checked(found.probability, _is_probability, "over 0, at most 1, or empty", has_action)
    for name, flag in (("terminated", found.terminated), ("truncated", found.truncated)):
        if flag is not None:
            part[name] = checked(flag, _is_flag, "0 or 1", has_action)
    if found.legal is not None:
        legal = [checked(column, _is_flag, "0 or 1", has_action) for column in found.legal]
        part["legal"] = np.stack(legal, axis=1) == 1
    return part


def _wrong(table: Table, column: str, value: np.float64, row: int, expected: str) -> DatasetError:
    """About a cell; of an empty one also how many there are, and what to do about them."""
    if not np.isnan(value):
        return table.fault(f"is {value:g}", row=row, column=column, expected=expected)
    file, number = table.row_in_file(row)
    count = sum(is_empty(cell) for chunk in table.chunks([column]) for cell in chunk[column])
    more = f" ({count:,} cells of the column are)" if count > 1 else ""
    return DatasetError(
        f"is empty or NaN{more}",
        where=f"{file}: row {number}, column {column!r}",
        expected=expected,
        hint="fill them with a number, and say where in a column of its own, or leave such episodes out",
    )


def _is_float32(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    fits: NDArray[np.bool_] = np.abs(values) <= np.finfo(np.float32).max
    return fits


def _is_probability(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Over 0, because the policy took the action."""
    known: NDArray[np.bool_] = (values > 0) & (values <= 1)
    return known | np.isnan(values)


def _is_flag(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (values == 0) | (values == 1)
    return found
