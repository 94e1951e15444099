"""Model cards: what a policy is, what it learned from, what it scored, and where that ends."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offrl._version import __version__
from offrl.algorithms.building import without_paths
from offrl.checks import is_number, is_whole
from offrl.datasets.summary import inspect_dataset
from offrl.errors import OfflineRLError, RunError
from offrl.hub._estimates import estimate_lines, estimates_of
from offrl.hub.loading import find_policy, shipped_policies
from offrl.policies.onnx_policy import OnnxPolicy
from offrl.replay.ingestion import ingest
from offrl.report.compare import group_runs, one_run_per_seed
from offrl.runs.checkpoint import latest_checkpoint
from offrl.runs.files import read_run_config, read_run_json, recorded_task, run_of
from offrl.spec import TaskSpec
from offrl.statistics import Interval, t_interval
from offrl.system.json_files import read_json

_RECIPE = ("algorithm_config", "learner", "fit", "replay")


@dataclass(frozen=True)
class _Subject:
    """What a card is about."""

    name: str
    spec: TaskSpec
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Sequence[Mapping[str, Any]] = ()
    which: str = ""
    offline: Mapping[str, Any] = field(default_factory=dict)


def model_card(policy: str | Path, *, evaluations: Sequence[str | Path] = ()) -> str:
    """A policy's model card: task, data, recipe, scores, versions, limits. Markdown.

    The scores are those of the run's evaluation.json and of the runs beside it that differ from it in nothing but
    their seed, where they were evaluated on the same episodes.

    Args:
        policy: As for `offrl.load`.
        evaluations: JSON files that `offrl evaluate --out` wrote, one for each training run, in place of those.

    Raises:
        RunError: There is no policy, or a file is damaged.
    """
    found = find_policy(policy)
    if not evaluations and found in shipped_policies().values():
        return found.with_suffix(".md").read_text(encoding="utf-8")
    subject = _subject(found, [Path(path) for path in evaluations])
    return "\n".join(_lines(subject)).strip() + "\n"


def _subject(found: Path, evaluations: list[Path]) -> _Subject:
    given = [_read(path) for path in evaluations]
    if found.is_file():
        return _Subject(found.stem, OnnxPolicy(found).spec, evaluations=given)
    run = run_of(found)
    config = read_run_config(run)
    spec = recorded_task(config, run)
    machine = read_run_json(run, "environment.json")
    which = f"; its weights are those of {found.resolve().name}"
    scored = given or _comparable(found, run)
    return _Subject(run.name, spec, config, machine, scored, which, estimates_of(run, found))


def _comparable(checkpoint: Path, run: Path) -> list[dict[str, Any]]:
    """The evaluation of this checkpoint, and those of the run's repetitions on the same episodes."""
    found = {path: evaluation_of(path, checkpoint) for path in _repetitions(run)}
    own = found.get(run.resolve()) or evaluation_of(run, checkpoint)
    if own is None:
        return []
    return [each for each in found.values() if each is not None and _seeds(each) == _seeds(own)]


def _seeds(evaluation: Mapping[str, Any]) -> list[Any]:
    return [row.get("seed") for row in evaluation.get("per_episode", [])]


def evaluation_of(run: Path, checkpoint: Path) -> dict[str, Any] | None:
    """What a run's evaluation.json says, if it is of this checkpoint, or of the same one of a repetition.

    That is the latest of each, or the best of each; a score of another checkpoint says nothing about this one.
    """
    found = read_run_json(run, "evaluation.json")
    if not _is_evaluation(found):
        return None
    kept = run / "checkpoints"
    is_latest = checkpoint.resolve() == latest_checkpoint(checkpoint.parent).resolve()
    ours = latest_checkpoint(kept) if is_latest else kept / "best"
    if run.resolve() == run_of(checkpoint).resolve():
        ours = checkpoint
    scored = Path(str(found.get("policy", ours))).name  # what was written in Python may not say it
    return found if (kept / scored).resolve().name == ours.resolve().name else None


def _repetitions(run: Path) -> list[Path]:
    """The run, and those beside it that differ from it in nothing but their seed; of one seed, one."""
    if not (run / "config.json").is_file():
        return [run.resolve()]
    run = run.resolve()
    beside = sorted(path.parent for path in run.parent.glob("*/config.json"))
    runs, left_out = one_run_per_seed([path for path in beside if path == run or _is_run(path)])
    # Of two runs with one seed the newer one counts, unless the card is about the other.
    runs = [run if path == left_out.get(run) else path for path in runs]
    return next(group for group in group_runs(runs).values() if run in group)


