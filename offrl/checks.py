"""Checks of settings: what is of the wrong kind, NaN or out of range is refused in one line, never by a traceback."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, get_origin

import numpy as np

from offrl.errors import ConfigError

_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
_LARGEST = 2**1023  # of a float, nearly; larger integers cannot become one


def is_whole(value: object) -> bool:
    """Whether it is an integer; True and False are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a finite real number; True and False are not."""
    if is_whole(value):
        return -_LARGEST <= int(value) <= _LARGEST  # type: ignore[call-overload, no-any-return]
    return isinstance(value, float | np.floating) and math.isfinite(value)


def plain_threshold(threshold: Any, where: str) -> float:
    """A likelihood threshold as a plain number; numpy's and torch's numbers are taken.

    Raises:
        ConfigError: It is none, or outside [0, 1).
    """
    plain = threshold.item() if getattr(threshold, "ndim", None) == 0 else threshold
    if not is_number(plain) or not 0 <= plain < 1:
        raise ConfigError(f"{threshold!r}", where=where, expected="0 <= threshold < 1")
    return float(plain)


def restore_value(value: Any, hint: Any) -> Any:
    """What JSON made of a field's value, as the field declares it: tuples come back from JSON as lists."""
    is_tuple = isinstance(value, list) and (get_origin(hint) or hint) in (tuple, Sequence)
    return tuple(value) if is_tuple else value


class Checks:
    """Checks the fields of a config in its `__post_init__`. Of numpy's numbers it makes plain ones, as JSON holds them.

    Args:
        config: The config.
        where: What messages call it; None for the name of its class.
    """

    def __init__(self, config: object, where: str | None = None) -> None:
        self._config = config
        self._where = type(config).__name__ if where is None else where

    def that(self, holds: bool, name: str, expected: str) -> None:
        """Refuses the field of that name unless `holds`.

        Raises:
            ConfigError: It does not hold.
        """
        if not holds:
            raise ConfigError(f"{getattr(self._config, name)!r}", where=f"{self._where}.{name}", expected=expected)

    def number(self, name: str, expected: str, holds: Callable[[Any], bool], *, as_float32: bool = False) -> None:
        """Refuses a field that is no finite number, or for which `holds` is false; `expected` says what it checks.

        With `as_float32` it is one of torch's in a loss, which has a largest one.

        Raises:
            ConfigError: It is refused.
        """
        value = getattr(self._config, name)
        self.that(is_number(value) and holds(value), name, expected)
        fits = not as_float32 or abs(value) <= _LARGEST_FLOAT32
        self.that(fits, name, f"{expected}, at most {_LARGEST_FLOAT32:.2g}, which float32 holds")
        self._make_plain(name)

    def whole(self, *names: str, least: int, most: int | None = None) -> None:
        """Refuses fields that are no whole numbers from `least` to `most`, None for no limit.

        Raises:
            ConfigError: One is refused.
        """
        for name in names:
            value = getattr(self._config, name)
            holds = is_whole(value) and value >= least and (most is None or value <= most)
            limits = f"{least} or more" if most is None else f"{least} to {most}"
            self.that(holds, name, f"{limits}, a whole number")
            self._make_plain(name)

    def choice(self, name: str, choices: Sequence[str]) -> None:
        """Refuses a field that is none of these words.

        Raises:
            ConfigError: It is refused.
        """
        value = getattr(self._config, name)
        self.that(isinstance(value, str) and value in choices, name, f"one of {choices}")

    def flag(self, name: str) -> None:
        """Refuses a field that is neither True nor False.

        Raises:
            ConfigError: It is refused.
        """
        self.that(isinstance(getattr(self._config, name), bool), name, "True or False")

    def _make_plain(self, name: str) -> None:
        value = getattr(self._config, name)
        if isinstance(value, np.generic):
            object.__setattr__(self._config, name, value.item())
