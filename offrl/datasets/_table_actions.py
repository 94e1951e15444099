"""Which action each row of a table took: its names, numbers and legal columns in one order."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from offrl.datasets._table_columns import FoundColumns
from offrl.datasets._table_files import Table, whole_number
from offrl.datasets._table_rows import Rows
from offrl.errors import DatasetError
from offrl.spec import default_action_names

_MAX_ACTIONS = 2**15  # beyond that it is no action table but something else
_SHOWN = 12  # names that a message lists


def find_actions(
    table: Table, found: FoundColumns, rows: Rows, given: tuple[str, ...] | None
) -> tuple[tuple[str, ...], NDArray[np.int64], list[int]]:
    """The actions' names, the action of each row [R] (-1 where there is none), and which legal column is of which.

    Args:
        table: For messages.
        found: Its columns.
        rows: Its cells.
        given: The names, where somebody says them.

    Raises:
        DatasetError: An unknown action, names and numbers in one column, or legal columns that fit no actions.
    """
    labels = [whole_number(label) for label in found.legal_labels]
    is_numbered = sorted(-1 if label is None else label for label in labels) == list(range(len(labels)))
    names = given
    if names is None:
        _require_one_spelling(table, found, rows)
        names = _names_of(table, found, rows, is_numbered)
    places = {name: index for index, name in enumerate(names)}
    has_numbers = any(whole_number(name) is not None for name in names)  # then a number is a name, and no index
    indices = []
    for number, cell in enumerate(rows.action_cells):
        whole = whole_number(cell)
        index = places.get(str(cell).strip())  # as it is written, such as 007
        if index is None and whole is not None:
            index = places.get(str(whole), None if has_numbers else whole)
        if index is None or not 0 <= index < len(names):
            raise _unknown_action(table, found, rows, number, names)
        indices.append(index)
    actions = np.append(indices, -1)[rows.action]
    if found.legal is None:
        return names, actions, []
    if len(found.legal) != len(names):
        raise DatasetError(
            f"has {len(found.legal)} legal columns",
            where=table.path,
            expected=f"{len(names)}, one for each action",
            hint="name all actions with --action-names (TableColumns.action_names)",
        )
    if set(found.legal_labels) == set(names):
        order = [found.legal_labels.index(name) for name in names]
    elif is_numbered:
        order = [labels.index(index) for index in range(len(names))]
    elif found.legal_listed:
        order = list(range(len(names)))
    else:
        raise DatasetError(
            f"has legal columns for {', '.join(found.legal_labels)}",
            where=table.path,
            expected=f"{', '.join(names)}",
            hint="list the columns in the order of the actions: --legal-columns (TableColumns.legal)",
        )
    return names, actions, order


def action_notes(found: FoundColumns, rows: Rows, names: Sequence[str], *, are_given: bool) -> Iterator[str]:
    """What may be meant otherwise: ids that were taken for numbers from 0, and names that differ in case only."""
    if are_given or found.legal is not None:
        return
    num_taken = len({whole_number(cell) for cell in rows.action_cells})
    if len(names) > max(100, 10 * num_taken) and names == default_action_names(len(names)):
        yield (
            f"actions are numbers from 0, so that the task has {len(names):,}, of which {num_taken} occur: if they are "
            f"ids, {_naming(rows)}"
        )
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            yield f"{other!r} and {name!r} are two actions: write them alike if they are one"


def _require_one_spelling(table: Table, found: FoundColumns, rows: Rows) -> None:
    """Refuses texts of one number that are written in several ways, as codes such as 007 and 7 are."""
    written: dict[int, str] = {}
    for number, cell in enumerate(rows.action_cells):
        whole = whole_number(cell)
        if whole is None or not isinstance(cell, str):
            continue
        digits = cell.partition(".")[0].removeprefix("+")
        if written.setdefault(whole, digits) != digits:
            raise table.fault(
                f"{cell!r} is the number {whole}, as {written[whole]!r} is",
                row=_first_row_of(rows, number),
                column=found.action,
                expected="one way of writing each action",
                hint="name the actions as they are written: --action-names 007,7 (TableColumns.action_names)",
            )


def _names_of(table: Table, found: FoundColumns, rows: Rows, is_numbered: bool) -> tuple[str, ...]:
    """What the table itself says about the actions' names."""
    if found.legal is not None and not is_numbered:
        return found.legal_labels
    whole = [whole_number(cell) for cell in rows.action_cells]
    if None not in whole:
        highest = max(number for number in whole if number is not None)
        return default_action_names(len(found.legal or ()) or min(max(highest + 1, 2), _MAX_ACTIONS))
    first_named = whole.index(None)
    if any(number is not None for number in whole) or not isinstance(rows.action_cells[first_named], str):
        raise _unknown_action(table, found, rows, first_named, None)
    if found.legal is not None:
        raise DatasetError(
            f"has legal columns for {', '.join(found.legal_labels)}, and actions with names",
            where=table.path,
            expected="the actions' names in that order",
            hint="pass --action-names (TableColumns.action_names)",
        )
    return tuple(sorted({cell.strip() for cell in rows.action_cells}))


def _unknown_action(
    table: Table, found: FoundColumns, rows: Rows, number: int, names: tuple[str, ...] | None
) -> DatasetError:
    cell = rows.action_cells[number]
    near = difflib.get_close_matches(str(cell), names or (), n=1)
    hint = f"did you mean {near[0]}?" if near else None
    expected = "a whole number in every row, or a name in every row"
    if names is not None:
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        expected = f"0..{len(names) - 1} or one of {shown}"
        if whole_number(cell) == len(names):
            hint = "actions count from 0"
        elif names == default_action_names(len(names)) and whole_number(cell) is not None:
            hint = f"if these are ids, {_naming(rows)}"
    where = _first_row_of(rows, number)
    return table.fault(f"{str(cell)[:40]!r}", row=where, column=found.action, expected=expected, hint=hint)


def _first_row_of(rows: Rows, number: int) -> int:
    return int(np.flatnonzero(rows.action == number)[0])


def _naming(rows: Rows) -> str:
    """How to make names of the numbers that there are: an option, where that is short enough to be typed."""
    found = sorted({whole for cell in rows.action_cells if (whole := whole_number(cell)) is not None})
    if len(found) > _SHOWN:
        return f"write them as names in the table, such as id-{found[-1]} for {found[-1]}"
    return f"name them: --action-names {','.join(map(str, found))}"
