"""Where a run's numbers go: CSV files, the console, TensorBoard, Weights & Biases."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TextIO

from tqdm import tqdm

from offrl.errors import missing_dependency
from offrl.runs._tables import LOGS_NAME, METRICS_NAME, SCORES_NAME, Table, no_room, table_extents
from offrl.system.files import sync
from offrl.system.json_files import write_sealed_json

_CHECKPOINT = "the checkpoint"


class Logger(Protocol):
    """Receives the numbers of a run, every so many gradient steps.

    One that has a method `log_evaluation(step, scores)` is given the scores of `fit`'s evaluator, too. They may come
    after later rows of metrics. One that has `log_end(step, reason)` is told why a run ends before its last update.
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
    a file of its own, as the scores of an evaluator do, evaluations.csv, whose columns may grow. Floats are in full
    precision.

    Args:
        directory: where the files lie; made if missing.
        resume_step: None for a new run; else the gradient step that the run continues from: rows past it, and a
            last line cut short, are dropped, so that the files end up as those of a run never stopped.
        synced: Of a resumed run: what `sync` gave for the checkpoint that it continues from, to check the files by.
        scores_step: `resume_step` of evaluations.csv, where that is another one.

    Raises:
        RunError: a new run finds the files, or a resumed one finds another table in them, or has lost rows.
    """

    def __init__(
        self,
        directory: str | Path,
        resume_step: int | None = None,
        synced: Mapping[str, Any] | None = None,
        *,
        scores_step: int | None = None,
    ) -> None:
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._logs = directory / LOGS_NAME
        extents = {_CHECKPOINT: synced or {}}
        if resume_step is not None and self._logs.exists():
            extents[LOGS_NAME] = table_extents(directory)
        self._metrics, self._timings, self._scores = self._tables = [
            Table(directory / name, step, {by: found[name] for by, found in extents.items() if name in found})
            for name, step in (
                (METRICS_NAME, resume_step),
                ("timings.csv", resume_step),
                (SCORES_NAME, resume_step if scores_step is None else scores_step),
            )
        ]
        self._vouched: dict[str, Any] = {}
        if resume_step is None or any(table.has_later_rows for table in self._tables):
            self._vouch_for_nothing()
        for table in self._tables:
            table.drop()
        if LOGS_NAME in extents:
            self._vouch()

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
        """Appends a row to evaluations.csv, whose last one comes after the last checkpoint.

        A score that some evaluations have and others have not, as a share of finished laps where no episode ended with
        one, is NaN where it is missing.

        Raises:
            RunError: It cannot be written.
        """
        known = self._scores.columns or ["step", *scores]
        if fresh := [name for name in scores if name not in known]:
            self._vouch_for_nothing()
            self._scores.add_columns(fresh)
        self._scores.append(step, {name: scores.get(name, math.nan) for name in [*known[1:], *fresh]})
        self.sync()

    def sync(self) -> dict[str, Any]:
        """Waits until the rows have reached the disk, and vouches for them in `logs.json`.

        Returns:
            How far metrics.csv reaches, and its hash; not so of the other files, which differ from one run to the next.

        Raises:
            RunError: They cannot be written.
        """
        try:
            for table in self._tables:
                if table.columns is not None:
                    sync(table.path)
            self._vouch()
        except OSError as error:
            raise no_room(self._logs, error) from error
        return {} if self._metrics.columns is None else {self._metrics.path.name: self._metrics.extent()}

    def _vouch(self) -> None:
        extents = {table.path.name: table.extent() for table in self._tables if table.columns is not None}
        if extents != self._vouched:
            write_sealed_json(self._logs, extents)  # syncs the directory, where the tables' names are, too
            self._vouched = extents

    def _vouch_for_nothing(self) -> None:
        """`logs.json` would vouch for rows that are gone, if this process ended before it is written anew."""
        self._logs.unlink(missing_ok=True)
        self._vouched = {}
        sync(self._logs.parent)

    def close(self) -> None:
        """Nothing to do: every row is written already."""


class ConsoleLogger:
    """A progress bar: the loss of the last row, updates a second, time left; plain lines where there is no terminal.

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
            self._loss = float(metrics["loss"])
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
        self._write(line)

    def log_end(self, step: int, reason: str) -> None:
        """Writes a line with the reason."""
        self._write(f"ends at update {step} of {self._total}: {reason}")

    def _write(self, line: str) -> None:
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
