"""Tables in CSV and Parquet files: the cells of the columns that are asked for, a few thousand rows at a time."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from offrl.errors import DatasetError, MissingDependencyError, missing_dependency
from offrl.system.files import open_regular

SUFFIXES = (".csv", ".parquet")
_ROWS = 8192  # whose cells are in memory at once, as objects; what they become is far smaller
_MOST_LINE = 2**24
_SAVE = "save the table again"


def is_table(path: Path) -> bool:
    """Whether the file is one of a table, by its name."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


@dataclass(frozen=True)
class Table:
    """A table on disk.

    Attributes:
        path: The file.
        names: Of all its columns, in order.
    """

    path: Path
    names: tuple[str, ...]

    def chunks(self, columns: Sequence[str]) -> Iterator[dict[str, Sequence[Any]]]:
        """The cells of these columns by name: texts of CSV, numbers, texts or None of Parquet.

        Raises:
            DatasetError: The file is damaged, or a row has more or fewer cells than the header.
        """
        read = _parquet_chunks if _is_parquet(self.path) else _csv_chunks
        try:
            yield from read(self, columns)
        except DatasetError:
            raise
        except Exception as error:  # pyarrow fails in many ways on damaged bytes
            raise _unreadable(self.path, error) from error

    def fault(self, what: str, *, row: int, column: str, expected: str, hint: str | None = None) -> DatasetError:
        """An error about one cell; rows count from 0 here, and from 1, below the header, in the message."""
        where = f"{self.path}: row {row + 1}, column {column!r}"
        return DatasetError(what, where=where, expected=expected, hint=hint)


def open_table(path: Path) -> Table:
    """Reads the names of the columns.

    Raises:
        DatasetError: No such file, not a table, or two columns of one name.
        MissingDependencyError: pyarrow is needed and not installed.
    """
    try:
        names = _parquet_names(path) if _is_parquet(path) else _csv_names(path)
    except FileNotFoundError:
        raise DatasetError("no such file", where=path, expected="a table in CSV or Parquet") from None
    except MissingDependencyError:
        raise
    except Exception as error:  # pyarrow fails in many ways on damaged bytes
        raise _unreadable(path, error) from error
    if not any(names):
        raise DatasetError("holds no rows", where=path, expected="a header and 1 row or more")
    if not _is_parquet(path) and len(names) == 1 and (separator := next(filter(names[0].__contains__, ";\t|"), None)):
        raise DatasetError(
            f"has one column, {names[0][:100]!r}",
            where=path,
            expected="columns separated by commas",
            hint=f"save it with commas in place of {separator!r}, and numbers with points",
        )
    if twice := [name for index, name in enumerate(names) if name in names[:index]]:
        raise DatasetError(f"has two columns {twice[0]!r}", where=path, expected="one of each name", hint=_SAVE)
    return Table(path, names)


def _unreadable(path: Path, error: Exception) -> DatasetError:
    kind = "a Parquet file" if _is_parquet(path) else "a CSV file in UTF-8, separated by commas"
    return DatasetError(f"cannot be read ({error})", where=path, expected=kind, hint=_SAVE)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _csv_rows(path: Path) -> Iterator[list[str]]:
    """The rows with something in them, the header first."""
    # Excel begins its files with a byte order mark.
    with open_regular(path) as packed, io.TextIOWrapper(packed, encoding="utf-8-sig", newline="") as file:
        yield from filter(None, csv.reader(_lines(file), strict=True))


def _lines(file: IO[str]) -> Iterator[str]:
    """The lines of a file, which has not to be one line of gigabytes."""
    while line := file.readline(_MOST_LINE):
        if len(line) == _MOST_LINE:
            raise ValueError(f"a line has more than {_MOST_LINE:,} characters")
        yield line


def _csv_names(path: Path) -> tuple[str, ...]:
    return tuple(name.strip() for name in next(_csv_rows(path), ()))


