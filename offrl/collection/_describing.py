"""What a manifest says of behaviours and environments: enough to tell whether it is the dataset that is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import gymnasium
import numpy as np

from offrl import envs
from offrl.envs.car_racing import ENV_ID, HUD_ROWS
from offrl.envs.wrappers import LUMA_WEIGHTS, GrayStack, StallStop

_HUD_ROWS = [HUD_ROWS.start, HUD_ROWS.stop, HUD_ROWS.step]
_NOT_DATA = {"render_mode"}
"""Settings of an environment that no observation or reward depends on."""
_TOLD = {
    *("DescribedTask", "DiscreteActions", "FrameStack", "_Float32"),  # by the spec and the action table
    *("_SaysLap", "HumanRendering", "RecordEpisodeStatistics", "RecordVideo", "RenderCollection"),
}
"""Wrappers of offrl's and Gymnasium's without which data would be the same, or which another entry tells of."""


def describe(behaviour: Any) -> str:
    """A behaviour in words, equal in every process: dataclasses with their fields, other classes with their settings.

    Of a class that has no representation of its own, the settings are those of its attributes that are numbers or
    texts: what else it holds cannot be compared.
    """
    if isinstance(behaviour, np.generic):  # the same number or text, whoever computed it
        behaviour = behaviour.item()
    if is_dataclass(behaviour) and not isinstance(behaviour, type):
        parts = {each.name: getattr(behaviour, each.name) for each in fields(behaviour) if each.repr}
    elif any("__repr__" in vars(each) for each in type(behaviour).__mro__[:-1]):
        return _of_sequence(behaviour) if type(behaviour) in (tuple, list) else repr(behaviour)
    else:
        found = getattr(behaviour, "__dict__", {})
        parts = {name: value for name, value in sorted(found.items()) if _is_plain(value)}
        if not parts:
            return type(behaviour).__qualname__
    text = ", ".join(f"{name}={describe(value)}" for name, value in parts.items())
    return f"{type(behaviour).__qualname__}({text})"


def _of_sequence(values: Any) -> str:
    texts = [describe(each) for each in values]
    if isinstance(values, list):
        return f"[{', '.join(texts)}]"
    return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"


def settings_of(env: envs.Env) -> dict[str, Any]:
    """What an environment was made with that its id does not say, JSON-ready; as far as numbers and texts say it.

    Under "wrappers", those around it that change what is played, outermost first, if they are not the ones that
    `offrl.envs.make` puts there for the id alone.
    """
    found, wrappers = _arguments_of(env), _wrappers_of(env)
    return found if wrappers == _usual_wrappers(env) else {**found, "wrappers": wrappers}


def _arguments_of(env: envs.Env) -> dict[str, Any]:
    """What `gymnasium.make` was given beside the id."""
    spec = env.spec
    registered = None if spec is None else gymnasium.registry.get(spec.id)
    if spec is None or registered is None:
        return {}
    usual: Mapping[str, Any] = {**registered.kwargs, "max_episode_steps": registered.max_episode_steps}
    made = {**spec.kwargs, "max_episode_steps": spec.max_episode_steps}
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in sorted(made.items())
        if name not in _NOT_DATA and _is_plain(value) and value != usual.get(name)
    }


def _wrappers_of(env: envs.Env) -> list[str]:
    """The wrappers that no other part of a manifest tells of, outermost first.

    Inside of Gymnasium's own, which `gymnasium.make` puts there, are those of the environment that the id names.
    """
    found = []
    while isinstance(env, gymnasium.Wrapper) and not isinstance(env, gymnasium.wrappers.OrderEnforcing):
        kind, settings = type(env), vars(env).get("_saved_kwargs", {})  # of Gymnasium's RecordConstructorArgs
        is_told = isinstance(env, gymnasium.wrappers.TimeLimit) and env.spec is not None  # as max_episode_steps
        if not is_told and (words := _wrapper_in_words(kind.__module__, kind.__name__, settings)) is not None:
            found.append(words)
        env = env.env
    return found


def _usual_wrappers(env: envs.Env) -> list[str]:
    """Those of `offrl.envs.make(id)`."""
    registered = None if env.spec is None else gymnasium.registry.get(env.spec.id)
    if registered is None:
        return []
    if registered.id == ENV_ID and env.has_wrapper_attr("action_table"):  # as offrl.envs.car_racing makes it
        defaults = inspect.signature(StallStop).parameters.values()
        settings = {each.name: each.default for each in defaults if each.default is not each.empty}
        usual = [_wrapper_in_words(StallStop.__module__, StallStop.__name__, settings)]
    else:
        usual = [
            _wrapper_in_words(each.entry_point.partition(":")[0], each.name, each.kwargs or {})
            for each in reversed(registered.additional_wrappers)
        ]
    return [words for words in usual if words is not None]


def _wrapper_in_words(module: str, name: str, settings: Mapping[str, Any]) -> str | None:
    """A wrapper with its settings that are numbers and texts; None where it changes nothing that is not told."""
    if module.startswith(("offrl.", "gymnasium.")) and name in _TOLD:
        return None
    is_gray_stack = (module, name) == (GrayStack.__module__, GrayStack.__name__)
    # The spec has the size of the stack, and whether CarRacing's bar is hidden.
    hidden, weights = settings.get("hidden_rows"), settings.get("weights", LUMA_WEIGHTS)
    if is_gray_stack and hidden in (None, _HUD_ROWS) and tuple(weights) == LUMA_WEIGHTS:
        return None
    parts = (f"{each}={describe(value)}" for each, value in settings.items() if _is_readable(value))
    return f"{name}({', '.join(parts)})"


def _is_plain(value: object) -> bool:
    plain = value.item() if isinstance(value, np.generic) else value
    return plain is None or isinstance(plain, bool | int | float | str)


def _is_readable(value: object) -> bool:
    return _is_plain(value) or (isinstance(value, tuple | list) and all(map(_is_plain, value)))
