"""What a run's directory holds, read for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.errors import RunError
from offrl.evaluation.scores import Evaluation
from offrl.report.compare import TrainingSeed, find_runs, group_runs, one_run_per_seed, training_seed
from offrl.report.metrics import read_metrics
from offrl.runs.checkpoint import checkpoints, step_of
from offrl.runs.files import read_run_config, read_run_json
from offrl.statistics import Interval, t_interval

Columns = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class TrainedRun:
    """One training run.

    Attributes:
        label: how the report names it.
        config: its config.json.
        metrics: its metrics.csv, empty where nothing was logged yet.
        timings: its timings.csv, likewise.
        evaluations: its evaluations.csv: scores while training, empty where there are none.
        environment: its environment.json, empty where there is none.
    """

    label: str
    config: Mapping[str, Any]
    metrics: Columns
    timings: Columns
    evaluations: Columns
    environment: Mapping[str, Any]

    @property
    def seed(self) -> TrainingSeed | None:
        """Those of the training, where they are known."""
        return training_seed(self.config)

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
class Scores:
    """What was evaluated of a policy: one training run, or several that differ in nothing but their seed.

    Attributes:
        evaluations: one for each training run, at least one.
        seeds: of these training runs; None where that is not known.
    """

    evaluations: tuple[Evaluation, ...]
    seeds: tuple[TrainingSeed | None, ...] = (None,)

    @property
    def means(self) -> list[float]:
        """The mean score of each training run."""
        return [evaluation.mean.mean for evaluation in self.evaluations]

    @property
    def mean(self) -> Interval:
        """The mean of the runs' means with its Student t interval; of one run, its bootstrap interval over episodes."""
        return t_interval(self.means) if len(self.evaluations) > 1 else self.evaluations[0].mean

    def minus(self, other: Scores) -> tuple[str, Interval] | None:
        """The paired difference, and what it is paired by: training seeds, or episodes of one training run each.

        None where the episodes or the training seeds differ: then nothing can be paired.
        """
        ours, theirs = self.evaluations, other.evaluations
        if any(each.seeds != ours[0].seeds for each in (*ours, *theirs)):
            return None
        if len(ours) == len(theirs) == 1:
            return "episode seed", ours[0].minus(theirs[0])
        means = dict(zip(other.seeds, other.means, strict=True))
        if None in means or len(means) != len(theirs) or set(self.seeds) != set(means):
            return None
        differences = [mean - means[seed] for seed, mean in zip(self.seeds, self.means, strict=True)]
        return "training seed", t_interval(differences)


@dataclass(frozen=True)
class Record:
    """A run's directory, or a directory of runs that belong together.

    Attributes:
        directory: where it lies.
        groups: label -> its runs, at least one, one for each training seed.
        evaluations: by policy or run; empty where none was kept.
        scores: by policy or group, from the same evaluations.
        remarks: what was left out, a sentence each.
        dataset_mean: of the dataset's returns, where evaluation.json says it.
        dataset_episodes: how many these are, likewise.
        task: the environment's id, where it is known.
        videos: mp4 files.
        dataset_plots: PNG files that show the dataset.
    """

    directory: Path
    groups: Mapping[str, tuple[TrainedRun, ...]]
    evaluations: Mapping[str, Evaluation]
    scores: Mapping[str, Scores]
    remarks: tuple[str, ...]
    dataset_mean: Interval | None
    dataset_episodes: int | None
    task: str | None
    videos: tuple[Path, ...]
    dataset_plots: tuple[Path, ...]

    @property
    def runs(self) -> tuple[TrainedRun, ...]:
        """Those of all groups."""
        return tuple(run for group in self.groups.values() for run in group)

    @property
    def best(self) -> str | None:
        """The policy or group with the highest mean score: over its training seeds, never that of its best seed."""
        return max(self.scores, key=lambda name: self.scores[name].mean.mean, default=None)

    @property
    def algorithms(self) -> list[str]:
        """What the runs were trained with, each named once."""
        return list(dict.fromkeys(str(run.config.get("algorithm", "?")).upper() for run in self.runs))


