"""Every setting of a run: its field, default and meaning, from the code that takes it."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_type_hints

from offrl.cli.names import algorithm_class


@dataclass(frozen=True)
class Field:
    """One setting.

    Attributes:
        hint: its annotation.
        default: `dataclasses.MISSING` where it has none.
        meaning: what the docstring says; "" where that says nothing.
    """

    hint: Any
    default: Any
    meaning: str


def setting_groups(algorithm: str) -> dict[str, dict[str, Field]]:
    """The settings that `offrl train --set` takes: for each of algorithm, learner, fit and replay, by name.

    Raises:
        ConfigError: no such algorithm.
    """
    from offrl.algorithms.algorithm import declared_config
    from offrl.replay.config import ReplayConfig
    from offrl.training.config import FitConfig, LearnerConfig

    return {
        "algorithm": config_fields(declared_config(algorithm_class(algorithm))),
        "learner": config_fields(LearnerConfig),
        "fit": config_fields(FitConfig),
        "replay": config_fields(ReplayConfig),
    }


def config_fields(config: type[Any]) -> dict[str, Field]:
    """The fields of a dataclass that its constructor takes."""
    hints, meanings = get_type_hints(config), read_section(config.__doc__, "Attributes")
    found = {}
    for field in fields(config):
        if field.init:
            default = field.default if field.default_factory is MISSING else field.default_factory()
            found[field.name] = Field(hints[field.name], default, meanings.get(field.name, ""))
    return found


_ENTRY = re.compile(r" {4}(\w+)(?: \(.*?\))?: (.*)")


def read_section(docstring: str | None, section: str) -> dict[str, str]:
    """The entries of a Google-style section, such as "Attributes" or "Args", in its order.

    Returns:
        Name -> what is said about it, line breaks as blanks; empty where there is no such section.
    """
    _, _, text = f"\n{inspect.cleandoc(docstring or '')}\n".partition(f"\n{section}:\n")
    entries: dict[str, str] = {}
    for line in text.splitlines():
        if line and not line.startswith(" "):  # the next section
            break
        if found := _ENTRY.match(line):
            name, entries[name] = found[1], found[2]
        elif entries and line.strip():
            entries[name] += f" {line.strip()}"
    return entries
