"""Run directories: `runs/<name>/`, never overwritten silently."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from offrl.errors import ConfigError, RunError, SpecMismatchError
from offrl.spec import TaskSpec
from offrl.system.json_files import write_json
from offrl.system.versions import installed_versions
from offrl.training.config import FitConfig

_NOT_COMPARED = ("settled", "init", "notes")
"""What a config.json holds beside settings: choices made by measuring, where the first weights came from, remarks."""


_KINDS: dict[str, Any] = {"settled": dict | None, "init": str | None, "notes": dict | None}


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


def claim_run(directory: Path) -> None:
    """Makes this very directory, for a run that somebody named.

    Raises:
        RunError: something is there already.
    """
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise RunError(
            "exists already",
            where=directory,
            expected="a new name",
            hint="choose another name, go on with --resume, or remove it yourself",
        )
    directory.mkdir(parents=True, exist_ok=True)


def read_run_config(directory: Path) -> dict[str, Any]:
    """The run's `config.json`.

    Raises:
        RunError: it is missing or no JSON object.
    """
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError("no config.json here", where=directory, expected="a run's directory") from error
    except ValueError as error:
        raise RunError(f"damaged ({error})", where=path, expected="JSON") from error
    if not isinstance(config, dict):
        raise RunError("damaged", where=path, expected="a JSON object")
    return _upgraded(config, path)


def _upgraded(config: dict[str, Any], where: Path) -> dict[str, Any]:
    """What a config.json of a development version before 0.1.0 says, in today's names."""
    settings, encoder, spec = (config.get(name) for name in ("algorithm_config", "encoder", "spec"))
    for name, kinds in _KINDS.items():
        if not isinstance(config.get(name), kinds):
            raise RunError(f"{name} is {config[name]!r}", where=where, expected="what offrl wrote there")
    if isinstance(settings, dict):
        settings.pop("initialisation", None)  # how weights began says nothing about weights that are loaded
    if isinstance(encoder, str):
        config["encoder"] = re.sub(r"^offrl\.encoders:", "offrl.networks.encoders:", encoder)
    if isinstance(spec, dict):
        with suppress(SpecMismatchError):  # who reads the spec says what is wrong with it
            config["spec"] = json.loads(json.dumps(TaskSpec.from_dict(spec, where="config.json").to_dict()))
    return config


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
        write_json(directory / "config.json", {**recorded, "fit": current["fit"]})
    return now > before


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
    for length in ("fit.updates", "fit.epochs"):
        recorded.pop(length, None), current.pop(length, None)
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
    write_json(directory / "environment.json", {**describe_machine(), **extra})


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
