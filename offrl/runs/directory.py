"""Run directories: `runs/<name>/`, never overwritten silently."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from offrl.errors import RunError
from offrl.runs.checkpoint import Resumable, checkpoints, find_resumable
from offrl.runs.files import read_identity, read_run_config, write_run_json
from offrl.system.locks import locked
from offrl.system.versions import installed_versions


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


def find_to_resume(directory: Path) -> Resumable:
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


def first_weights(directory: Path, found: Resumable) -> Path | None:
    """Where a run took its first weights from, if it has to begin again and took them from somewhere."""
    if found.checkpoint is not None:
        return None
    init = read_run_config(directory).get("init")
    return None if init is None else Path(init)


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
