"""Going on with a run: the same settings, and the learner and the tables as its newest checkpoint left them."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from offrl.algorithms.algorithm import Algorithm
from offrl.errors import ConfigError, RunError
from offrl.runs.checkpoint import Resumable, drop_old_states, load_learner, set_aside
from offrl.runs.files import lengthen_run, read_run_config
from offrl.runs.loggers import CSVLogger
from offrl.training._updates import Periods
from offrl.training.config import FitConfig
from offrl.training.learner import Learner

_NOT_COMPARED = ("settled", "init", "notes")
"""What a config.json holds beside settings: choices made by measuring, where the first weights came from, remarks."""


def resume_run(
    directory: Path, config: Mapping[str, Any], num_transitions: int, defaults: Mapping[str, Any] | None = None
) -> bool:
    """Checks that a run to be resumed has this configuration, but for a length that may grow, which it records.

    `_NOT_COMPARED` is the run's own affair. `defaults` are those of the algorithm's settings: one that the run does not
    have is newer than the run.

    Returns:
        Whether the run becomes longer.

    Raises:
        RunError: It differs; names the first setting that does.
    """
    recorded = read_run_config(directory)
    own = recorded.get("algorithm_config") or {}
    newer = {name: value for name, value in (defaults or {}).items() if name not in own}
    current, newer = json.loads(json.dumps([config, newer]))  # as they would be read back: tuples become lists
    recorded = {**recorded, "algorithm_config": {**newer, **own}}
    _require_same_settings(directory, recorded, current)
    before, now = (_total_updates(directory, each["fit"], num_transitions) for each in (recorded, current))
    if now < before:
        raise RunError(
            f"{now:,} updates in all",
            where=directory,
            expected=f"{before:,} or more: a run that is resumed may only become longer",
        )
    if now > before and current["learner"]["schedule"] != "constant":
        raise RunError(
            f"{now:,} updates in all for a run of {before:,}",
            where=directory,
            expected=f"{before:,}: the schedule {current['learner']['schedule']!r} depends on the run's length",
            hint="start a new run from its weights with init, or train with schedule='constant'",
        )
    if current["fit"] != recorded["fit"]:
        lengthen_run(directory, current["fit"])
    return now > before


def continue_run(
    learner: Learner,
    directory: Path,
    found: Resumable,
    settings: Mapping[str, Any],
    notes: Mapping[str, Any],
    num_transitions: int,
    periods: Periods,
    *,
    drops_states: bool,
) -> CSVLogger:
    """Puts the learner where the newest whole checkpoint of a run left it, and the run's CSV files with it.

    Without one, the learner stays as it is, with the choices that the run made by measuring.

    Args:
        learner: Of the run's algorithm.
        directory: The run's.
        found: What `find_to_resume` gave.
        settings: The run's, see `resume_run`.
        notes: What a new run would note.
        num_transitions: In the data.
        periods: Of the rows.
        drops_states: Whether older checkpoints keep their policy only, see `save_checkpoint`.

    Raises:
        RunError: The run has another algorithm or other settings, or its files are of something else.
    """
    _require_same_class(directory, learner.algorithm, notes)
    grown = resume_run(directory, settings, num_transitions, _defaults(learner.algorithm.config))
    logs: Mapping[str, Any] = {}
    if found.checkpoint is not None:
        logs = load_learner(learner, found.checkpoint)
        if drops_states and not found.damaged:
            drop_old_states(directory / "checkpoints")  # a run that was killed right after its last one still has them
    else:
        learner.take_choices(read_run_config(directory).get("settled") or {})
    for checkpoint, reason in found.damaged:
        warnings.warn(f"{reason}: the run goes on from update {learner.step:,}", stacklevel=3)
        set_aside(checkpoint)
    if found.checkpoint is None and not found.damaged:
        warnings.warn(f"{directory}: was stopped before its first checkpoint: the run begins again", stacklevel=3)
    # The rows after the last update of a shorter run are none of the longer run's.
    metrics_step, scores_step = (
        learner.step - (learner.step % period if grown and period is not None else 0)
        for period in (periods.log, periods.evaluate)
    )
    return CSVLogger(directory, metrics_step, logs, scores_step=scores_step)


_OWN_CLASS = re.compile(r"[A-Za-z_][\w.]*:(?P<name>[A-Za-z_][\w.<>]*)")
"""As `remarks` names a class of the user's own."""


def _require_same_class(directory: Path, algorithm: Algorithm, notes: Mapping[str, Any]) -> None:
    """Checks that the run's notes name this algorithm's class: one derived from it may have its name, and another loss.

    Which module a class is in may differ: the same script is `__main__` at one time, and imported at another.

    Raises:
        RunError: They name another one. Runs of earlier versions may name none, and a user's own notes say anything:
            what is no class's name is none of these.
    """
    said, kind = (read_run_config(directory).get("notes") or {}).get("algorithm"), type(algorithm)
    if not isinstance(said, str) or said == notes.get("algorithm"):
        return
    if found := _OWN_CLASS.fullmatch(said):
        is_another = found["name"] != kind.__qualname__
    else:  # one of offrl's is noted by its name, which a class derived from it has, too
        is_own = not kind.__module__.startswith("offrl.")
        bases = (base for base in kind.__mro__ if base.__module__.startswith("offrl."))
        is_another = is_own and any(getattr(base, "name", None) == said for base in bases)
    if is_another:
        raise RunError(
            f"the algorithm is of the class {kind.__qualname__}",
            where=directory,
            expected=f"{said}, as the run began with",
            hint="resume with the run's own class, or start a new run from its weights with init",
        )


def _defaults(config: Any) -> dict[str, Any]:
    known = () if config is None else fields(config)
    return {field.name: field.default for field in known if field.default is not MISSING}


def _total_updates(directory: Path, fit: Mapping[str, Any], num_transitions: int) -> int:
    try:
        return FitConfig(**fit).total_updates(num_transitions)
    except (TypeError, ConfigError) as error:
        raise RunError(f"fit is {fit!r} ({error})", where=directory / "config.json", expected="a FitConfig") from error


def _require_same_settings(directory: Path, recorded: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    if "encoder_settings" not in recorded:  # of an earlier version
        current = {key: value for key, value in current.items() if key != "encoder_settings"}
    recorded, current = (
        _flatten({key: value for key, value in settings.items() if key not in _NOT_COMPARED})
        for settings in (recorded, current)
    )
    unknown = [] if recorded.get("algorithm_seed") is not None else ["algorithm_seed"]  # of an earlier version, say
    for name in ("fit.updates", "fit.epochs", "learner.threads", *unknown):
        recorded.pop(name, None), current.pop(name, None)
    for key in sorted(recorded.keys() | current.keys()):
        if recorded.get(key) != current.get(key):
            raise RunError(
                f"{key} is {current.get(key)!r}",
                where=directory,
                expected=f"{recorded.get(key)!r}, as the run began with",
                hint="resume with the run's own settings, or start a new run from its weights with init",
            )


def _flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
