"""From a class and recorded settings to an algorithm, and what a run records of the classes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

from offrl.algorithms.algorithm import Algorithm
from offrl.checks import restore_value
from offrl.errors import ConfigError
from offrl.networks._checking import OBJECT, settings_of
from offrl.networks.encoders import EncoderFactory
from offrl.spec import TaskSpec


def build_algorithm(
    kind: type[Algorithm],
    spec: TaskSpec,
    settings: Mapping[str, Any],
    *,
    encoder: EncoderFactory | None = None,
    seed: int = 0,
    where: str | Path = "--algorithm",
) -> Algorithm:
    """An algorithm with its first weights.

    Args:
        kind: Its class.
        spec: The task.
        settings: Fields of its config by name, as a run's config.json has them.
        encoder: None leaves it to the class.
        seed: Of the first weights.
        where: What messages name.

    Raises:
        ConfigError: The class declares no config, its config lacks a setting, or it is not constructed as
            (spec, config, *, encoder, seed).
    """
    declared = declared_config(kind)
    known = {each.name: each for each in fields(declared)}
    required = [each.name for each in known.values() if each.init and each.default is each.default_factory is MISSING]
    if wrong := [*sorted(settings.keys() - known.keys()), *(name for name in required if name not in settings)]:
        raise ConfigError(
            f"{declared.__name__} {'needs' if wrong[0] in known else 'has no'} setting {wrong[0]}",
            where=where,
            expected=f"settings of {', '.join(known)}" if known else "no settings",
            hint="another version of the algorithm may have other ones",
        )
    hints = get_type_hints(declared)
    given = {name: value for name, value in settings.items() if known[name].init}  # the others follow from these
    config = declared(**{name: restore_value(value, hints.get(name)) for name, value in given.items()})
    arguments: dict[str, Any] = {"seed": seed} | ({} if encoder is None else {"encoder": encoder})
    try:
        inspect.signature(kind).bind(spec, config, **arguments)
    except TypeError as error:
        raise ConfigError(
            f"{kind.__name__} cannot be constructed ({error})",
            where=where,
            expected="arguments (spec, config, *, encoder, seed)",
        ) from error
    return kind(spec, config, **arguments)


def declared_config(kind: type[Algorithm]) -> type[Any]:
    """The dataclass of the algorithm's settings, from `class MyAlgorithm(Algorithm[MyConfig])` or its constructor.

    Raises:
        ConfigError: It declares none.
    """
    try:
        hint = get_type_hints(kind.__init__).get("config")
    except NameError as error:  # a type that is imported for type checkers only
        hint = f"a type that cannot be found ({error})"
    for candidate in (hint, *get_args(hint), kind.config_class()):
        if isinstance(candidate, type) and is_dataclass(candidate):
            return candidate
    raise ConfigError(
        f"{kind.__name__} declares no dataclass as its config",
        where="--algorithm",
        expected=f"class {kind.__name__}(Algorithm[{kind.__name__}Config]), whose config is a dataclass",
    )


def described_encoder(algorithm: Algorithm) -> dict[str, Any]:
    """What a run records of an algorithm's encoder: its class, None without one, and its settings, ready for JSON."""
    encoder = getattr(algorithm, "encoder", None)
    return {
        "encoder": None if encoder is None else f"{type(encoder).__module__}:{type(encoder).__qualname__}",
        "encoder_settings": getattr(algorithm, "_encoder_settings", {}),
    }


def with_settings(encoder: EncoderFactory, recorded: Mapping[str, Any], where: str | Path) -> EncoderFactory:
    """An encoder's class with the settings of the run that it is for.

    Args:
        encoder: The class; or a `functools.partial` of it, which has to have these settings; or another function,
            which is taken to know them.
        recorded: As `described_encoder` gives them.
        where: The run.

    Raises:
        ConfigError: A partial with others; a class where the run has some that no file can hold.
    """
    if not recorded:  # none, or a run of an earlier version: it is the user's to know
        return encoder
    if isinstance(encoder, partial) and isinstance(encoder.func, type):
        if (given := settings_of(encoder)) != recorded:
            raise ConfigError(
                f"an encoder with the settings {given}", where=where, expected=f"{dict(recorded)}, as the run has them"
            )
        return encoder
    if not isinstance(encoder, type):
        return encoder
    if any(isinstance(value, Mapping) and value.keys() == {OBJECT} for value in recorded.values()):
        raise ConfigError(
            f"the run's encoder has the settings {dict(recorded)}",
            where=where,
            expected=f"encoder=functools.partial({encoder.__name__}, ...) with these: a file holds their names only",
        )
    return partial(
        encoder, **{name: tuple(each) if isinstance(each, list) else each for name, each in recorded.items()}
    )


def without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded settings without what is a path on this machine, which is nobody's business elsewhere."""
    return {
        name: {OBJECT: "a path"} if isinstance(value, str) and Path(value).is_absolute() else value
        for name, value in settings.items()
    }
