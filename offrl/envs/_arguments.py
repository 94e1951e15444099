"""Checks of what wrappers, behaviours and collections are given."""

from __future__ import annotations

from typing import Any

import numpy as np

from offrl.checks import is_number, is_whole
from offrl.errors import ConfigError


def require_count(count: Any, where: str) -> int:
    """A count as a plain integer.

    Raises:
        ConfigError: It is no whole number, or below 1.
    """
    if not is_whole(count) or count < 1:
        raise ConfigError(f"{count!r}", where=where, expected="1 or more, a whole number")
    return int(count)


def require_share(share: Any, where: str) -> float:
    """A probability or share as a plain number.

    Raises:
        ConfigError: It is no number, or outside 0 .. 1.
    """
    if not is_number(share) or not 0 <= share <= 1:
        raise ConfigError(f"{share!r}", where=where, expected="a number in [0, 1]")
    plain: float = share.item() if isinstance(share, np.generic) else share  # 0 stays 0: manifests say it so
    return plain


def require_factory(make_env: object, where: str) -> None:
    """Checks that this makes environments: several are needed, so one environment, or an id, is not enough.

    Raises:
        ConfigError: It cannot be called.
    """
    if not callable(make_env):
        raise ConfigError(
            f"make_env is {make_env!r}",
            where=where,
            expected="a function that makes an environment",
            hint="pass functools.partial(offrl.envs.make, ID)",
        )


def why_not_made(error: Exception) -> str:
    """What kept an environment from being made, in one line."""
    words = (str(error).splitlines() or [""])[0]
    if words and not isinstance(error, KeyError):  # which says the key alone
        return words
    return f"{type(error).__name__}: {words}".rstrip(": ")
