"""How weights are changed: the optimiser, any of torch.optim by name, and the weights that follow others."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offrl.algorithms.algorithm import Algorithm, ParameterGroup
from offrl.checks import is_number
from offrl.errors import ConfigError
from offrl.training.config import LearnerConfig

_FUSED = {"cpu": {"Adam", "AdamW", "SGD", "Adagrad"}, "cuda": {"Adam", "AdamW", "SGD"}}  # in every torch we support


def make_optimizer(
    config: LearnerConfig, groups: Sequence[ParameterGroup], device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser that the config names, over these parameters.

    Raises:
        ConfigError: It refuses its settings.
    """
    kind = getattr(torch.optim, config.optimizer)
    settings = {"lr": config.learning_rate, **config.optimizer_settings}
    is_open = not {"fused", "foreach", "differentiable"} & settings.keys()
    if is_open and config.optimizer in _FUSED.get(device.type, ()):
        settings["fused"] = True
    if device.type == "cuda" and "fused" in settings and "capturable" in inspect.signature(kind).parameters:
        settings.setdefault("capturable", True)
    try:
        optimizer: torch.optim.Optimizer = kind([{"params": group.parameters} for group in groups], **settings)
    except Exception as error:  # torch checks some settings, and stumbles over others
        raise ConfigError(
            f"{config.optimizer} refuses {settings} ({error})", where="LearnerConfig.optimizer_settings"
        ) from error
    return optimizer


def groups_of(algorithm: Algorithm) -> list[ParameterGroup]:
    """What an algorithm trains, checked.

    Raises:
        ConfigError: These are no groups, or groups of nothing, of what is no parameter of the algorithm, or with a
            factor that is none.
    """
    where = f"{type(algorithm).__name__}.parameter_groups"
    ours = {id(parameter) for parameter in algorithm.parameters()}
    found = []
    for group in algorithm.parameter_groups():
        if not isinstance(group, ParameterGroup):
            raise ConfigError(
                f"a {type(group).__name__}",
                where=where,
                expected="a list of ParameterGroup(parameters, learning_rate_scale)",
            )
        parameters, scale = list(group.parameters), group.learning_rate_scale
        if any(id(parameter) not in ours for parameter in parameters):
            raise ConfigError(
                "a group with a parameter of another module",
                where=where,
                expected="parameters of the algorithm, which checkpoints hold",
                hint="make their module an attribute of the algorithm",
            )
        if not is_number(scale) or scale < 0:
            raise ConfigError(f"learning_rate_scale {scale!r}", where=where, expected="a number, 0 or more")
        if parameters:
            found.append(ParameterGroup(parameters, float(scale)))
    if not found:
        raise ConfigError("no parameters", where=where, expected="one or more to train")
    return found


def stays_on_device(optimizer: torch.optim.Optimizer, device: torch.device) -> bool:
    """Whether a step can be left out without asking the host, as Adam's fused CUDA kernels do, also inside a graph."""
    return device.type == "cuda" and all(map(optimizer.defaults.get, ("fused", "capturable")))


CLEARING_PERIOD = 100  # updates
_TINY = 1e-33
"""In 100 updates 0.9, Adam's first decay, makes 3e-38 of it, which is still a normal number."""
_LARGE_EPSILON = 1e-9  # beside which the root of _TINY is lost in rounding


@torch.no_grad()
def clear_tiny(optimizer: torch.optim.Optimizer) -> None:
    """Sets to 0 the moments (momenta) of weights that have had no gradient for hundreds of updates.

    They decay towards the subnormal numbers below 1e-38, stay there, and are a hundred times as slow as others on a
    CPU: the first moments of half of the weights of a network for pixels make an update take 1.5 times as long. What
    is cleared would have moved no weight: at Adam's epsilon of 1e-8 by less than 1e-25 of the learning rate.
    """
    for group in optimizer.param_groups:
        names = ["exp_avg", "momentum_buffer"]
        if group.get("eps", 0.0) >= _LARGE_EPSILON:
            names.append("exp_avg_sq")
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for moment in (state[name] for name in names if state.get(name) is not None):
                moment.copy_(F.hardshrink(moment, _TINY))


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimiser's state, by the parameter's number and their name, such as "0.exp_avg"."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": value for i, s in state.items() for key, value in s.items() if isinstance(value, Tensor)}


def state_values(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """The rest of its state, by the parameter's number, ready for JSON."""
    state = optimizer.state_dict()["state"]
    return {str(i): {key: v for key, v in s.items() if not isinstance(v, Tensor)} for i, s in state.items()}


def load_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Mapping[str, Any]]
) -> None:
    """Sets an optimiser's state to what `state_tensors` and `state_values` gave.

    Raises:
        RuntimeError, KeyError, ValueError: The state belongs to other networks or settings.
    """
    state: dict[int, dict[str, Any]] = {int(i): dict(s) for i, s in values.items()}
    parameters: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            # Fused kernels walk raw memory: a moment must lie in memory as its parameter does (channels_last).
            tensor = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
        state[int(index)][key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def target_pairs(algorithm: Algorithm) -> list[tuple[Tensor, Tensor]]:
    """(source, destination) tensors of all target networks of an algorithm, each destination once.

    A tensor that several layers share, or several target networks, is to move once in an update.

    Raises:
        ConfigError: See `state_pairs`; a tensor is to follow two.
    """
    where = f"{type(algorithm).__name__}.targets"
    found: dict[Any, tuple[Tensor, Tensor]] = {}
    for online, target in algorithm.targets():
        for source, destination in state_pairs(online, target, where):
            place = destination.data_ptr(), destination.shape, destination.stride()
            known, _ = found.setdefault(place, (source, destination))
            if known.data_ptr() != source.data_ptr():
                raise ConfigError(
                    f"a tensor {list(destination.shape)} of a target network is to follow two",
                    where=where,
                    expected="each target tensor with one online tensor",
                    hint="where layers of the target share weights, let those of its online network share them, too",
                )
    return [*found.values()]


def state_pairs(online: nn.Module, target: nn.Module, where: str) -> list[tuple[Tensor, Tensor]]:
    """(source, destination) tensors of a target network, buffers (running means) included.

    Raises:
        ConfigError: The online network has no such tensor; `where` is what paired the two.
    """
    ours, theirs = online.state_dict(), {n: t for n, t in target.state_dict().items() if t.is_floating_point()}
    for name, tensor in theirs.items():
        if name not in ours or ours[name].shape != tensor.shape:
            found = list(ours[name].shape) if name in ours else "nothing"
            raise ConfigError(
                f"the target network's {name} {list(tensor.shape)} is to follow {found} of its online network",
                where=where,
                expected="pairs of a network and a copy of it",
                hint="make the target with frozen_copy(network), and pair it with that network",
            )
    return [(ours[name], tensor) for name, tensor in theirs.items() if tensor.numel()]


@torch.no_grad()
def move(pairs: list[tuple[Tensor, Tensor]], weight: float | Tensor) -> None:
    """Moves each destination by `weight` towards its source, all in one call."""
    if not pairs:
        return
    sources, destinations = zip(*pairs, strict=True)
    if isinstance(weight, Tensor):  # read when a graph is replayed
        torch._foreach_lerp_(destinations, sources, [weight] * len(pairs))
    elif weight > 0:
        torch._foreach_lerp_(destinations, sources, weight)
