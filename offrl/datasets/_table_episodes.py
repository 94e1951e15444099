"""A table of logged decisions as episodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.datasets._episodes import EpisodeLog
from offrl.datasets._table_actions import action_notes, find_actions
from offrl.datasets._table_columns import FoundColumns, find_columns
from offrl.datasets._table_files import Table, open_table
from offrl.datasets._table_rows import Rows
from offrl.datasets.tables import TableColumns
from offrl.errors import DatasetError
from offrl.shards.episode import split_episodes
from offrl.spec import TaskSpec

_ADD_LAST = "give a truncated episode one more row, with an empty action, that says what its last step led to"


def read_table(path: Path, columns: TableColumns, spec: TaskSpec | None = None) -> EpisodeLog:
    """Reads a table, which must fit in memory as numbers.

    Args:
        path: The file, or a directory of files.
        columns: Which columns hold what.
        spec: The task, where it is known: its actions, its features in its order, and how networks see them.

    Raises:
        ConfigError: Fewer than two actions.
        DatasetError: No such file, damaged, a column is missing, or a cell holds what cannot be learned from.
        MissingDependencyError: Parquet without pyarrow.
        SpecMismatchError: `spec` differs from the table's.
    """
    table = open_table(path)
    found = find_columns(columns, table.names, path, None if spec is None else spec.feature_names)
    rows = Rows.read(table, found)
    given = columns.action_names or (None if spec is None else spec.action_names)
    names, actions, legal_order = find_actions(table, found, rows, given)
    task = TaskSpec.vector(len(found.observations), names, feature_names=found.observations)
    if spec is not None:
        hint = "name the columns of that task, or leave the task out"
        spec.require_same(task, where=path, hint=hint, legal_actions=False)
        task = replace(task, scale=spec.scale, offset=spec.offset)
    has_action = actions >= 0
    legal = None if rows.legal is None else rows.legal[:, legal_order]
    if legal is not None:
        _require_legal(table, found, names, actions, legal)
    order, ends = _episodes_in_order(table, found, rows, has_action)
    episode_rows = np.diff(ends, prepend=-1)
    has_last = ~has_action[order[ends]]
    lengths = episode_rows - has_last
    terminated, truncated = _flags(table, found, rows, order, ends, has_last)
    steps = order[has_action[order]]
    num_lost = int((~terminated & ~has_last).sum())
    if len(steps) == num_lost:
        raise DatasetError("holds no transitions", where=path, expected="1 or more", hint=_ADD_LAST)
    arrays = {
        "actions": actions[steps],
        "rewards": rows.rewards[steps].astype(np.float32),
        "behaviour_probability": None if rows.probability is None else rows.probability[steps].astype(np.float32),
        "action_mask": None if legal is None else legal[steps],
    }
    return EpisodeLog(
        spec=task,
        episodes=split_episodes(rows.observations[order], arrays, lengths, terminated, truncated, has_last),
        num_transitions=len(steps) - num_lost,
        num_frames=len(order),
        environment={},
        generator={"name": "unknown"},
        notes=(
            *_notes(table, found, arrays, terminated, has_last),
            *action_notes(found, rows, names, are_given=given is not None),
        ),
    )


def _require_legal(
    table: Table, found: FoundColumns, names: tuple[str, ...], actions: NDArray[np.int64], legal: NDArray[np.bool_]
) -> None:
    """Refuses a table in which an action was taken that was not legal."""
    illegal = np.flatnonzero((actions >= 0) & ~legal[np.arange(len(actions)), actions])
    if illegal.size:
        raise table.fault(
            f"{names[actions[illegal[0]]]} is illegal there",
            row=int(illegal[0]),
            column=found.action,
            expected=f"1 in the legal column of every action taken ({len(illegal)} row(s) have 0)",
        )


def _episodes_in_order(
    table: Table, found: FoundColumns, rows: Rows, has_action: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows [R] episode by episode in their order, and the places [E] there where each episode ends."""
    order = np.arange(len(rows.episode))
    if rows.step is not None:
        order = np.lexsort((rows.step, rows.episode))
    episode = rows.episode[order]
    if rows.step is not None and found.step is not None:
        twice = np.flatnonzero((episode[1:] == episode[:-1]) & (np.diff(rows.step[order]) == 0))
        if twice.size:
            first, second = int(order[twice[0]]), int(order[twice[0] + 1])
            file, number = table.row_in_file(first)
            raise table.fault(
                f"is the same as in row {number}{f' of {file.name}' if len(table.files) > 1 else ''} of this episode",
                row=second,
                column=found.step,
                expected="another value in each row of an episode",
            )
    ends = np.append(np.flatnonzero(np.diff(episode)), len(episode) - 1)
    _, first_runs = np.unique(episode[ends], return_index=True)
    if len(first_runs) < len(ends):
        run = int(np.setdiff1d(np.arange(len(ends)), first_runs)[0])
        row = int(order[ends[run - 1] + 1])
        raise table.fault(
            f"{rows.episode_names[rows.episode[row]]!r} goes on after rows of another episode",
            row=row,
            column=found.episode,
            expected="the rows of an episode together",
            hint="sort the table, or name what orders it: --step-column (TableColumns.step)",
        )
    is_end = np.zeros(len(order), np.bool_)
    is_end[ends] = True
    is_start = np.append(True, is_end[:-1])
    missing = np.flatnonzero(~has_action[order] & (~is_end | is_start))
    if missing.size:
        raise table.fault(
            "is empty",
            row=int(order[missing[0]]),
            column=found.action,
            expected="an action; only the row after an episode's last step has none",
        )
    return order, ends


