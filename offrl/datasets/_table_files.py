"""Tables in CSV and Parquet, in one file or several: the cells of some columns, a few thousand rows at a time."""

from __future__ import annotations

import csv
import io
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
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
    """Whether it is a table by its name, or a directory of tables."""
    return bool(tables_in(path)) if path.is_dir() else path.suffix.lower() in SUFFIXES


def tables_in(directory: Path) -> tuple[Path, ...]:
    """The tables in a directory without shards, by name; hidden files, and Spark's that begin with _, are none."""
    files = [each for each in directory.iterdir() if not each.name.startswith((".", "_"))]
    if any(each.suffix == ".npz" for each in files):
        return ()
    return tuple(sorted(each for each in files if each.suffix.lower() in SUFFIXES and not each.is_dir()))


class Table:
    """A table on disk, in one file or several. Rows count from 0, through all files.

    Args:
        path: The file, or the directory of the files.
        files: With the same columns, in the order of their rows.
        names: Of all columns, in the order of the first file.
    """

    def __init__(self, path: Path, files: tuple[Path, ...], names: tuple[str, ...]) -> None:
        self.path = path
        self.files = files
        self.names = names
        self._first_rows: list[int] = []  # of the files that have been read

    def chunks(self, columns: Sequence[str]) -> Iterator[dict[str, Sequence[Any]]]:
        """The cells of these columns by name: texts of CSV, numbers, texts or None of Parquet.

        Raises:
            DatasetError: A file is damaged, or a row has more or fewer cells than the header.
        """
        row, self._first_rows = 0, []
        for file in self.files:
            self._first_rows.append(row)
            read = _parquet_chunks if _is_parquet(file) else _csv_chunks
            try:
                for chunk in read(file, columns):
                    yield chunk
                    row += len(chunk[columns[0]])
            except DatasetError:
                raise
            except Exception as error:  # pyarrow fails in many ways on damaged bytes
                raise _unreadable(file, error) from error

    def row_in_file(self, row: int) -> tuple[Path, int]:
        """The file of a row that has been read, and the row there, from 1 below the header, as people count."""
        number = bisect_right(self._first_rows, row) - 1
        return self.files[number], row - self._first_rows[number] + 1

    def fault(self, what: str, *, row: int, column: str, expected: str, hint: str | None = None) -> DatasetError:
        """An error about one cell."""
        file, number = self.row_in_file(row)
        return DatasetError(what, where=f"{file}: row {number}, column {column!r}", expected=expected, hint=hint)


def open_table(path: Path) -> Table:
    """Reads the names of the columns.

    Args:
        path: A file, or a directory of files of one kind with the same columns.

    Raises:
        DatasetError: No such file, not a table, two columns of one name, or files that do not belong together.
        MissingDependencyError: pyarrow is needed and not installed.
    """
    files = tables_in(path) if path.is_dir() else (path,)
    names = _names(files[0])
    for file in files[1:]:
        if _is_parquet(file) != _is_parquet(files[0]):
            raise DatasetError(
                f"holds {files[0].name} and {file.name}",
                where=path,
                expected="tables of one kind, .csv or .parquet",
                hint="give each kind a directory of its own",
            )
        if others := {*_names(file)} ^ {*names}:
            raise DatasetError(
                f"has other columns than {files[0].name}: {', '.join(sorted(others))}",
                where=file,
                expected="the same columns in all tables of a directory",
                hint="move what is another table elsewhere",
            )
    return Table(path, files, names)


def _names(path: Path) -> tuple[str, ...]:
    """Of the columns of one file."""
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
    return names


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


def _csv_chunks(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Sequence[Any]]]:
    rows = _csv_rows(path)
    header = [name.strip() for name in next(rows)]
    places = {name: header.index(name) for name in columns}
    chunk: list[list[str]] = []
    for index, row in enumerate(rows):
        if len(row) != len(header):
            raise DatasetError(
                f"row {index + 1} has {len(row)} cells",
                where=path,
                expected=f"{len(header)}, as the header",
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


def _parquet_chunks(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Sequence[Any]]]:
    parquet = _pyarrow_parquet()
    with open_regular(path) as packed, parquet.ParquetFile(packed) as file:
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
            raise table.fault(
                f"{str(cell)[:40]!r}", row=first_row + index, column=column, expected="a number", hint=_as_number(cell)
            ) from None
    return values


def _as_number(cell: Any) -> str | None:
    """How to write what is no number as one; None for what nobody can guess."""
    text = str(cell).strip().lower()
    if isinstance(cell, list | tuple) or text.startswith("["):
        return "give each number of a list a column of its own"
    if text in ("yes", "no", "y", "n", "t", "f"):
        return "write 1 and 0, or true and false"
    if re.fullmatch(r"[+-]?[\d.]+ ?%", text):
        return "write a share, such as 0.5 for 50 %"
    if re.fullmatch(r"[+-]?\d*,\d+", text):
        return "write decimals with a point"
    if isinstance(cell, date) or re.match(r"\d+[./-]\d+[./-]\d+", text):
        return "write days since a date as a number; as what orders the rows, 2024-03-01 can be read"
    if text:
        return "give each kind a column of its own, of 1 and 0"
    return None


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