def _csv_chunks(table: Table, columns: Sequence[str]) -> Iterator[dict[str, Sequence[Any]]]:
    places = {name: table.names.index(name) for name in columns}
    rows = _csv_rows(table.path)
    next(rows)
    chunk: list[list[str]] = []
    for index, row in enumerate(rows):
        if len(row) != len(table.names):
            raise DatasetError(
                f"row {index + 1} has {len(row)} cells",
                where=table.path,
                expected=f"{len(table.names)}, as the header",
                hint=_SAVE,
            )
        chunk.append(row)
        if len(chunk) == _ROWS:
            yield {name: [row[place] for row in chunk] for name, place in places.items()}
            chunk = []
    if chunk:
        yield {name: [row[place] for row in chunk] for name, place in places.items()}


def _parquet_names(path: Path) -> tuple[str, ...]:
    parquet = _pyarrow_parquet()
    with open_regular(path) as packed, parquet.ParquetFile(packed) as file:
        return tuple(file.schema_arrow.names)


def _parquet_chunks(table: Table, columns: Sequence[str]) -> Iterator[dict[str, Sequence[Any]]]:
    parquet = _pyarrow_parquet()
    with open_regular(table.path) as packed, parquet.ParquetFile(packed) as file:
        for batch in file.iter_batches(batch_size=_ROWS, columns=list(columns)):
            yield {name: batch.column(name).to_pylist() for name in columns}


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise missing_dependency("pyarrow", extra="tables", purpose="Parquet files") from error
    return pyarrow.parquet


def is_empty(cell: Any) -> bool:
    """Whether there is nothing in a cell: no text, null, or the NaN that pandas writes for it."""
    return cell is None or cell != cell or (isinstance(cell, str) and not cell.strip())


def whole_number(cell: Any) -> int | None:
    """The integer in a cell, also where it is written as 3.0; None where there is none."""
    if isinstance(cell, str):
        return int(float(cell)) if re.fullmatch(r"[+-]?\d{1,9}(\.0*)?", cell.strip()) else None
    if isinstance(cell, int | float) and cell == cell // 1:
        return int(cell)
    return None


def numbers(table: Table, column: str, cells: Sequence[Any], first_row: int) -> NDArray[np.float64]:
    """Cells as numbers, [n]; true and false as 1 and 0, and NaN where there is nothing.

    Args:
        table: Where they are from, for messages.
        column: The name of their column.
        cells: Of one chunk.
        first_row: The chunk's first.

    Raises:
        DatasetError: A cell that is no number.
    """
    try:
        found = np.array(cells, np.float64)
    except (ValueError, TypeError):  # empty cells of CSV among others
        found = None
    if found is not None and found.ndim == 1:
        return found
    values = np.empty(len(cells))
    for index, cell in enumerate(cells):
        try:
            values[index] = _number(cell)
        except (ValueError, TypeError):
            is_list = isinstance(cell, list | tuple) or str(cell).startswith("[")
            raise table.fault(
                f"{str(cell)[:40]!r}",
                row=first_row + index,
                column=column,
                expected="a number",
                hint="give each number of a list a column of its own" if is_list else None,
            ) from None
    return values


def _number(cell: Any) -> float:
    if is_empty(cell):
        return float("nan")
    if isinstance(cell, str) and cell.strip().lower() in ("true", "false"):
        return float(cell.strip().lower() == "true")
    return float(cell)


def moments(table: Table, column: str, cells: Sequence[Any], first_row: int) -> NDArray[np.float64]:
    """Cells that order the rows, [n]: numbers, or dates and times (of UTC where no zone is named) in seconds.

    Raises:
        DatasetError: A cell that is neither.
    """
    return numbers(table, column, [_in_seconds(cell) for cell in cells], first_row)


def _in_seconds(cell: Any) -> Any:
    """The number of a date or time, or the cell."""
    moment = cell
    if isinstance(cell, str) and re.match(r"\d{4}-", cell):  # else a time stamp of digits could pass for a date
        try:
            moment = datetime.fromisoformat(cell)
        except ValueError:
            return cell
    if isinstance(moment, datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return moment.toordinal() if isinstance(moment, date) else cell
