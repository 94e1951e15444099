"""CarRacing with 25 discrete actions and stacks of gray frames; no display needed."""

from __future__ import annotations

import copy
import functools
import multiprocessing
import os
import warnings
from typing import Any, Literal, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from offrl.envs._arguments import why_not_made
from offrl.envs._display import choose_video_driver
from offrl.envs.wrappers import (
    DescribedTask,
    DiscreteActions,
    ExactGrayStack,
    GrayStack,
    NoProgressStop,
    RandomActions,
    StallStop,
)
from offrl.errors import ConfigError, OfflineRLError, missing_dependency
from offrl.spec import TaskSpec

ENV_ID = "CarRacing-v3"
FAST_ENV_ID = "offrl/CarRacing-v3"
"""CarRacing-v3 with Gymnasium's spaces and options, drawn faster: `gymnasium.make("offrl.envs:offrl/CarRacing-v3")`.

On a Gymnasium version that is not among `VERIFIED_VERSIONS` it is Gymnasium's own.
"""
VERIFIED_VERSIONS = ("1.2.3", "1.4.0")
"""Gymnasium versions whose own frames `FastCarRacing` was seen to reproduce byte for byte.

The two differ from each other in the digits of the score: 1.2.3 cuts its fraction off, 1.4.0 rounds it.
"""
FAST_ENTRY_POINT = "offrl.envs.fast_car_racing:FastCarRacing"
HUD_ROWS = slice(84, None)
"""The rows of the 96 x 96 frame that show speed, wheels, steering, spin and the score."""

_PEDALS = (
    ((0.0, 0.0), "coast"),
    ((0.5, 0.0), "half gas"),
    ((1.0, 0.0), "full gas"),
    ((0.0, 0.5), "half brake"),
    ((0.0, 1.0), "full brake"),
)
_STEERS = (("half", 0.5), ("full", 1.0))


def _actions() -> list[tuple[str, tuple[float, float, float]]]:
    actions = [(f"straight, {word}", (0.0, gas, brake)) for (gas, brake), word in _PEDALS]
    for side, sign in (("left", -1.0), ("right", 1.0)):
        for (gas, brake), word in _PEDALS:
            actions += [(f"{size} {side}, {word}", (sign * steer, gas, brake)) for size, steer in _STEERS]
    return actions


ACTION_NAMES: tuple[str, ...] = tuple(name for name, _ in _actions())
"""The 25 actions in words, such as "straight, full gas" (2) and "full right, full brake" (24)."""
ACTION_TABLE: NDArray[np.float32] = np.array([vector for _, vector in _actions()], dtype=np.float32)
"""[25, 3]: steer (-1 left .. 1 right), gas and brake (0 .. 1) of each action."""
ACTION_TABLE.setflags(write=False)


def spec(hud: Literal["visible", "hidden"] = "visible") -> TaskSpec:
    """The task that `make(hud)` sets."""
    return TaskSpec.pixels((4, 96, 96), ACTION_NAMES, hud=hud)


def make(
    hud: Literal["visible", "hidden"] = "visible",
    *,
    stall_stop: bool = True,
    no_progress_steps: int | None = None,
    fast: bool = True,
    render_mode: str | None = None,
    **options: Any,
) -> gymnasium.Env[NDArray[np.uint8], np.int64]:
    """CarRacing-v3 as offrl plays it: at most 1000 steps, observations uint8 [4, 96, 96], 25 actions.

    Args:
        hud: "hidden" turns the rows of the information bar to gray 128.
        stall_stop: truncate when the mean of the last 100 rewards is at most -1.
        no_progress_steps: truncate after so many steps without a positive reward; None never does.
        fast: draw the same bytes faster than Gymnasium does, where that is known to hold.
        render_mode: Gymnasium's; "human" opens a window.
        options: CarRacing's own, such as `domain_randomize`.

    Raises:
        ConfigError: another `hud`, or an option that CarRacing does not have.
        MissingDependencyError: Box2D or pygame is not installed.
    """
    if hud not in ("visible", "hidden"):
        raise ConfigError(f"{hud!r}", where="hud", expected="'visible' or 'hidden'")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    choose_video_driver(render_mode)
    env: gymnasium.Env[Any, Any] = _base(fast, render_mode, options)
    env = DiscreteActions(env, ACTION_TABLE, ACTION_NAMES)
    if stall_stop:
        env = StallStop(env)
    if no_progress_steps is not None:
        env = NoProgressStop(env, no_progress_steps)
    return DescribedTask(GrayStack(_SaysLap(env), hidden_rows=HUD_ROWS if hud == "hidden" else None), spec(hud))


def make_exact(epsilon: float = 0.0) -> gymnasium.Env[NDArray[np.float32], np.int64]:
    """CarRacing as graders of exported files play it: gray that is not rounded, gray / 128 - 1.

    Args:
        epsilon: probability of a random action, which depends on the seed of the episode.

    Raises:
        MissingDependencyError: Box2D or pygame is not installed.
    """
    # The stop rule of `make` changes no score: it fires with the -100 that ends an episode anyway.
    return RandomActions(ExactGrayStack(make()), epsilon)


@functools.cache  # once is enough, wherever it is made
def _say_slow(version: str) -> None:
    warnings.warn(
        f"Gymnasium {version} draws CarRacing itself, much slower: the fast drawing is verified for "
        f"{', '.join(VERIFIED_VERSIONS)}",
        RuntimeWarning,
        stacklevel=4,
    )


class _SaysLap(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gymnasium says `lap_finished` where the task ends; an episode that is cut has not finished its lap either."""

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if truncated:
            info.setdefault("lap_finished", False)
        return observation, reward, terminated, truncated, info


def _base(fast: bool, render_mode: str | None, options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    env_spec = copy.deepcopy(gymnasium.spec(ENV_ID))
    if fast and gymnasium.__version__ in VERIFIED_VERSIONS:
        env_spec.entry_point = FAST_ENTRY_POINT
    elif fast and multiprocessing.parent_process() is None:  # worker processes need not say it again
        _say_slow(gymnasium.__version__)
    try:
        return gymnasium.make(env_spec, disable_env_checker=True, render_mode=render_mode, **options)
    except (DependencyNotInstalled, ModuleNotFoundError) as error:
        raise missing_dependency("Box2D", "carracing", ENV_ID) from error
    except OfflineRLError:
        raise
    except Exception as error:  # whatever the environment makes of its options
        raise ConfigError(
            why_not_made(error), where=ENV_ID, expected="options of offrl.envs.car_racing.make"
        ) from error
