"""Which runs belong together: those that differ in nothing but their seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from offrl.errors import RunError
from offrl.runs.files import read_run_config

_NO_SETTINGS = ("replay.seed", "algorithm_seed", "settled", "notes", "evaluation")
"""What may differ between repetitions of a run: its seeds, choices made by measuring, remarks, how it was watched."""


TrainingSeed = tuple[int, int]
"""What a repetition of a run has of its own: the seeds of the first weights and of the order of the batches."""


def find_runs(directory: Path | str) -> list[Path]:
    """The run in `directory`, or else the runs right below it, by name.

    Raises:
        RunError: there are none.
    """
    directory = Path(directory)
    if (directory / "config.json").is_file():
        return [directory]
    found = sorted(path.parent for path in directory.glob("*/config.json"))
    if not found:
        raise RunError("no run here", where=directory, expected="config.json, as `fit` and `offrl train` write it")
    return found


def one_run_per_seed(runs: Sequence[Path]) -> tuple[list[Path], dict[Path, Path]]:
    """Of runs with the same settings and the same seeds, the newest: a repetition tells nothing of other seeds.

    Both seeds count, that of the first weights and that of the batches. A run whose configuration has no replay.seed
    counts as a seed of its own. The newest run is the one that logged last, and of several the last in `runs`.

    Returns:
        The runs that count, in the order of `runs`; and each run that was left out, with the one that was taken.

    Raises:
        RunError: a directory that is no run.
    """
    runs = list({run.resolve(): run for run in runs}.values())  # a directory may be named twice
    same: dict[tuple[Any, ...], list[Path]] = {}
    for run in runs:
        config = read_run_config(run)
        seed = training_seed(config)
        same.setdefault((run,) if seed is None else (*seed, *sorted(_settings(config))), []).append(run)
    left_out: dict[Path, Path] = {}
    for repetitions in same.values():
        newest = max(reversed(repetitions), key=_last_change)  # of several that are equally new, the last
        left_out |= {run: newest for run in repetitions if run != newest}
    return [run for run in runs if run not in left_out], left_out


def training_seed(config: Mapping[str, Any]) -> TrainingSeed | None:
    """The seeds that a run's config.json says; None without that of the replay, which fixes the order of the batches.

    Where the first weights' is not recorded, or they are another run's, it counts as the replay's, as on the command
    line.
    """
    replay = config.get("replay")
    seed = replay.get("seed") if isinstance(replay, Mapping) else None
    if not isinstance(seed, int):
        return None
    first = config.get("algorithm_seed")
    return (first if isinstance(first, int) else seed), seed


def _last_change(run: Path) -> float:
    return max(path.stat().st_mtime for path in (run / "config.json", run / "metrics.csv") if path.exists())


def group_runs(runs: Sequence[Path]) -> dict[str, list[Path]]:
    """Runs by what they were made with, apart from their seed.

    Returns:
        Label -> its runs, both in the order of `runs`. A label is the algorithm's name and the settings in which it
        differs from the other groups of this algorithm, such as "bcq, threshold 0.1"; an encoder is named without its
        module.

    Raises:
        RunError: a directory that is no run.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    all_settings: list[dict[str, str]] = []
    for run in runs:
        settings = dict(_settings(read_run_config(run)))
        key = tuple(sorted(settings.items()))  # in whatever order a file has them
        if key not in groups:
            all_settings.append(settings)
        groups.setdefault(key, []).append(run)
    labels = []
    for settings in all_settings:
        rivals = [other for other in all_settings if other.get("algorithm") == settings.get("algorithm")]
        differing = (name for name in settings if len({other.get(name) for other in rivals}) > 1)
        words = [f"{name.rsplit('.', 1)[-1].replace('_', ' ')} {_short(name, settings, rivals)}" for name in differing]
        labels.append(", ".join([settings.get("algorithm", "run"), *words]))
    return dict(zip(labels, groups.values(), strict=True))


def _short(name: str, settings: Mapping[str, str], rivals: Sequence[Mapping[str, str]]) -> str:
    """The value of a setting for a label: an encoder without its module, unless that tells two of them apart."""
    if name != "encoder":
        return settings[name]
    classes = {other[name].rpartition(":")[2] for other in rivals if name in other}
    paths = {other[name] for other in rivals if name in other}
    return settings[name].rpartition(":")[2] if len(classes) == len(paths) else settings[name]


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