def _is_run(directory: Path) -> bool:
    """Whether what lies beside a run is one: something else, or a damaged one, is no fault of this run's."""
    try:
        return bool(read_run_config(directory))
    except RunError:
        return False


def _read(path: Path) -> dict[str, Any]:
    """An evaluation.

    Raises:
        RunError: It cannot be read, or is no evaluation of one policy.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"cannot be read ({error})", where=path, expected="JSON, as offrl writes it") from error
    if not _is_evaluation(found):
        raise RunError("no evaluation of one policy", where=path, expected="what `offrl evaluate RUN --out` writes")
    return found


def _is_evaluation(found: Mapping[str, Any]) -> bool:
    """Whether this has a mean over episodes: several thresholds, side by side, have none."""
    rows = found.get("per_episode")
    return (
        is_number(found.get("mean"))
        and isinstance(rows, list)
        and all(isinstance(row, Mapping) and is_whole(row.get("seed")) for row in rows)
    )


def _lines(subject: _Subject) -> Iterator[str]:
    config, notes = subject.config, subject.config.get("notes") or {}
    algorithm = str(config.get("algorithm", "policy"))
    task = notes.get("environment") or _played(subject) or "the task below"
    yield "---"
    yield from ("library_name: offrl", "tags:", "- reinforcement-learning", "- offline-rl", "- onnx")
    yield "---"
    yield from (
        "",
        f"# {subject.name}",
        "",
        f"{algorithm.upper()} on {task}, trained with offrl from logged data{subject.which}.",
        "",
    )
    yield from _section("Task", _task_rows(subject.spec, task))
    if config:
        yield from _section("Data", {**_data_rows(config), **_counted_rows(subject)})
        yield from _section("Recipe", _recipe_rows(config))
    yield from _scores(subject)
    if subject.offline:
        yield from estimate_lines(subject.offline)
    if subject.environment:
        yield from _section("Versions and machine", _machine_rows(subject.environment))
    yield from _limits(subject)
    yield from ("## Use", "", "```python", "import numpy as np", "", "import offrl", "")
    yield 'policy = offrl.load("model-uint8.onnx")'
    shape, dtype = subject.spec.observation_shape, subject.spec.observation_dtype
    yield f"observations = np.zeros((1, {', '.join(map(str, shape))}), np.{dtype})  # raw ones of the task, [N, ...]"
    if subject.spec.action_masks:
        yield f"action_mask = np.ones((1, {subject.spec.num_actions}), np.bool_)  # the legal actions, [N, A]"
        yield "actions = policy(observations, action_mask)  # int64 [N]"
    else:
        yield "actions = policy(observations)  # int64 [N]"
    yield from ("```", "", f"Written by offrl {__version__}.")


def _section(title: str, rows: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"## {title}", "", "| what | value |", "|---|---|")
    for name, value in rows.items():
        yield f"| {name} | {str(value).replace('|', chr(92) + '|')} |"
    yield ""


def _task_rows(spec: TaskSpec, task: str) -> dict[str, Any]:
    rows: dict[str, Any] = {
        "environment": task,
        "observations": f"{spec.observation_dtype} {list(spec.observation_shape)}",
        "actions": f"{spec.num_actions}: {', '.join(spec.action_names)}",
    }
    if spec.feature_names is not None:
        rows["features"] = ", ".join(spec.feature_names)
    if isinstance(spec.scale, tuple):
        rows["networks see"] = "each feature less its mean, divided by its standard deviation in the data"
    if spec.hud is not None:
        rows["information bar"] = spec.hud
    if spec.legal_actions is not None:
        rows["legal actions"] = list(spec.legal_actions)
    if spec.action_masks:
        rows["action masks"] = "each observation comes with its legal actions"
    return rows


def _data_rows(config: Mapping[str, Any]) -> dict[str, Any]:
    replay = config.get("replay", {})
    held_out = replay.get("held_out") or 0
    return {
        "fingerprint": config.get("dataset") or "not recorded",
        "episodes kept from training": f"{held_out:.0%}",
        "sampling": replay.get("sampling", "uniform"),
    }


def _played(subject: _Subject) -> str | None:
    """The environment that the scores are of, where the run does not say what its data is of."""
    abouts = [found.get("environment") for found in subject.evaluations]
    names = {about["id"] for about in abouts if isinstance(about, Mapping) and isinstance(about.get("id"), str)}
    if len(names) == 1:
        return str(*names)
    return "CarRacing-v3" if subject.spec.hud is not None else None


def _counted_rows(subject: _Subject) -> dict[str, Any]:
    """Counts and returns of the run's dataset, where that is still on this machine, and is still the same."""
    notes = subject.config.get("notes") or {}
    data = notes.get("data")
    if not isinstance(data, str) or not Path(data).is_dir():  # an address in a file is no reason to load from it
        return {}
    try:
        with warnings.catch_warnings(action="ignore"):  # the run that was trained on it showed them
            store = ingest(
                data,
                spec=subject.spec if notes.get("task_given") else None,
                dones=notes.get("dones", "terminated"),
                skip_bad_shards=bool(notes.get("skip_bad_shards")),
                tier="mmap",
                progress=False,
            )
        if store.fingerprint != subject.config.get("dataset"):
            return {}
        summary = inspect_dataset(store)
    except OfflineRLError:  # a card says less, rather than nothing, where data was moved or damaged
        return {}
    mean = summary.mean_return
    bounds = mean.bounds(summary.num_episodes, form=",.1f")
    return {
        "transitions": f"{summary.num_transitions:,}",
        "episodes": f"{summary.num_episodes:,}",
        "mean return": f"{mean.mean:,.1f}, {bounds if mean.low is None else f'95 % interval {bounds}'}",
    }


