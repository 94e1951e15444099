"""Saving and loading: safetensors for tensors, JSON for the rest, each file whole or not there."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from offrl.algorithms.algorithm import Algorithm
from offrl.errors import RunError
from offrl.system.files import sync
from offrl.training.learner import Learner

_NAME = re.compile(r"step-(\d{9})")
_FULL_CHECKPOINTS = 2
"""How many of the latest checkpoints keep what is needed to go on; older ones keep their policy only."""


def save_checkpoint(learner: Learner, directory: Path) -> Path:
    """Writes `directory/step-000012000/` with the learner's whole state and the policy that evaluation sees.

    The folder appears under its name only when it is complete. Older checkpoints keep their policy; what is needed
    to resume is kept for the latest two.
    """
    target = directory / f"step-{learner.step:09d}"
    partial = directory / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(_contiguous(learner.state_tensors()), partial / "learner.safetensors")
    save_file(_contiguous(learner.snapshot().state_dict()), partial / "policy.safetensors")
    (partial / "state.json").write_text(json.dumps(learner.state_values(), indent=1) + "\n")
    for file in partial.iterdir():
        sync(file)
    if target.exists():
        shutil.rmtree(target)
    partial.replace(target)
    for old in checkpoints(directory)[:-_FULL_CHECKPOINTS]:
        (old / "learner.safetensors").unlink(missing_ok=True)
    return target


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in `directory`, oldest first."""
    return sorted(path for path in directory.glob("step-*") if _NAME.fullmatch(path.name)) if directory.is_dir() else []


def latest_checkpoint(directory: Path) -> Path:
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


def link_best(directory: Path, step: int) -> None:
    """Makes `directory/best` a link to the checkpoint of that step."""
    link, target = directory / "best", f"step-{step:09d}"
    if not (link.is_symlink() and link.readlink() == Path(target)):
        partial = directory / ".best.partial"
        partial.unlink(missing_ok=True)
        partial.symlink_to(target, target_is_directory=True)
        partial.replace(link)


def load_learner(learner: Learner, checkpoint: Path) -> None:
    """Lets the learner go on exactly where `save_checkpoint` left it.

    Raises:
        RunError: a file is missing or damaged, or belongs to another algorithm, encoder or optimiser.
    """
    tensors = _load_tensors(checkpoint / "learner.safetensors", learner.device)
    path = checkpoint / "state.json"
    try:
        learner.load_state(tensors, json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, KeyError, IndexError, RuntimeError, AttributeError) as error:
        raise _mismatch(checkpoint, error) from error


def load_policy(algorithm: Algorithm, checkpoint: Path) -> Algorithm:
    """Puts a checkpoint's evaluated weights into `algorithm` (averaged ones, where the run had those on).

    Args:
        algorithm: of the class, spec and encoder that the run was trained with; changed in place and returned.
        checkpoint: a checkpoint's folder.

    Raises:
        RunError: the file is missing or damaged, or belongs to another algorithm or encoder.
    """
    tensors = _load_tensors(checkpoint / "policy.safetensors", next(algorithm.parameters()).device)
    _require_same_tensors(algorithm.state_dict(), tensors, checkpoint)
    algorithm.load_state_dict(tensors)
    return algorithm


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that share no memory and lie in plain order, as the file format asks."""
    return {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}


def _load_tensors(path: Path, device: torch.device) -> dict[str, Tensor]:
    if not path.is_file():
        raise RunError(
            "no such file", where=path, hint="name a checkpoint's folder, such as runs/bcq-001/checkpoints/…"
        )
    try:
        return load_file(path, device=str(device))
    except (SafetensorError, OSError, struct.error) as error:
        raise RunError(f"damaged ({error})", where=path, hint="use another checkpoint") from error


def _require_same_tensors(ours: Mapping[str, Tensor], saved: Mapping[str, Tensor], checkpoint: Path) -> None:
    """Names the first tensor in which the networks differ from those that were saved."""
    for name in sorted(ours.keys() | saved.keys()):
        here, there = (list(t[name].shape) if name in t else None for t in (ours, saved))
        if here != there:
            words = ["missing" if shape is None else str(shape) for shape in (there, here)]
            raise RunError(
                f"the weights {name} are {words[0]}",
                where=checkpoint,
                expected=f"{words[1]}, as the networks here have them",
                hint="construct the algorithm with the encoder, settings and task that the run's config.json names",
            )


def _mismatch(checkpoint: Path, error: Exception) -> RunError:
    reason = " ".join(str(error).split())
    return RunError(
        f"does not fit ({reason[:200]})",
        where=checkpoint,
        expected="a checkpoint of the same algorithm, encoder, task and optimiser",
        hint="construct the algorithm as the run's config.json says",
    )
