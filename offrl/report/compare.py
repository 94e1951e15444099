"""Which runs belong together: those that differ in nothing but their seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from offrl.errors import RunError
from offrl.training.runs import read_run_config

_NO_SETTINGS = ("replay.seed", "settled", "notes")
"""What may differ between repetitions of a run: the seed, choices made by measuring, and remarks."""


def find_runs(directory: Path) -> list[Path]:
    """The run in `directory`, or else the runs right below it, by name.

    Raises:
        RunError: there are none.
    """
    if (directory / "config.json").is_file():
        return [directory]
    found = sorted(path.parent for path in directory.glob("*/config.json"))
    if not found:
        raise RunError("no run here", where=directory, expected="config.json, as `fit` and `offrl train` write it")
    return found


def group_runs(runs: Sequence[Path]) -> dict[str, list[Path]]:
    """Runs by what they were made with, apart from their seed.

    Returns:
        Label -> its runs, both in the order of `runs`. A label is the algorithm's name and the settings in which it
        differs from the other groups of this algorithm, such as "bcq, threshold 0.1".

    Raises:
        RunError: a directory that is no run.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for run in runs:
        groups.setdefault(tuple(_settings(read_run_config(run))), []).append(run)
    all_settings = [dict(key) for key in groups]
    labels = []
    for settings in all_settings:
        rivals = [other for other in all_settings if other.get("algorithm") == settings.get("algorithm")]
        differing = (name for name in settings if len({other.get(name) for other in rivals}) > 1)
        words = [f"{name.rsplit('.', 1)[-1].replace('_', ' ')} {settings[name]}" for name in differing]
        labels.append(", ".join([settings.get("algorithm", "run"), *words]))
    return dict(zip(labels, groups.values(), strict=True))


def _settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting that repetitions of a run share: dotted name, value in words."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in _NO_SETTINGS:
            continue
        if isinstance(value, Mapping) and value:
            yield from _settings(value, f"{name}.")
        else:
            yield name, str(value)[:8] if name == "dataset" else str(value)  # a hash, cut to what eyes can tell apart
