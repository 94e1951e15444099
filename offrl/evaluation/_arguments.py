"""What episodes are played with: checked before an environment is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offrl.checks import is_number, is_whole
from offrl.envs._arguments import require_factory
from offrl.envs.seeds import require_evaluation_seeds
from offrl.errors import ConfigError


def require_playable(
    where: str,
    make_env: object,
    seeds: Sequence[int],
    *,
    num_envs: Any = 1,
    workers: Any = None,
    choosing: bool = False,
) -> None:
    """Checks that episodes can be played with these arguments.

    Args:
        where: Who asks.
        make_env: Makes one environment.
        seeds: One for each episode.
        num_envs: Environments that step together.
        workers: Processes that step them.
        choosing: See `require_evaluation_seeds`.

    Raises:
        ConfigError: They cannot.
    """
    require_evaluation_seeds(seeds, where, choosing=choosing)
    if not len(seeds):
        raise ConfigError("no seeds", where=where, expected="1 or more")
    require_factory(make_env, where)
    if not is_whole(num_envs) or num_envs < 1:
        raise ConfigError(f"{num_envs!r} environments", where=where, expected="1 or more, a whole number")
    if workers is not None and (not is_whole(workers) or workers < 0):
        raise ConfigError(f"{workers!r} workers", where=where, expected="0 or more, or None for one on each core")


def require_policy(policy: object, where: str) -> None:
    """Checks that this acts: an algorithm is none yet, and neither is a run's directory.

    Raises:
        ConfigError: It is an algorithm, or cannot be called.
    """
    # By name, because what plays with scripted drivers alone does not import torch.
    bases = {f"{kind.__module__}:{kind.__name__}" for kind in type(policy).__mro__}
    if "offrl.algorithms.algorithm:Algorithm" in bases:
        name = type(policy).__name__
        raise ConfigError(
            f"{name} is an algorithm", where=where, expected="a policy", hint="wrap it: offrl.TorchPolicy(algorithm)"
        )
    if not callable(policy):
        hint = f"pass offrl.load({str(policy)!r})" if isinstance(policy, str | Path) else None
        raise ConfigError(f"the policy is {policy!r}", where=where, expected="a policy", hint=hint)


def plain_thresholds(thresholds: object, where: str) -> list[float]:
    """The thresholds as plain numbers, which JSON can hold.

    Raises:
        ConfigError: They are none, or not several.
    """
    if not isinstance(thresholds, Iterable) or getattr(thresholds, "ndim", 1) == 0:
        raise ConfigError(
            f"thresholds is {thresholds!r}", where=where, expected="several of them", hint=f"pass [{thresholds!r}]"
        )
    found = [each.item() if isinstance(each, np.generic) else each for each in thresholds]
    if not found:
        raise ConfigError("no thresholds", where=where, expected="1 or more")
    if wrong := [each for each in found if not is_number(each)]:
        raise ConfigError(f"threshold {wrong[0]!r}", where=where, expected="a number in [0, 1)")
    return found