def read_record(directory: Path) -> Record:
    """Reads everything but the dataset.

    Raises:
        RunError: no run there, or a file that is damaged.
    """
    paths, repeated = one_run_per_seed(find_runs(directory))
    names = {path.name for path in paths}
    runs = {path: _read_run(path, directory, names) for path in paths}
    grouped = group_runs(paths)
    groups = {
        label: tuple(runs[path] for path in group)
        for label, group in zip(_upper_algorithms(list(grouped)), grouped.values(), strict=True)
    }
    remarks = [
        f"{run.name} is left out: it has the settings and the seed of {taken.name}, which is newer."
        for run, taken in repeated.items()
    ]
    found = read_run_json(directory, "evaluation.json")
    if isinstance(found.get("policies"), dict):
        evaluations = {name: _parse(each, directory) for name, each in found["policies"].items()}
        scores = {name: Scores((evaluation,)) for name, evaluation in evaluations.items()}
    else:  # of each run, by `offrl evaluate --out`
        kept = {run.label: (read_run_json(path, "evaluation.json"), path) for path, run in runs.items()}
        evaluations = {label: _parse(each, path) for label, (each, path) in kept.items() if each}
        scores = {label: _scores(group, evaluations) for label, group in groups.items()}
        scores = {label: each for label, each in scores.items() if each.evaluations}
        for label, (each, path) in kept.items():
            if each and (step := _of_earlier_checkpoint(each, path)) is not None:
                remarks.append(f"{label} has a later checkpoint than the one that was evaluated, of update {step:,}.")
        missing = [run.label for run in runs.values() if run.label not in evaluations]
        if missing and evaluations:
            remarks.append(f"Not evaluated, and so not in the table: {', '.join(missing)}.")
    ids = [run.config.get("notes", {}).get("environment") for run in runs.values()]
    return Record(
        directory=directory,
        groups=groups,
        evaluations=evaluations,
        scores=scores,
        remarks=tuple(remarks),
        dataset_mean=_dataset_mean(found, directory),
        dataset_episodes=_dataset_episodes(found),
        task=next((task for task in ids if task), None),
        videos=tuple(sorted([*directory.glob("*.mp4"), *directory.glob("videos/*.mp4")])),
        dataset_plots=tuple(sorted(directory.glob("plots/dataset_*.png"))),
    )


def _of_earlier_checkpoint(evaluation: Mapping[str, Any], run: Path) -> int | None:
    """The step of the run's checkpoint that was played, where the run has a later one; None where it is not known."""
    kept = checkpoints(run / "checkpoints")
    played = run / "checkpoints" / Path(str(evaluation.get("policy", ""))).name  # or "best", a link to one
    steps = [step_of(each) for each in kept if each.name == played.resolve().name]
    return steps[0] if steps and step_of(kept[-1]) > steps[0] else None


def _upper_algorithms(labels: Sequence[str]) -> list[str]:
    """Groups' labels as the page writes them: "bcq, threshold 0.1" becomes "BCQ, threshold 0.1".

    Algorithms that differ only in case, one of them a user's own, keep their names: their groups stay apart.
    """
    parts = [label.partition(",") for label in labels]
    upper = [f"{algorithm.upper()}{comma}{settings}" for algorithm, comma, settings in parts]
    return [name if upper.count(name) == 1 else label for name, label in zip(upper, labels, strict=True)]


def _scores(group: Sequence[TrainedRun], evaluations: Mapping[str, Evaluation]) -> Scores:
    """Those of the group's runs that were evaluated."""
    evaluated = [run for run in group if run.label in evaluations]
    return Scores(tuple(evaluations[run.label] for run in evaluated), tuple(run.seed for run in evaluated))


def _read_run(path: Path, directory: Path, names: Set[str]) -> TrainedRun:
    config = read_run_config(path)
    algorithm = str(config.get("algorithm", "run"))
    # The name of the algorithm is enough, unless the directory of another run has this very name.
    is_plain = path == directory or (path.name == algorithm and algorithm.upper() not in names)
    tables = {
        name: read_metrics(path / f"{name}.csv") if (path / f"{name}.csv").exists() else {}
        for name in ("metrics", "timings", "evaluations")
    }
    return TrainedRun(
        label=algorithm.upper() if is_plain else path.name,
        config=config,
        metrics=tables["metrics"],
        timings=tables["timings"],
        evaluations=tables["evaluations"],
        environment=read_run_json(path, "environment.json"),
    )


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
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _no_evaluation(directory, f"{type(error).__name__}: {error}") from error
    if not parsed.seeds:
        raise _no_evaluation(directory, "no episodes")
    if not all(0 <= length < 2**53 for length in parsed.lengths):
        raise _no_evaluation(directory, "a length that no episode has")
    return parsed


def _dataset_mean(found: Mapping[str, Any], directory: Path) -> Interval | None:
    if "dataset" not in found:
        return None
    try:
        dataset = found["dataset"]
        ends = dataset["interval_95"]
        low, high = (None, None) if ends is None else map(float, ends)
        return Interval(float(dataset["mean"]), low, high)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _no_evaluation(directory, f"dataset: {type(error).__name__}: {error}") from error


def _dataset_episodes(found: Mapping[str, Any]) -> int | None:
    dataset = found.get("dataset")
    episodes = dataset.get("episodes") if isinstance(dataset, Mapping) else None
    return episodes if isinstance(episodes, int) else None


def _no_evaluation(directory: Path, what: str) -> RunError:
    return RunError(
        f"damaged ({what})",
        where=directory / "evaluation.json",
        expected="per_episode with seed, score and length, as `offrl evaluate --out` writes",
    )
