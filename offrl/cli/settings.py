"""The settings of a run: which there are, and their values from text, FIELD=VALUE, typed by their annotations."""

from __future__ import annotations

import difflib
import inspect
import json
import math
import re
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from offrl.cli.names import algorithm_class
from offrl.errors import ConfigError

Hints = Mapping[str, Any]
"""Field name -> annotation, as `typing.get_type_hints` gives it for a dataclass or a function."""

_WORDS: Mapping[Any, Mapping[str, Any]] = {bool: {"true": True, "false": False}, types.NoneType: {"none": None}}


def parse_settings(assignments: Sequence[str], groups: Mapping[str, Hints]) -> dict[str, dict[str, Any]]:
    """Sorts FIELD=VALUE texts into the groups that have such a field; a field of two groups is set in both.

    Args:
        assignments: such as "learning_rate=5e-4"; of two for the same field the later one counts.
        groups: group name -> its fields.

    Returns:
        Group name -> field name -> typed value, for the fields that were given.

    Raises:
        ConfigError: no FIELD=VALUE, an unknown field, or a value that its field cannot take.
    """
    values: dict[str, dict[str, Any]] = {group: {} for group in groups}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"{assignment!r}", where="--set", expected="FIELD=VALUE, such as batch_size=128")
        owners = [group for group, hints in groups.items() if name in hints]
        if not owners:
            raise _unknown_field(name, groups)
        for group in owners:
            values[group][name] = parse_value(text, groups[group][name], where=f"--set {name}")
    return values


_ELSEWHERE = {
    "action_flexibility": ("threshold",),
    "alpha": ("weight",),
    "beta": ("logit_penalty",),
    "gamma": ("discount",),
    "lr": ("learning_rate",),
    "n_critics": ("ensemble",),
    "n_quantiles": ("num_quantiles",),
    "n_steps": ("updates", "n_step"),
    "target_update_interval": ("target_period",),
    "tau": ("polyak",),
}
"""What d3rlpy and others call some settings -> what they are called here."""


def _unknown_field(name: str, groups: Mapping[str, Hints]) -> ConfigError:
    known = sorted({field for hints in groups.values() for field in hints})
    same = [field for field in _ELSEWHERE.get(name, ()) if field in known]
    near = same or difflib.get_close_matches(name, known, n=1, cutoff=0.9)  # a slip of the pen
    near = near or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return ConfigError(
        f"no field {name!r}",
        where="--set",
        expected=f"one of {', '.join(known)}",
        hint=f"did you mean {' or '.join(near)}?" if near else None,
    )


def parse_value(text: str, hint: Any, where: str) -> Any:
    """The value that `text` stands for where `hint` is asked for.

    Strings and literals are taken as they stand, booleans are true or false, None is none, and mappings and
    sequences are JSON. Numbers are finite.

    Raises:
        ConfigError: no such value; `where` names the field.
    """
    try:
        return _parse(text, hint)
    except (ValueError, KeyError, RecursionError) as error:
        raise ConfigError(f"{text!r}", where=where, expected=_describe(hint)) from error


def _parse(text: str, hint: Any) -> Any:
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return _parse_union(text, get_args(hint))
    if origin is Literal:
        return {str(value): value for value in get_args(hint)}[text]
    if origin in _WORDS:
        return _WORDS[origin][text.lower()]
    if origin is float:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError
        return number
    if origin in (int, str):
        return origin(text)
    from offrl.checks import restore_value  # it brings numpy, which --help does without

    value = restore_value(json.loads(text), hint)
    if isinstance(origin, type) and not isinstance(value, origin):
        raise ValueError
    return value


def _parse_union(text: str, hints: tuple[Any, ...]) -> Any:
    for hint in sorted(hints, key=lambda hint: hint is not types.NoneType):  # a string would take "none" as well
        with suppress(ValueError, KeyError):
            return _parse(text, hint)
    raise ValueError


def format_value(value: Any) -> str:
    """The text that `parse_value` reads as `value`."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value)


def _describe(hint: Any) -> str:
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return " or ".join(map(_describe, get_args(hint)))
    if origin is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if origin in _WORDS:
        return " or ".join(_WORDS[origin])
    if origin in (int, float):
        return "a whole number" if origin is int else "a finite number"
    return "a JSON object" if isinstance(origin, type) and issubclass(origin, Mapping) else f"JSON for {hint}"


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
    from offrl.algorithms.building import declared_config
    from offrl.replay.config import ReplayConfig
    from offrl.training.config import FitConfig, LearnerConfig

    return {
        "algorithm": config_fields(declared_config(algorithm_class(algorithm))),
        "learner": config_fields(LearnerConfig),
        "fit": config_fields(FitConfig),
        "replay": config_fields(ReplayConfig),
    }


def complete_setting(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """What a shell offers after --set: the settings of the algorithm that is named before, with their equals sign."""
    groups = setting_groups(ctx.params.get("algorithm") or "bcq")
    return sorted({f"{name}=" for fields in groups.values() for name in fields if name.startswith(begun)})


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
