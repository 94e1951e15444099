"""What a run's directory holds, read for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.errors import RunError
from offrl.evaluation.scores import Evaluation
from offrl.report.compare import find_runs
from offrl.report.metrics import read_metrics
from offrl.statistics import Interval
from offrl.training.runs import read_run_config

Columns = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class TrainedRun:
    """One training run.

    Attributes:
        label: how the report names it.
        config: its config.json.
        metrics: its metrics.csv, empty where nothing was logged yet.
        timings: its timings.csv, likewise.
        environment: its environment.json, empty where there is none.
    """

    label: str
    config: Mapping[str, Any]
    metrics: Columns
    timings: Columns
    environment: Mapping[str, Any]

    @property
    def updates(self) -> int:
        """Gradient steps that were logged."""
        return int(self.metrics["step"][-1]) if "step" in self.metrics else 0

    @property
    def seconds(self) -> float:
        """Time that these took."""
        if not {"step", "updates_per_second"} <= self.timings.keys():
            return 0.0
        return float(np.sum(np.diff(self.timings["step"], prepend=0.0) / self.timings["updates_per_second"]))


@dataclass(frozen=True)
class Record:
    """A run's directory, or a directory of runs that belong together.

    Attributes:
        directory: where it lies.
        runs: at least one.
        evaluations: by policy; empty where none was kept.
        dataset_mean: of the dataset's returns, where evaluation.json says it.
        task: the environment's id, where it is known.
        videos: mp4 files.
        dataset_plots: PNG files that show the dataset.
    """

    directory: Path
    runs: tuple[TrainedRun, ...]
    evaluations: Mapping[str, Evaluation]
    dataset_mean: Interval | None
    task: str | None
    videos: tuple[Path, ...]
    dataset_plots: tuple[Path, ...]

    @property
    def best(self) -> str | None:
        """The policy with the highest mean score."""
        return max(self.evaluations, key=lambda name: self.evaluations[name].mean.mean, default=None)

    @property
    def algorithms(self) -> list[str]:
        """What the runs were trained with, each named once."""
        return list(dict.fromkeys(str(run.config.get("algorithm", "?")).upper() for run in self.runs))


def read_record(directory: Path) -> Record:
    """Reads everything but the dataset.

    Raises:
        RunError: no run there, or a file that is damaged.
    """
    paths = find_runs(directory)
    runs = tuple(_read_run(path, alone=path == directory) for path in paths)
    found = _read_json(directory / "evaluation.json")
    evaluations = {}
    if isinstance(found.get("policies"), dict):
        evaluations = found["policies"]
    else:  # of one run, by `offrl evaluate --out`
        kept = {run.label: _read_json(path / "evaluation.json") for run, path in zip(runs, paths, strict=True)}
        evaluations = {label: each for label, each in kept.items() if each}
    ids = [run.config.get("notes", {}).get("environment") for run in runs]
    return Record(
        directory=directory,
        runs=runs,
        evaluations={name: _parse(each, directory) for name, each in evaluations.items()},
        dataset_mean=_dataset_mean(found, directory),
        task=next((task for task in ids if task), None),
        videos=tuple(sorted([*directory.glob("*.mp4"), *directory.glob("videos/*.mp4")])),
        dataset_plots=tuple(sorted(directory.glob("plots/dataset_*.png"))),
    )


def _read_run(path: Path, alone: bool) -> TrainedRun:
    config = read_run_config(path)
    algorithm = str(config.get("algorithm", "run"))
    tables = {
        name: read_metrics(path / f"{name}.csv") if (path / f"{name}.csv").exists() else {}
        for name in ("metrics", "timings")
    }
    return TrainedRun(
        label=algorithm.upper() if alone or path.name == algorithm else path.name,
        config=config,
        metrics=tables["metrics"],
        timings=tables["timings"],
        environment=_read_json(path / "environment.json"),
    )


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"damaged ({error})", where=path, expected="JSON") from error
    if not isinstance(found, dict):
        raise RunError("damaged", where=path, expected="a JSON object")
    return found


def _parse(evaluation: Mapping[str, Any], directory: Path) -> Evaluation:
    """The inverse of `Evaluation.to_dict`."""
    try:
        rows = evaluation["per_episode"]
        parsed = Evaluation(
            seeds=tuple(int(row["seed"]) for row in rows),
            scores=tuple(float(row["score"]) for row in rows),
            lengths=tuple(int(row["length"]) for row in rows),
            finished=tuple(bool(row["finished"]) for row in rows if "finished" in row),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _no_evaluation(directory, f"{type(error).__name__}: {error}") from error
    if not parsed.seeds:
        raise _no_evaluation(directory, "no episodes")
    return parsed


def _dataset_mean(found: Mapping[str, Any], directory: Path) -> Interval | None:
    if "dataset" not in found:
        return None
    try:
        dataset = found["dataset"]
        return Interval(float(dataset["mean"]), *map(float, dataset["interval_95"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _no_evaluation(directory, f"dataset: {type(error).__name__}: {error}") from error


def _no_evaluation(directory: Path, what: str) -> RunError:
    return RunError(
        f"damaged ({what})",
        where=directory / "evaluation.json",
        expected="per_episode with seed, score and length, as `offrl evaluate --out` writes",
    )
