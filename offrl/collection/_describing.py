"""What a manifest says of behaviours and environments: enough to tell whether it is the dataset that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import gymnasium

from offrl import envs

_NOT_DATA = {"render_mode"}
"""Settings of an environment that no observation or reward depends on."""


def describe(behaviour: Any) -> str:
    """A behaviour in words, equal in every process: dataclasses with their fields, other classes with their settings.

    Of a class that has no representation of its own, the settings are those of its attributes that are numbers or
    texts: what else it holds cannot be compared.
    """
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
    """What an environment was made with that its id does not say, JSON-ready; as far as numbers and texts say it."""
    spec = env.spec
    registered = None if spec is None else gymnasium.registry.get(spec.id)
    if spec is None or registered is None:
        return {}
    usual: Mapping[str, Any] = {**registered.kwargs, "max_episode_steps": registered.max_episode_steps}
    made = {**spec.kwargs, "max_episode_steps": spec.max_episode_steps}
    return {
        name: value
        for name, value in sorted(made.items())
        if name not in _NOT_DATA and _is_plain(value) and value != usual.get(name)
    }


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
