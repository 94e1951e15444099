"""Run directories: `runs/<name>/`, never overwritten silently."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from offrl.errors import ConfigError, RunError
from offrl.system.locks import locked
from offrl.system.versions import installed_versions
from offrl.training._run_files import lengthen_run, read_identity, write_run_json
from offrl.training._run_files import read_run_config as read_run_config
from offrl.training._run_files import write_run_config as write_run_config
from offrl.training.checkpoint import _Resumable, checkpoints, drop_old_states, find_resumable, load_learner, set_aside
from offrl.training.config import FitConfig
from offrl.training.learner import Learner
from offrl.training.loggers import CSVLogger

_NOT_COMPARED = ("settled", "init", "notes")
"""What a config.json holds beside settings: choices made by measuring, where the first weights came from, remarks."""


def with_time(name: str) -> str:
    """The name with the local time in place of `{time}`: "bcq-{time}" -> "bcq-2026-11-24-153012"."""
    return name.replace("{time}", time.strftime("%Y-%m-%d-%H%M%S"))


def create_run(root: str | Path, name: str) -> Path:
    """Makes the next free directory `root/name-001`, `root/name-002`, ... and returns it."""
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        directory = root / f"{name}-{number:03d}"
        try:
            directory.mkdir()
        except FileExistsError:
            number += 1
        else:
            return directory


@contextmanager
def working_on(directory: Path, *, resume: bool) -> Iterator[None]:
    """Keeps others from this run; a new one's directory appears, and goes again if the block fails and leaves it empty.

    Raises:
        RunError: For a new run: something is there already.
        InUseError: Another process is working on it.
    """
    if resume and not directory.is_dir():
        raise RunError("no such directory", where=directory, expected="a run's directory")
    if directory.exists() and not directory.is_dir():
        raise _taken(directory)
    with locked(directory / ".lock", target=directory):
        # A run that was killed before it had a configuration left hidden files at most.
        if not resume and any(not path.name.startswith(".") for path in directory.iterdir()):
            raise _taken(directory)
        yield


def _taken(directory: Path) -> RunError:
    return RunError(
        "exists already",
        where=directory,
        expected="a new name",
        hint="choose another name, go on with --resume, or remove it yourself",
    )


def resume_run(directory: Path, config: Mapping[str, Any], num_transitions: int) -> bool:
    """Checks that a run to be resumed has this configuration, but for a length that may grow, which it records.

    `_NOT_COMPARED` is the run's own affair.

    Returns:
        Whether the run becomes longer.

    Raises:
        RunError: It differs; names the first setting that does.
    """
    recorded = read_run_config(directory)
    current = json.loads(json.dumps(config))  # as it would be read back: tuples become lists
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
    found: _Resumable,
    settings: Mapping[str, Any],
    num_transitions: int,
    log_period: int,
) -> CSVLogger:
    """Puts the learner where the newest whole checkpoint of a run left it, and the run's CSV files with it.

    Without one, the learner stays as it is, with the choices that the run made by measuring.

    Args:
        learner: Of the run's algorithm.
        directory: The run's.
        found: What `find_to_resume` gave.
        settings: The run's, see `resume_run`.
        num_transitions: In the data.
        log_period: In updates.

    Raises:
        RunError: The run has other settings, or its files are of something else.
    """
    grown = resume_run(directory, settings, num_transitions)
    logs: Mapping[str, Any] = {}
    if found.checkpoint is not None:
        logs = load_learner(learner, found.checkpoint)
        if not found.damaged:
            drop_old_states(directory / "checkpoints")  # a run that was killed right after its last one still has them
    else:
        learner.take_choices(read_run_config(directory).get("settled") or {})
    for checkpoint, reason in found.damaged:
        warnings.warn(f"{reason}: the run goes on from update {learner.step:,}", stacklevel=3)
        set_aside(checkpoint)
    if found.checkpoint is None and not found.damaged:
        warnings.warn(f"{directory}: was stopped before its first checkpoint: the run begins again", stacklevel=3)
    # The row after the last update of a shorter run is none of the longer run's.
    return CSVLogger(directory, learner.step - (learner.step % log_period if grown else 0), logs)


def find_to_resume(directory: Path) -> _Resumable:
    """Where a run can go on; see `find_resumable`.

    Raises:
        RunError: Its config.json is missing, damaged or another run's; or it has checkpoints, and all of them keep
            their policy only, as in a folder that was published.
    """
    read_run_config(directory)  # of another run, it would make all checkpoints look like another's
    found = find_resumable(directory / "checkpoints", read_identity(directory))
    if found == (None, []) and checkpoints(directory / "checkpoints"):
        raise RunError(
            "its checkpoints keep their policy only",
            where=directory,
            expected="one with learner.safetensors to go on from",
            hint="start a new run from its weights with --init (init=...)",
        )
    return found


def first_weights(directory: Path, found: _Resumable) -> Path | None:
    """Where a run took its first weights from, if it has to begin again and took them from somewhere."""
    if found.checkpoint is not None:
        return None
    init = read_run_config(directory).get("init")
    return None if init is None else Path(init)


def _total_updates(directory: Path, fit: Mapping[str, Any], num_transitions: int) -> int:
    try:
        return FitConfig(**fit).total_updates(num_transitions)
    except (TypeError, ConfigError) as error:
        raise RunError(f"fit is {fit!r} ({error})", where=directory / "config.json", expected="a FitConfig") from error


def _require_same_settings(directory: Path, recorded: Mapping[str, Any], current: Mapping[str, Any]) -> None:
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


def write_environment(directory: Path, extra: Mapping[str, Any]) -> None:
    """Writes `environment.json`: versions and machine, and what the caller adds (device, dataset)."""
    write_run_json(directory, "environment.json", {**describe_machine(), **extra})


def describe_machine() -> dict[str, Any]:
    """Versions and hardware that a number depends on."""
    return {
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": installed_versions(),
    }


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    # Virtual machines often hide the name's number; family and model tell generations apart all the same.
    first = dict(reversed([[word.strip() for word in line.split(":", 1)] for line in lines if ":" in line]))
    name = first.get("model name", "")
    return f"{name} (family {first['cpu family']}, model {first['model']})" if "cpu family" in first else name


def _flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
