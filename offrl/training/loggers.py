"""Where a run's numbers go: CSV files, the console, TensorBoard, Weights & Biases."""

from __future__ import annotations

import csv
import hashlib
import io
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TextIO

from tqdm import tqdm

from offrl.errors import RunError, missing_dependency
from offrl.system.files import replacing, sync

_SCORES_NAME = "evaluations.csv"


class Logger(Protocol):
    """Receives the numbers of a run, every so many gradient steps.

    One that has a method `log_evaluation(step, scores)` is given the scores of `fit`'s evaluator, too. They may come
    after later rows of metrics.
    """

    def log(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Takes the numbers at gradient step `step`.

        Args:
            step: gradient steps done; larger at every call.
            metrics: what is reproducible: losses, values.
            timings: what is not: updates_per_second, data_wait.
        """
        ...

    def close(self) -> None:
        """Called once, at the end of the run, also when it fails."""
        ...


class CSVLogger:
    """Writes metrics.csv (step and what is reproducible) and timings.csv (step and what is not), a row a call.

    The columns are those of the first row, and every later row has the same ones: what comes at other times belongs in
    a file of its own, as the scores of an evaluator do, evaluations.csv. Floats are in full precision.

    Args:
        directory: where the files lie; made if missing.
        resume_step: None for a new run; else the gradient step that the run continues from: rows past it, and a
            last line cut short, are dropped, so that the files end up as those of a run never stopped.
        synced: Of a resumed run: what `sync` gave for the checkpoint that it continues from, to check the files by.

    Raises:
        RunError: a new run finds the files, or a resumed one finds another table in them, or has lost rows.
    """

    def __init__(
        self, directory: str | Path, resume_step: int | None = None, synced: Mapping[str, Any] | None = None
    ) -> None:
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._metrics, self._timings, self._scores = self._tables = [
            _Table(directory / name, resume_step, (synced or {}).get(name))
            for name in ("metrics.csv", "timings.csv", _SCORES_NAME)
        ]

    @property
    def columns(self) -> list[str] | None:
        """Those of metrics.csv; None before its first row."""
        return self._metrics.columns

    def log(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Appends a row to each file.

        Raises:
            RunError: other columns than in the first row.
        """
        self._metrics.append(step, metrics)
        self._timings.append(step, timings)

    def log_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Appends a row to evaluations.csv.

        Raises:
            RunError: other columns than in the first row.
        """
        self._scores.append(step, scores)

    def sync(self) -> dict[str, Any]:
        """Waits until the rows have reached the disk, and tells how far metrics.csv reaches, and its hash.

        Not so of the other files, which differ from one run to the next.
        """
        tables = [table for table in self._tables if table.columns is not None]
        for table in tables:
            sync(table.path)
        if tables:
            sync(self._metrics.path.parent)  # where the files' names are
        return {} if self._metrics.columns is None else {self._metrics.path.name: self._metrics.extent()}

    def close(self) -> None:
        """Nothing to do: every row is written already."""


def read_scores(directory: Path) -> dict[int, float]:
    """Step -> score, of a run's evaluations.csv; empty where nothing was scored.

    Raises:
        RunError: it is no table of scores.
    """
    path = directory / _SCORES_NAME
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {int(row["step"]): float(row["score"]) for row in csv.DictReader(file)}
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"damaged ({error})", where=path, expected="columns step and score, of numbers") from error


class _Table:
    """A CSV file whose first column is the step; the file appears with its first row."""

    def __init__(self, path: Path, resume_step: int | None, synced: Mapping[str, Any] | None) -> None:
        self.path = path
        self.columns: list[str] | None = None
        self._size, self._hash = 0, hashlib.sha256()
        if resume_step is None and path.exists():
            raise RunError("exists already", where=path, hint="resume the run, or take another directory")
        content = path.read_bytes() if path.exists() else b""
        if synced is not None:
            self._require_same(content, synced)
        if content and resume_step is not None:
            self._drop_rows_after(resume_step, content)

    def append(self, step: int, values: Mapping[str, float]) -> None:
        columns = ["step", *values]
        row = [step, *(float(value) for value in values.values())]
        if self.columns is not None and columns != self.columns:
            raise RunError(
                f"columns {columns[1:]} at step {step}",
                where=self.path,
                expected=f"{self.columns[1:]}, as in the first row",
                hint="log what comes at other times to a file of its own",
            )
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([row] if self.columns else [columns, row])
        self.columns = columns
        content = text.getvalue().encode()
        try:
            with self.path.open("ab") as file:
                file.write(content)
        except OSError as error:
            raise RunError(
                f"cannot be written ({error.strerror})",
                where=self.path,
                expected="room for another row",
                hint="free some space, and go on from the latest checkpoint with --resume (resume=True)",
            ) from error
        self._count(content)

    def extent(self) -> dict[str, Any]:
        return {"size": self._size, "sha256": self._hash.hexdigest()}

    def _count(self, content: bytes) -> None:
        self._size += len(content)
        self._hash.update(content)

    def _require_same(self, content: bytes, synced: Mapping[str, Any]) -> None:
        """Refuses a file that is not what it was when the checkpoint was made, and then maybe more."""
        size = synced.get("size")
        if size != len(content[:size]) or hashlib.sha256(content[:size]).hexdigest() != synced.get("sha256"):
            raise RunError(
                "was changed since the checkpoint was made",
                where=self.path,
                expected=f"its first {size} bytes as they were",
                hint="restore the file, or start a new run from this one's weights with --init (init=...)",
            )

    def _drop_rows_after(self, step: int, content: bytes) -> None:
        text = io.StringIO(content.decode("utf-8", "replace"), newline="")
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
        kept_content = "".join([header, *kept]).encode()
        if kept_content != content:
            with replacing(self.path) as partial:
                partial.write_bytes(kept_content)
        self._count(kept_content)


class ConsoleLogger:
    """A progress bar: smoothed loss, updates a second, time left; plain lines where there is no terminal.

    Args:
        total_updates: gradient steps of the whole run.
        initial: gradient steps done before, where a run resumes.
        stream: None for stderr.
    """

    def __init__(self, total_updates: int, initial: int = 0, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._total = total_updates
        self._initial = initial
        self._start = time.monotonic()
        self._tenth = 10 * initial // max(total_updates, 1)
        self._loss: float | None = None
        self._bar = None
        if self._stream.isatty():
            self._bar = tqdm(
                total=total_updates, initial=initial, unit=" updates", file=self._stream, dynamic_ncols=True
            )

    def log(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Moves the bar, or writes a line after every tenth of the run; the loss is metrics["loss"], if there."""
        if "loss" in metrics:
            loss = float(metrics["loss"])
            self._loss = loss if self._loss is None else 0.9 * self._loss + 0.1 * loss
        if self._bar is not None:
            if self._loss is not None:
                self._bar.set_postfix(loss=f"{self._loss:.4g}", refresh=False)
            self._bar.update(step - self._bar.n)
            return
        tenth = 10 * step // max(self._total, 1)
        if tenth > self._tenth:
            self._tenth = tenth
            self._stream.write(self._line(step) + "\n")
            self._stream.flush()

    def log_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Writes a line with the score."""
        line = f"update {step} of {self._total}: score {scores['score']:.4g}"
        if {"low", "high"} <= scores.keys():
            line += f" (95 % interval {scores['low']:.4g} to {scores['high']:.4g})"
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            self._stream.write(line + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Leaves the finished bar on the screen."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, step: int) -> str:
        rate = (step - self._initial) / max(time.monotonic() - self._start, 1e-9)
        left = (self._total - step) / rate if rate > 0 else 0.0
        loss = "" if self._loss is None else f", loss {self._loss:.4g}"
        return (
            f"update {step} of {self._total} ({100 * step // max(self._total, 1)} %){loss}, "
            f"{rate:.1f} updates/s, {tqdm.format_interval(left)} left"
        )


class TensorBoardLogger:
    """Writes TensorBoard's event files: metrics by their names, timings under "timings/".

    `tensorboard --logdir runs` shows them, all runs below `runs` together. Needs the extra `tensorboard`.

    Args:
        directory: where the event file goes, such as `tensorboard` in the run's own; both appear with the first row.
        resume_step: None for a new run; else the gradient step that the run continues from: what was written past it
            is not shown any more.

    Raises:
        MissingDependencyError: tensorboard is not installed.
    """

    def __init__(self, directory: str | Path, resume_step: int | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_dependency("tensorboard", extra="tensorboard", purpose="TensorBoardLogger") from error
        purge_step = None if resume_step is None else resume_step + 1
        # Not opened yet: `fit` wants the directory of a new run to be empty.
        self._open = partial(SummaryWriter, str(directory), purge_step=purge_step)
        self._writer: Any = None

    def log(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Writes the numbers; they are on disk when it returns."""
        if self._writer is None:
            self._writer = self._open()
        for name, value in _with_timings(metrics, timings).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def log_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Writes the scores under "evaluation/"."""
        self.log(step, {f"evaluation/{name}": value for name, value in scores.items()}, {})

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()


class WandbLogger:
    """Hands the numbers to Weights & Biases: metrics by their names, timings under "timings/".

    Needs the extra `wandb`, and an account unless `mode="offline"`, which writes to disk for a later `wandb sync`.

    Args:
        init: what `wandb.init` takes, such as project, name, config, mode, dir; for a run that is resumed, its `id` and
            `resume="must"`.

    Raises:
        MissingDependencyError: wandb is not installed.
    """

    def __init__(self, **init: Any) -> None:
        try:
            # By name: wandb's own directory of runs, ./wandb, passes for an empty package where it is not installed.
            from wandb import init as start
        except ImportError as error:
            raise missing_dependency("wandb", extra="wandb", purpose="WandbLogger") from error
        self._run: Any = start(**init)

    def log(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Hands the numbers over; wandb sends them, or writes them, in the background."""
        self._run.log(_with_timings(metrics, timings), step=step)

    def log_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Hands the scores over under "evaluation/", with their own step as `evaluation/step`.

        wandb takes steps in rising order only, and scores may come after later rows of metrics.
        """
        self._run.log({"evaluation/step": step, **{f"evaluation/{name}": value for name, value in scores.items()}})

    def close(self) -> None:
        """Waits until wandb has sent or written everything."""
        self._run.finish()


def _with_timings(metrics: Mapping[str, float], timings: Mapping[str, float]) -> dict[str, float]:
    return {**metrics, **{f"timings/{name}": value for name, value in timings.items()}}
