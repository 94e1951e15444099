"""The held-out episodes that runs have in common: none was trained on them, itself or by its first weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offrl.checks import is_number, is_whole
from offrl.errors import ConfigError, RunError
from offrl.runs.files import read_run_config

_HINT = "train with --set held_out=0.1 (held_out=0.1 of open_replay)"


@dataclass(frozen=True)
class Split:
    """Which episodes of which data are held out.

    Attributes:
        held_out: Their share.
        split_seed: Chooses them.
        dataset: The fingerprint of the data.
    """

    held_out: float
    split_seed: int
    dataset: str


def shared_split(runs: Sequence[str | Path]) -> Split:
    """The split of some runs, which all of them must have.

    Args:
        runs: Their directories, one or more.

    Raises:
        ConfigError: One holds no episodes out, others than the first one, or of other data: it, or the run that its
            first weights are from, was trained on what would judge it. Or there are no runs.
        RunError: One is damaged.
    """
    if isinstance(runs, str | Path) or not runs:
        raise ConfigError(f"{runs!r}", where="shared_split.runs", expected="a list of one or more runs' directories")
    directories = [Path(run) for run in runs]
    first = _split_of(directories[0])
    for run in directories:
        _require(first, _split_of(run), run, directories[0])
        split_on(run, first.dataset)
        if doubt := _lineage(run)[1]:
            warnings.warn(doubt, stacklevel=2)
    return first


def split_on(run: str | Path, dataset: str) -> tuple[Split | None, tuple[str, ...]]:
    """Which episodes of some data neither a run nor those that its first weights come from were trained on.

    Args:
        run: Its directory.
        dataset: The fingerprint of the data.

    Returns:
        The split, None where none of them was trained on any of it; and what may flatter the run there, in sentences.

    Raises:
        ConfigError: One was trained on all of it, or two hold out different episodes.
        RunError: One is damaged.
    """
    run = Path(run)
    found, where = None, run
    lineage, doubt = _lineage(run)
    beware = [f"{doubt}."] if doubt else []
    for each in lineage:
        if read_run_config(each).get("dataset") == dataset:
            split = _split_of(each)
            if found is None:
                found, where = split, each
            _require(found, split, each, where)
            selection = read_run_config(each).get("selection")
            if isinstance(selection, Mapping) and any(selection.get(name) for name in ("keep_best", "patience")):
                beware.append(
                    f"{each} chose among its checkpoints by the same held-out episodes: the best of many looks better "
                    "on them than it is."
                )
    if found is None:
        beware.append(
            "The run was trained on other data: if that has some of the same episodes, the values flatter it."
        )
    return found, tuple(beware)


def _split_of(run: Path) -> Split:
    config = read_run_config(run)
    replay, dataset = config.get("replay"), config.get("dataset")
    found: dict[str, Any] = dict(replay) if isinstance(replay, Mapping) else {"held_out": None}
    held_out, seed = found.get("held_out", 0), found.get("split_seed", 0)
    if not is_number(held_out) or not is_whole(seed):
        raise RunError(f"replay is {replay!r}", where=run / "config.json", expected="what offrl wrote there")
    if held_out <= 0:
        raise ConfigError(
            "was trained on all episodes",
            where=run,
            expected="a run with held-out episodes: on those that it was trained on every statistic flatters it",
            hint=_HINT,
        )
    if found.get("part", "train") != "train":
        raise ConfigError(
            "was trained on the held-out episodes themselves",
            where=run,
            expected="a run that was trained on the others (part='train')",
        )
    if not isinstance(dataset, str):
        raise ConfigError(
            "does not say on which data it was trained", where=run, expected="a run on a replay of offrl's"
        )
    return Split(float(held_out), int(seed), dataset)


def _require(ours: Split, theirs: Split, run: Path, first: Path) -> None:
    if theirs.dataset != ours.dataset:
        raise ConfigError(
            f"was trained on the data {theirs.dataset}",
            where=run,
            expected=f"{ours.dataset}, as {first} was",
            hint="select among runs on the same data",
        )
    if theirs != ours:
        raise ConfigError(
            f"holds out other episodes (held_out={theirs.held_out:g}, split_seed={theirs.split_seed})",
            where=run,
            expected=f"held_out={ours.held_out:g} and split_seed={ours.split_seed}, as {first} does: else one is "
            "judged on what it was trained on",
            hint="train them with the same split",
        )


def _lineage(run: Path) -> tuple[list[Path], str]:
    """A run, and those that its first weights come from, one after the other; and what of them is not there."""
    found = [run]
    while (init := read_run_config(run).get("init")) is not None:
        origin = _run_of(init, run)
        if origin is None or origin.resolve() in {each.resolve() for each in found}:
            return found, (
                f"{run}: its first weights are from {init}, which is not there: whether they were trained on the "
                "held-out episodes is not known"
            )
        found.append(origin)
        run = origin
    return found, ""


def _run_of(init: str, run: Path) -> Path | None:
    """The run of the checkpoint that a run began with; None where it is not there.

    Older runs recorded a relative path as it was given. It was of the directory that the training began in, which was
    most likely above the run, and need not be today's: there another run may have the same name.
    """
    directory = Path(init).parent  # of the checkpoints
    directories = [directory]
    if not directory.is_absolute():
        above = dict.fromkeys([*run.resolve().parents, *run.absolute().parents])  # where it lies, and as it is named
        directories = [each for parent in above if (each := parent / directory).is_dir()]
    return next((each.parent for each in directories if (each.parent / "config.json").is_file()), None)