def _flags(
    table: Table,
    found: FoundColumns,
    rows: Rows,
    order: NDArray[np.int64],
    ends: NDArray[np.int64],
    has_last: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each episode terminated, and whether it was truncated, [E] and [E]."""
    at_end: dict[str, NDArray[np.bool_]] = {}
    for name, column, values in (
        ("terminated", found.terminated, rows.terminated),
        ("truncated", found.truncated, rows.truncated),
    ):
        if column is None or values is None:
            continue
        is_true = values[order] == 1
        at_end[name] = is_true[ends] | is_true[ends - has_last]
        is_true[ends] = is_true[ends - has_last] = False
        if is_true.any():
            raise table.fault(
                "is true inside an episode",
                row=int(order[np.flatnonzero(is_true)[0]]),
                column=column,
                expected="true only in an episode's last row",
                hint="give the rows after it an episode of their own, or correct the flag",
            )
    truncated = at_end.get("truncated", np.zeros(len(ends), np.bool_))
    return at_end.get("terminated", ~truncated), truncated


def _notes(
    table: Table,
    found: FoundColumns,
    arrays: dict[str, Any],
    terminated: NDArray[np.bool_],
    has_last: NDArray[np.bool_],
) -> Iterator[str]:
    """What the table did not say, and what was done about it."""
    if found.terminated is None and found.truncated is None:
        yield (
            f"no column says how episodes end: each of the {len(terminated)} is taken to terminate in its last row, so "
            "that nothing counts after it"
        )
    lost = int((~terminated & ~has_last).sum())
    if lost:
        yield f"{lost} truncated episode(s) lost their last step: what it led to is not there; {_ADD_LAST}"
    repeated = int((terminated & ~has_last).sum())
    if repeated:
        yield (
            f"what the last step of {repeated} terminated episode(s) led to is not there: the last observation stands "
            "for it; no return depends on it"
        )
    unknown = 0 if arrays["behaviour_probability"] is None else int(np.isnan(arrays["behaviour_probability"]).sum())
    if unknown:
        yield f"the probability of {unknown} action(s) is empty: it counts as unknown"
    if unread := [name for name in table.names if name not in found.names]:
        yield f"columns that were not read: {', '.join(name or '(one without a name)' for name in unread)}"
