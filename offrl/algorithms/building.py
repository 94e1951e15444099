"""From a class and recorded settings to an algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

from offrl.algorithms.algorithm import Algorithm
from offrl.checks import restore_value
from offrl.errors import ConfigError
from offrl.networks.encoders import EncoderFactory
from offrl.spec import TaskSpec


def build_algorithm(
    kind: type[Algorithm],
    spec: TaskSpec,
    settings: Mapping[str, Any],
    *,
    encoder: EncoderFactory | None = None,
    seed: int = 0,
) -> Algorithm:
    """An algorithm with its first weights.

    Args:
        kind: Its class.
        spec: The task.
        settings: Fields of its config by name, as a run's config.json has them.
        encoder: None leaves it to the class.
        seed: Of the first weights.

    Raises:
        ConfigError: The class declares no config, or is not constructed as (spec, config, *, encoder, seed).
    """
    config = declared_config(kind)
    hints = get_type_hints(config)
    values = {name: restore_value(value, hints.get(name)) for name, value in settings.items()}
    arguments: dict[str, Any] = {} if encoder is None else {"encoder": encoder}
    try:
        return kind(spec, config(**values), seed=seed, **arguments)
    except TypeError as error:
        raise ConfigError(
            f"{kind.__name__} cannot be constructed ({error})",
            where="--algorithm",
            expected="arguments (spec, config, *, encoder, seed)",
        ) from error


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
