"""What a collection is asked for: checked before an environment is made."""

from __future__ import annotations

from typing import Any

from offrl.checks import is_whole
from offrl.envs._arguments import require_factory
from offrl.errors import ConfigError


def require_collectable(where: str, make_env: object, *, seed: Any, **counts: Any) -> None:
    """Checks what all collections are given.

    Args:
        where: Who asks.
        make_env: Makes one environment.
        seed: Of the dataset.
        counts: By name, each 1 or more; `workers` may be None, for one on each core.

    Raises:
        ConfigError: It makes nothing, or a number is out of range or no whole one.
    """
    require_factory(make_env, where)
    are_counts = all(
        (is_whole(value) and value >= 1) or (name == "workers" and value is None) for name, value in counts.items()
    )
    if not are_counts or not is_whole(seed) or seed < 0:
        *names, last = counts
        raise ConfigError(
            ", ".join(f"{name}={value!r}" for name, value in {**counts, "seed": seed}.items()),
            where=where,
            expected=f"{', '.join(names)} and {last} of 1 or more, seed of 0 or more, all whole numbers",
        )
