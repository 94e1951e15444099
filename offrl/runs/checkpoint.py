"""Saving and loading: safetensors for tensors, JSON for the rest, sealed with their hashes, whole or not there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from offrl.algorithms.algorithm import Algorithm
from offrl.errors import RunError
from offrl.system.files import remove_all_partials, remove_directory, replacing_directory, sync
from offrl.system.json_files import json_bytes, parse_json, sealed
from offrl.system.sealing import read_seal, read_sealed, write_sealed

_NAME = re.compile(r"step-(\d{9,})")
_FULL_CHECKPOINTS = 2
"""How many of the latest checkpoints keep what is needed to go on; older ones keep their policy only."""
_LEARNER, _POLICY, _STATE = "learner.safetensors", "policy.safetensors", "state.json"


class Stateful(Protocol):
    """What is trained and can be saved, as `offrl.training.Learner` is."""

    step: int
    device: torch.device

    def state_tensors(self) -> dict[str, Tensor]:
        """Every tensor that the next update depends on."""
        ...

    def state_values(self) -> dict[str, Any]:
        """The rest of the state, ready for JSON."""
        ...

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Goes on exactly where these were taken."""
        ...

    def snapshot(self) -> Algorithm:
        """The trained policy's algorithm, as evaluation sees it."""
        ...


def save_checkpoint(
    learner: Stateful,
    directory: Path | str,
    logs: Mapping[str, Any] | None = None,
    run: str | None = None,
    *,
    keep: Collection[int] | None = None,
) -> Path:
    """Writes `directory/step-000012000/` with the learner's whole state and the policy that evaluation sees.

    The folder appears under its name only when it is complete and on the disk. Older checkpoints keep their policy;
    what is needed to resume is kept for the latest two.

    Args:
        learner: What to save.
        directory: A run's `checkpoints`.
        logs: What else the run has done by then, JSON-ready, such as how far its CSV files reach (`CSVLogger.sync`).
        run: The identity of the run, a hash of its settings; None where it is of no run.
        keep: The steps whose checkpoints are kept beside this one, all with what is needed to resume; the others are
            removed. None keeps all, as said above.

    Raises:
        RunError: It cannot be written.
    """
    directory = Path(directory)
    target = directory / f"step-{learner.step:09d}"
    state = {**learner.state_values(), "logs": dict(logs or {})}
    contents = {
        _LEARNER: save(_contiguous(learner.state_tensors())),
        _POLICY: save(_contiguous(learner.snapshot().state_dict())),
        _STATE: json_bytes(sealed(state)),
    }
    try:
        with replacing_directory(target) as partial:
            write_sealed(partial, contents, step=learner.step, **({} if run is None else {"run": run}))
        if keep is None:
            drop_old_states(directory)
        else:
            keep_only(directory, {*keep, learner.step})
    except OSError as error:
        raise RunError(
            f"cannot be written ({error.strerror or error})",
            where=target,
            expected="a writable directory with room for it",
            hint="free some space, and go on from the checkpoint before it with --resume (resume=True)",
        ) from error
    return target


def drop_old_states(directory: Path) -> None:
    """Leaves the older checkpoints their policy only."""
    for old in checkpoints(directory)[:-_FULL_CHECKPOINTS]:
        (old / _LEARNER).unlink(missing_ok=True)


def keep_only(directory: Path, steps: Collection[int]) -> None:
    """Removes the checkpoints of all other steps."""
    remove_all_partials(directory)  # of a process that was killed while it removed some
    for each in checkpoints(directory):
        if step_of(each) not in steps:
            remove_directory(each)


def checkpoints(directory: Path | str) -> list[Path]:
    """The checkpoints in `directory`, oldest first."""
    directory = Path(directory)
    found = [path for path in directory.glob("step-*") if _NAME.fullmatch(path.name)] if directory.is_dir() else []
    return sorted(found, key=step_of)


def latest_checkpoint(directory: Path | str) -> Path:
    """The checkpoint with the most updates.

    Raises:
        RunError: there is none.
    """
    found = checkpoints(directory)
    if not found:
        raise RunError("no checkpoint here", where=directory, expected="folders named step-000001000")
    return found[-1]


def step_of(checkpoint: Path) -> int:
    """The updates that were done when this checkpoint was made, by its name."""
    return int(checkpoint.name.removeprefix("step-"))


def link_best(directory: Path, step: int | None) -> None:
    """Makes `directory/best` a link to the checkpoint of that step; None, where nothing is scored, takes it away."""
    link, target = directory / "best", f"step-{step or 0:09d}"
    if step is None:
        link.unlink(missing_ok=True)
    elif not (link.is_symlink() and link.readlink() == Path(target)):
        partial = directory / ".best.partial"
        partial.unlink(missing_ok=True)
        partial.symlink_to(target, target_is_directory=True)
        partial.replace(link)
        sync(directory)


def set_aside(checkpoint: Path) -> None:
    """Gives a damaged checkpoint the name `step-000012000.damaged`, so that the run can write it again."""
    kept = checkpoint.with_name(f"{checkpoint.name}.damaged")
    if kept.exists():
        shutil.rmtree(kept)
    checkpoint.rename(kept)


class Resumable(NamedTuple):
    """Where a run can go on.

    Attributes:
        checkpoint: The newest one that is whole; None without one.
        damaged: Newer ones that are not, and what is wrong with each.
    """

    checkpoint: Path | None
    damaged: list[tuple[Path, str]]


