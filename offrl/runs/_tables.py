"""The tables of a run, `metrics.csv` and its like: rows are only ever added, and hashes vouch for them."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offrl.checks import is_whole
from offrl.errors import RunError
from offrl.runs.checkpoint import saved_logs
from offrl.system.files import open_regular, replacing
from offrl.system.json_files import read_json, write_sealed_json

LOGS_NAME = "logs.json"
"""Says how far each table of a run reaches, and its hash: as of the last checkpoint, or the last score after it."""
METRICS_NAME = "metrics.csv"
SCORES_NAME = "evaluations.csv"


def table_extents(run: Path) -> dict[str, dict[str, Any]]:
    """Name -> size and SHA-256 of the rows of a run's tables that somebody vouches for; later rows may follow.

    That is `logs.json`, or where there is none the newest checkpoint whose state is whole.

    Raises:
        RunError: `logs.json` is damaged.
    """
    path = run / LOGS_NAME
    try:
        found = read_json(path)
    except FileNotFoundError:
        found = saved_logs(run / "checkpoints")
    except (OSError, ValueError) as error:
        raise _damaged_logs(path, error) from error
    for name, extent in found.items():
        if not isinstance(extent, dict) or not is_whole(extent.get("size")) or extent["size"] < 0:
            raise _damaged_logs(path, f"{name!r} is {extent!r}"[:300])
    return found


def _damaged_logs(path: Path, reason: object) -> RunError:
    return RunError(
        f"damaged ({reason})",
        where=path,
        expected="sizes and hashes of the run's tables",
        hint="restore it, or delete it: the newest checkpoint vouches for metrics.csv then",
    )


def read_table(path: Path) -> bytes:
    """The content of a run's table, as far as it was vouched for as it was written; any other file as it is.

    Rows that came after the last checkpoint have no hash yet. A last one that is not finished is left out.

    Raises:
        OSError: It cannot be read.
        RunError: It was changed since it was written.
    """
    extent = table_extents(path.parent).get(path.name)  # first: a run in progress adds to both, to the table before
    with open_regular(path) as file:
        content = file.read()
    if extent is None:
        return content
    require_extent(path, content, extent, LOGS_NAME if (path.parent / LOGS_NAME).exists() else "the checkpoint")
    header_and_rows = content[: content.rfind(b"\n") + 1].splitlines()
    num_vouched = content[: extent["size"]].count(b"\n")
    steps = [row.partition(b",")[0] for row in header_and_rows]
    if twice := {*steps[:num_vouched]}.intersection(steps[num_vouched:]):
        raise RunError(
            f"has a second row of step {ascii(min(twice).decode(errors='replace'))[1:-1]}",
            where=path,
            expected="a row for each step",
            hint="remove the rows that nobody logged",
        )
    return content[: max(content.rfind(b"\n") + 1, extent["size"])]


def copy_tables(run: Path, target: Path, names: Sequence[str]) -> None:
    """Copies some of a run's tables, those that there are, and vouches for the copies.

    Raises:
        RunError: One was changed since it was written, or cannot be read.
    """
    extents = {}
    for name in names:
        if (run / name).is_file():
            try:
                content = read_table(run / name)
            except OSError as error:
                raise RunError(f"cannot be read ({error.strerror})", where=run / name, expected="a table") from error
            (target / name).write_bytes(content)
            extents[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_sealed_json(target / LOGS_NAME, extents)


def require_extent(path: Path, content: bytes, extent: Mapping[str, Any], by: str) -> None:
    """Raises RunError unless a table begins with the rows that it had when `by` was written."""
    size = extent.get("size")
    if size != len(content[:size]) or hashlib.sha256(content[:size]).hexdigest() != extent.get("sha256"):
        raise RunError(
            f"was changed since {by} was made",
            where=path,
            expected=f"its first {size} bytes as they were",
            hint=f"restore it; where you changed it on purpose, delete {LOGS_NAME}"
            if by == LOGS_NAME
            else "restore the file, or start a new run from this one's weights with --init (init=...)",
        )


def read_scores(directory: Path) -> dict[int, float]:
    """Step -> score, of a run's evaluations.csv; empty where nothing was scored.

    Raises:
        RunError: it is no table of scores, or was changed.
    """
    return read_column(directory / SCORES_NAME, "score")


def read_column(path: Path, column: str) -> dict[int, float]:
    """Step -> number, of a column of a run's table; empty where there is no table.

    Raises:
        RunError: it has no such column, or was changed.
    """
    if not path.exists():
        return {}
    try:
        rows = csv.DictReader(io.StringIO(read_table(path).decode(), newline=""))
        return {int(row["step"]): float(row[column]) for row in rows}
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise RunError(f"damaged ({error})", where=path, expected=f"columns step and {column}, of numbers") from error


class Table:
    """A CSV file whose first column is the step; the file appears with its first row.

    Args:
        path: Of the file.
        resume_step: See `CSVLogger`. Rows past it go in `drop`.
        extents: Of a resumed run: by the name of who vouches for it, what it has to begin with.
    """

    def __init__(self, path: Path, resume_step: int | None, extents: Mapping[str, Mapping[str, Any]]) -> None:
        self.path = path
        self.columns: list[str] | None = None
        self._size, self._hash = 0, hashlib.sha256()
        if resume_step is None and path.exists():
            raise RunError("exists already", where=path, hint="resume the run, or take another directory")
        self._found = path.read_bytes() if path.exists() else b""
        for by, extent in extents.items():
            require_extent(path, self._found, extent, by)
        self._kept = b"" if resume_step is None else self._rows_until(resume_step)

    @property
    def has_later_rows(self) -> bool:
        """Whether there is something to `drop`."""
        return self._kept != self._found

    def drop(self) -> None:
        """Removes the rows past the step that the run goes on from, and a last one that was cut short."""
        if self.has_later_rows:
            with replacing(self.path) as partial:
                partial.write_bytes(self._kept)
        self._count(self._kept)
        self._found = self._kept = b""

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a row.

        Raises:
            RunError: Other columns than in the first row, or it cannot be written.
        """
        columns = ["step", *values]
        row = [step, *(float(value) for value in values.values())]
        if self.columns is not None and columns != self.columns:
            raise RunError(
                f"columns {columns[1:]} at step {step}",
                where=self.path,
                expected=f"{self.columns[1:]}, as in the first row",
                hint="log what comes at other times to a file of its own",
            )
        content = _lines([row] if self.columns else [columns, row])
        self.columns = columns
        try:
            with self.path.open("ab") as file:
                file.write(content)
        except OSError as error:
            raise no_room(self.path, error) from error
        self._count(content)

    def add_columns(self, names: Sequence[str]) -> None:
        """Adds columns that are NaN in the rows so far; the file has other content then, and another hash."""
        assert self.columns is not None
        self.columns = [*self.columns, *names]
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [[*row, *("nan" for _ in names)] for row in csv.reader(file)][1:]
        content = _lines([self.columns, *rows])
        try:
            with replacing(self.path) as partial:
                partial.write_bytes(content)
        except OSError as error:
            raise no_room(self.path, error) from error
        self._size, self._hash = 0, hashlib.sha256()
        self._count(content)

    def extent(self) -> dict[str, Any]:
        """How far it reaches, and its hash."""
        return {"size": self._size, "sha256": self._hash.hexdigest()}

    def _count(self, content: bytes) -> None:
        self._size += len(content)
        self._hash.update(content)

    def _rows_until(self, step: int) -> bytes:
        text = io.StringIO(self._found.decode("utf-8", "replace"), newline="")
        lines = [line for line in text if line.endswith("\n")]
        header, *rows = lines or [""]
        if header:
            self.columns = next(csv.reader([header]))
            if self.columns[0] != "step":
                raise RunError(f"columns {self.columns}", where=self.path, expected="step first, as CSVLogger writes")
        try:
            kept = [row for row in rows if int(row.split(",", 1)[0]) <= step]
        except ValueError as error:
            raise RunError(f"a row without a step ({error})", where=self.path, expected="rows of CSVLogger") from error
        return "".join([header, *kept]).encode()


def _lines(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def no_room(path: Path, error: OSError) -> RunError:
    """What to raise where a table cannot be written."""
    return RunError(
        f"cannot be written ({error.strerror})",
        where=path,
        expected="room for another row",
        hint="free some space, and go on from the latest checkpoint with --resume (resume=True)",
    )
