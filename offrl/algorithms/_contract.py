"""What training asks of an algorithm, tried before it begins: a class of the user's own is refused in one line."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from offrl.algorithms.algorithm import Algorithm, PolicyOutput
from offrl.batch import Batch, FrameBatch
from offrl.checks import plain_threshold
from offrl.errors import ConfigError
from offrl.networks._layout import channels_last

_TRIED_ACTIONS = 4
_OWN_COLUMNS = ("step", "loss", "learning_rate", "skipped_updates")
"""What the Learner and `fit` put beside an algorithm's metrics: the loss that is logged is the one that is trained."""
_OWN_PREFIX = "held_out_"


def require_contract(algorithm: Algorithm, batch: Batch | FrameBatch) -> None:
    """Runs `forward` and `loss` once on a copy: what only acting or logging would notice is said before training.

    Before that it checks that the batch has the fields which the algorithm `needs`. Changes nothing of the algorithm,
    and no random number of torch's. Warns of a target network that nobody moves, and of action masks that the loss does
    not depend on.

    Args:
        algorithm: As it will be trained.
        batch: Raw, as a replay hands it over; a few rows are enough.

    Raises:
        ConfigError: `forward` or `loss` returns something else than `Algorithm` says, or the replay lacks a field.
    """
    for name in sorted(algorithm.needs):
        batch.needed(name)
    plain_threshold(algorithm.threshold, f"{type(algorithm).__name__}.threshold")
    _warn_of_idle_targets(algorithm)
    device = next((parameter.device for parameter in algorithm.parameters()), torch.device("cpu"))
    raw, spec = batch.to(device).stacked(), algorithm.spec
    observation, next_observation = (  # as the Learner has them
        channels_last(spec.normalise(each)) for each in (raw.observation, raw.next_observation)
    )
    prepared = replace(raw, observation=observation, next_observation=next_observation)
    tried = copy.deepcopy(algorithm).eval()
    with _same_random_numbers(device), torch.no_grad():
        _require_output(tried(prepared.observation), algorithm, len(prepared))
        with torch.enable_grad():  # else no loss would have one
            found = tried.loss(prepared)
        _require_loss(found, algorithm)
        _warn_of_unread_masks(tried, prepared)


def _require_output(output: Any, algorithm: Algorithm, num_rows: int) -> None:
    shape = [num_rows, algorithm.spec.num_actions]
    found = _in_words(output)
    if isinstance(output, PolicyOutput):
        tensors = output._asdict()
        if all(isinstance(t, Tensor) and list(t.shape) == shape and t.is_floating_point() for t in tensors.values()):
            return
        found = " and ".join(f"{name} that are {_in_words(value)}" for name, value in tensors.items())
    raise ConfigError(
        f"returned {found}",
        where=f"{type(algorithm).__name__}.forward",
        expected=f"a PolicyOutput of two float tensors {shape}, [B, A]",
        hint="return PolicyOutput(scores=q, logits=torch.zeros_like(q)) where no action is ruled out",
    )


def _require_loss(found: Any, algorithm: Algorithm) -> None:
    where = f"{type(algorithm).__name__}.loss"
    is_pair = isinstance(found, tuple) and len(found) == 2
    if not is_pair or not _is_scalar(found[0]) or not isinstance(found[1], Mapping):
        parts = " and ".join(map(_in_words, found)) if is_pair else _in_words(found)
        raise ConfigError(
            f"returned {parts}",
            where=where,
            expected="a tuple of the loss, a tensor [], and metrics by name",
            hint="return loss, {} where there are no metrics",
        )
    if not found[0].requires_grad:
        raise ConfigError(
            "returned a loss without a gradient",
            where=where,
            expected="one that depends on the weights",
            hint="return it without .detach(), and compute it outside of torch.no_grad()",
        )
    for name, metric in found[1].items():
        if not isinstance(name, str) or name in _OWN_COLUMNS or name.startswith(_OWN_PREFIX):
            raise ConfigError(
                f"a metric of the name {name!r}",
                where=where,
                expected=f"other names than offrl's own: {', '.join(_OWN_COLUMNS)}, {_OWN_PREFIX}…",
            )
        if not _is_scalar(metric):
            raise ConfigError(
                f"the metric {name!r} is {_in_words(metric)}",
                where=where,
                expected="a tensor []",
                hint="return means as tensors, without .item() or float(): the Learner reads them when it logs",
            )


def _is_scalar(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() == 0


def _in_words(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return f"{value!r}" if isinstance(value, int | float) else f"a {type(value).__name__}"


def _warn_of_unread_masks(algorithm: Algorithm, batch: Batch) -> None:
    """Warns where the loss looks at the next observation and is the same whatever is legal there and here.

    One that needs the next logged action need not ask what is legal.
    """
    if batch.action_mask is None or "next_action" in algorithm.needs:
        return
    logged = functional.one_hot(batch.action, algorithm.spec.num_actions).bool()
    # No episode ends: where it does, the next state counts for nothing.
    bootstrapped = replace(batch, discount=torch.ones_like(batch.discount))
    masks = []
    for action in range(min(_TRIED_ACTIONS, algorithm.spec.num_actions)):
        alone = torch.zeros_like(logged)
        alone[:, action] = True
        masks += [alone, ~alone]  # alone, a maximum tells; without it, a softmax of the others
    try:
        first, *others = (
            _loss_of(algorithm, replace(bootstrapped, action_mask=mask | logged, next_action_mask=mask))
            for mask in masks
        )
        here = _loss_of(algorithm, bootstrapped)
        elsewhere = _loss_of(algorithm, replace(bootstrapped, next_observation=batch.next_observation.flip(0) * 0.5))
    except Exception:  # what is tried here is not the data's: a loss that does not take it has taken what is
        return
    if all(math.isclose(loss, first, rel_tol=1e-6) for loss in others) and not math.isclose(
        here, elsewhere, rel_tol=1e-6
    ):
        warnings.warn(
            f"{type(algorithm).__name__}.loss does not depend on action_mask or next_action_mask: illegal actions "
            "count in what it learns, though its policy never takes them; mask every max and softmax over actions",
            stacklevel=3,
        )


def _loss_of(algorithm: Algorithm, batch: Batch) -> float:
    """Of a copy whose weights are off by a little: those that begin at 0 would make all actions equal."""
    tried, device = copy.deepcopy(algorithm), batch.action.device
    noise = torch.Generator(device).manual_seed(0)
    for parameter in tried.parameters():
        if parameter.is_floating_point():
            parameter.add_(torch.randn(parameter.shape, generator=noise, device=device), alpha=0.05)
    with _same_random_numbers(device):
        return float(tried.loss(batch)[0])


def _same_random_numbers(device: torch.device) -> AbstractContextManager[None]:
    """In it torch's random numbers are drawn as ever, and after it they are drawn again."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _warn_of_idle_targets(algorithm: Algorithm) -> None:
    moved = {id(parameter) for _, target in algorithm.targets() for parameter in target.parameters()}
    for name, module in algorithm.named_modules():
        is_target = "is_frozen_copy" in vars(module)
        if is_target and any(id(parameter) not in moved for parameter in module.parameters()):
            warnings.warn(
                f"{type(algorithm).__name__}.{name} is a frozen_copy and in none of the pairs of targets(): "
                "it keeps its first weights",
                stacklevel=3,
            )