def find_resumable(directory: Path, run: str | None = None) -> Resumable:
    """Looks for the newest checkpoint whose files are all as they were written.

    Those that keep their policy only are passed over: nothing is wrong with them.

    Args:
        directory: A run's `checkpoints`.
        run: The run's identity, which a checkpoint that says one must have; None where it has none.
    """
    damaged: list[tuple[Path, str]] = []
    for checkpoint in reversed(checkpoints(directory)):
        if not (checkpoint / _LEARNER).exists():
            continue
        try:
            _read_state(checkpoint, run)
            _read(checkpoint, _LEARNER)
            _read(checkpoint, _POLICY)
        except RunError as error:
            damaged.append((checkpoint, str(error)))
        else:
            return Resumable(checkpoint, damaged)
    return Resumable(None, damaged)


def saved_logs(directory: Path) -> dict[str, Any]:
    """The `logs` of the newest checkpoint that tells them; empty where none does."""
    for checkpoint in reversed(checkpoints(directory)):
        with suppress(RunError):
            logs = _read_state(checkpoint).get("logs", {})
            return dict(logs) if isinstance(logs, dict) else {}
    return {}


def load_learner(learner: Stateful, checkpoint: Path | str) -> dict[str, Any]:
    """Lets the learner go on exactly where `save_checkpoint` left it.

    Returns:
        The `logs` that were saved with it; empty where there were none.

    Raises:
        RunError: a file is missing or damaged, or belongs to another algorithm, encoder or optimiser.
    """
    checkpoint = Path(checkpoint)
    state = _read_state(checkpoint)
    tensors = _load_tensors(checkpoint, _LEARNER, learner.device)
    try:
        learner.load_state(tensors, state)
    except (ValueError, TypeError, KeyError, IndexError, RuntimeError, AttributeError, OverflowError) as error:
        raise _mismatch(checkpoint, error) from error
    return _logs(state)


def read_logs(checkpoint: Path) -> dict[str, Any]:
    """The `logs` that were saved with a checkpoint; empty where there were none.

    Raises:
        RunError: its state is missing or damaged.
    """
    return _logs(_read_state(checkpoint))


def _logs(state: Mapping[str, Any]) -> dict[str, Any]:
    logs = state.get("logs", {})
    return dict(logs) if isinstance(logs, dict) else {}


def load_policy(algorithm: Algorithm, checkpoint: Path | str) -> Algorithm:
    """Puts a checkpoint's evaluated weights into `algorithm` (averaged ones, where the run had those on).

    Args:
        algorithm: of the class, spec and encoder that the run was trained with; changed in place and returned.
        checkpoint: a checkpoint's folder.

    Raises:
        RunError: the file is missing or damaged, or belongs to another algorithm or encoder.
    """
    checkpoint = Path(checkpoint)
    tensors = _load_tensors(checkpoint, _POLICY, next(algorithm.parameters()).device)
    _require_same_tensors(algorithm.state_dict(), tensors, checkpoint)
    algorithm.load_state_dict(tensors)
    return algorithm


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that share no memory and lie in plain order, as the file format asks."""
    return {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}


def _read(checkpoint: Path, name: str) -> bytes:
    """A file of a checkpoint, as it was written."""
    path = checkpoint / name
    try:
        return read_sealed(checkpoint, name, read_seal(checkpoint))
    except FileNotFoundError as error:
        raise RunError(
            "no such file", where=path, hint="name a checkpoint's folder, such as runs/bcq-001/checkpoints/…"
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_state(checkpoint: Path, run: str | None = None) -> dict[str, Any]:
    path = checkpoint / _STATE
    try:
        state = parse_json(_read(checkpoint, _STATE))
        seal = read_seal(checkpoint)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if seal is None and "logs" in state:  # before there were seals, there were no logs
        raise _damaged(checkpoint, "its seal.json is missing")
    if seal is not None and run is not None and seal.get("run", run) != run:
        raise _damaged(checkpoint, "it is of another run: it was made with another config.json")
    steps = {"state.json": state.get("step"), "seal.json": None if seal is None else seal.get("step")}
    for name, step in steps.items():
        if step is not None and step != step_of(checkpoint):
            raise _damaged(checkpoint, f"{name} is of step {step!r}")
    return state


def _damaged(path: Path, reason: object) -> RunError:
    return RunError(
        f"damaged ({reason})", where=path, hint="use another checkpoint; --resume takes the newest one that is whole"
    )


def _load_tensors(checkpoint: Path, name: str, device: torch.device) -> dict[str, Tensor]:
    content = _read(checkpoint, name)
    try:
        return {key: tensor.to(device) for key, tensor in load(content).items()}
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise _damaged(checkpoint / name, error) from error


def _require_same_tensors(ours: Mapping[str, Tensor], saved: Mapping[str, Tensor], checkpoint: Path) -> None:
    """Names the first tensor in which the networks differ from those that were saved."""
    for name in sorted(ours.keys() | saved.keys()):
        here, there = (list(t[name].shape) if name in t else None for t in (ours, saved))
        if here != there:
            raise RunError(
                f"the weights {name} are {'missing' if there is None else there}",
                where=checkpoint,
                expected="none of that name" if here is None else f"{here}, as the networks here have them",
                hint="take the algorithm, encoder, settings and task that the run's config.json names",
            )


def _mismatch(checkpoint: Path, error: Exception) -> RunError:
    reason = " ".join(str(error).split())
    return RunError(
        f"does not fit ({reason[:200]})",
        where=checkpoint,
        expected="a checkpoint of the same algorithm, encoder, task and optimiser",
        hint="construct the algorithm as the run's config.json says",
    )