def _recipe_rows(config: Mapping[str, Any]) -> dict[str, Any]:
    rows: dict[str, Any] = {"algorithm": config.get("algorithm"), "encoder": config.get("encoder")}
    encoder_settings = without_paths(config.get("encoder_settings", {}))
    rows |= {f"{name} of the encoder": value for name, value in encoder_settings.items()}
    if (seed := config.get("algorithm_seed")) is not None:
        rows["seed of the first weights"] = seed
    for group in _RECIPE:
        for name, value in config.get(group, {}).items():
            if value is not None and value is not False and value not in ({}, []):  # 0 is a setting
                rows[name if name not in rows else f"{name} ({group})"] = value
    settled = config.get("settled") or {}
    return rows | {f"{name} (measured)": value for name, value in settled.items()}


def _scores(subject: _Subject) -> Iterator[str]:
    yield from ("## Scores", "")
    if not subject.evaluations:
        yield from ("Not played: `offrl evaluate RUN --out RUN/evaluation.json`, then write this card again.", "")
        return
    yield "Undiscounted returns of whole episodes."
    yield ""
    has_laps = any("finished" in found for found in subject.evaluations)
    heads = ["training run", "episodes", "seeds", "mean", "95 % interval over episodes"]
    heads += ["finished laps"] if has_laps else []
    yield from (_row(heads), "|---" * len(heads) + "|")
    for number, found in enumerate(subject.evaluations, 1):
        rows = found.get("per_episode", [])
        seeds = [row["seed"] for row in rows]
        words = Interval(found["mean"], *(found.get("interval_95") or (None, None))).bounds(len(rows))
        laps = [f"{found['finished']} of {len(rows)}" if "finished" in found else "-"] if has_laps else []
        span = f"{min(seeds)} to {max(seeds)}" if seeds else "-"
        yield _row([number, len(rows), span, f"{found['mean']:.1f}", words, *laps])
    yield ""
    if len(subject.evaluations) > 1:
        means = [float(found["mean"]) for found in subject.evaluations]
        mean = t_interval(means)
        yield (
            f"Mean over {len(means)} training runs: **{mean.mean:.1f}**, 95 % t interval over the runs' means "
            f"{mean.bounds(len(means), 'run')}; lowest {min(means):.1f}, highest {max(means):.1f}."
        )
    else:
        yield "One training run: another one, with another seed, scores differently."
    yield ""


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _machine_rows(environment: Mapping[str, Any]) -> dict[str, Any]:
    rows = {
        name: value
        for name, value in environment.items()
        if value is not None and name not in ("versions", "dataset", "launcher")
    }
    return rows | dict(environment.get("versions") or {})


def _limits(subject: _Subject) -> Iterator[str]:
    yield from ("## Limits", "")
    yield "- It acts on observations of the task above only: other preprocessing, cameras or rules are other tasks."
    yield "- It learned from logged data alone. Nothing is known of its actions where the data never was."
    if subject.config.get("evaluation"):
        played = subject.config["evaluation"]
        yield (
            f"- The environment was played while it was trained ({played.get('episodes')} episodes every "
            f"{played.get('every')}): its best checkpoint was not chosen offline."
        )
    yield "- A score holds for the episodes, versions and settings that it was measured with."
    yield ""
