"""Checks of encoders as an algorithm makes them: a class of the user's own is refused in one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from offrl.errors import ConfigError
from offrl.networks._layout import channels_last, lay_channels_last

OBJECT = "object"
"""The only key of what stands for a setting that JSON has nothing for, such as a class."""
_NUM_ROWS = 2  # one row would hide an encoder that flattens the batch, too


def checked(encoder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The same factory, whose encoders are run once: features of another size than `feature_dim` fail far from here.

    Args:
        encoder: An encoder's class, or a function that makes one for an observation shape.

    Raises:
        ConfigError: It is an encoder that was made already, or none of these.
    """
    if isinstance(encoder, nn.Module) or not callable(encoder):
        name = type(encoder).__name__
        raise ConfigError(
            f"a {name} that was made already" if isinstance(encoder, nn.Module) else f"{encoder!r}",
            where="encoder",
            expected="an encoder's class, or a function that makes one for an observation shape",
            hint=f"pass encoder={name}, or functools.partial of it with further arguments",
        )

    def make(observation_shape: tuple[int, ...], *args: Any, **settings: Any) -> nn.Module:
        try:
            made = encoder(observation_shape, *args, **settings)
        except TypeError as error:
            raise ConfigError(
                f"{_name(encoder)} cannot be constructed with the observation shape {observation_shape} ({error})",
                where="encoder",
                expected="a class or function that takes it as its argument",
            ) from error
        if not isinstance(made, nn.Module):
            raise ConfigError(
                f"{_name(encoder)} made {made!r}",
                where="encoder",
                expected="an nn.Module",
                hint="return the encoder that you made",
            )
        if any(map(is_lazy, chain(made.parameters(), made.buffers()))):
            was_training = made.training
            _run(made.eval(), made, observation_shape)  # lazy layers take their sizes, and draw their weights
            made.train(was_training)
        _require_feature_dim(made, observation_shape)
        return made

    return make


def settings_of(encoder: object) -> dict[str, Any]:
    """The keyword arguments of a `functools.partial` of a class as JSON holds them: lists for tuples.

    What JSON would change otherwise, such as a class, is there by its name only.
    """
    if not isinstance(encoder, partial) or not isinstance(encoder.func, type):
        return {}
    found: dict[str, Any] = {}
    for name, value in encoder.keywords.items():
        plain = list(value) if isinstance(value, tuple) else value
        try:
            is_kept = json.loads(json.dumps(plain, allow_nan=False)) == plain
        except (TypeError, ValueError, RecursionError):
            is_kept = False
        kind = value if hasattr(value, "__qualname__") else type(value)
        found[name] = plain if is_kept else {OBJECT: f"{getattr(kind, '__module__', None)}:{kind.__qualname__}"}
    return found


def _require_feature_dim(encoder: nn.Module, observation_shape: tuple[int, ...]) -> None:
    """Compares what the encoder says of its features with what it gives, without a trace on it or on random numbers."""
    said = getattr(encoder, "feature_dim", None)
    if not isinstance(said, int):
        return  # offrl.networks.feature_dim refuses it, where an algorithm asks
    name, given = type(encoder).__name__, f"observations {[_NUM_ROWS, *observation_shape]}"
    try:
        tried = copy.deepcopy(encoder).eval()
    except Exception as error:
        raise ConfigError(
            f"{name} cannot be copied ({type(error).__name__}: {error})",
            where="encoder",
            expected="an encoder that copy.deepcopy takes: target networks and policies are copies",
        ) from error
    lay_channels_last(tried)  # as the Learner does
    with torch.random.fork_rng(devices=[]):
        features = _run(tried, encoder, observation_shape)
    found = list(features.shape) if isinstance(features, Tensor) else f"a {type(features).__name__}"
    if found != [_NUM_ROWS, said]:
        is_flat = isinstance(features, Tensor) and features.dim() == 2 and len(features) == _NUM_ROWS
        raise ConfigError(
            f"{name} has feature_dim {said} and turns {given} into features {found}",
            where="encoder",
            expected=f"[{_NUM_ROWS}, {said}]",
            hint=f"set self.feature_dim = {features.shape[1]}" if is_flat else "flatten all axes but the first",
        )


def _run(tried: nn.Module, encoder: nn.Module, observation_shape: tuple[int, ...]) -> Any:
    """What an encoder makes of zeros that lie in memory as in training: pictures with their channels last."""
    parameter = next(encoder.parameters(), None)
    device = None if parameter is None else parameter.device
    zeros = channels_last(torch.zeros(_NUM_ROWS, *observation_shape, device=device))
    try:
        with torch.no_grad():
            return tried(zeros)
    except Exception as error:  # a class of the user's may fail in any way
        is_view = "view size is not compatible" in str(error)
        raise ConfigError(
            f"{type(encoder).__name__} fails on observations {list(zeros.shape)} ({type(error).__name__}: {error})",
            where="encoder",
            expected="features [B, feature_dim] of observations [B, ...]",
            hint="flatten with .flatten(1): pictures lie in memory with their channels last"
            if is_view
            else "size its layers by the observation shape that it is constructed with",
        ) from error


def _name(encoder: Callable[..., nn.Module]) -> str:
    return getattr(encoder, "__name__", None) or repr(encoder)
