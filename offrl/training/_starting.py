"""First weights from another run: which checkpoint, and what of that run they depend on."""

from __future__ import annotations

import warnings
from pathlib import Path

from offrl.replay.source import ReplaySource
from offrl.runs.checkpoint import latest_checkpoint
from offrl.runs.files import read_run_config, recorded_task, run_of

_UNITS = ("discount", "reward_scale")  # of values


def starting_checkpoint(init: str | Path) -> Path:
    """The checkpoint's directory that `init` names: itself, or the latest of a run.

    Raises:
        RunError: a run without checkpoints.
    """
    path = Path(init)
    is_run = (path / "checkpoints").is_dir() and not (path / "policy.safetensors").is_file()
    return latest_checkpoint(path / "checkpoints") if is_run else path


def check_start(checkpoint: Path, replay: ReplaySource) -> None:
    """Refuses weights of another task, and warns where their values are in other units than the replay's.

    Raises:
        SpecMismatchError: Their run is of another task.
        RunError: Its config.json is damaged.
    """
    run = run_of(checkpoint)
    if not (run / "config.json").is_file():
        return
    config = read_run_config(run)
    hint = f"take the first weights from a run on the same task, or make the data anew: offrl convert --like {run}"
    replay.spec.require_same(recorded_task(config, run), run, hint)
    theirs, ours = config.get("replay") or {}, replay.settings()
    others = [name for name in _UNITS if name in theirs and name in ours and theirs[name] != ours[name]]
    if others:
        had, has = (" and ".join(f"{name}={each[name]}" for name in others) for each in (theirs, ours))
        warnings.warn(
            f"the first weights are of a run with {had}, and this one has {has}: their values are in other units, and "
            "are learned anew; pass that run's settings to go on from its values",
            stacklevel=3,
        )
