"""Gymnasium wrappers: discrete actions, stacked gray frames, stop rules."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, SupportsFloat, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from offrl.checks import is_number
from offrl.envs._arguments import require_count, require_share
from offrl.envs.behaviours import num_actions
from offrl.envs.seeds import episode_rng
from offrl.errors import ConfigError, UnknownEnvironmentError
from offrl.spec import TaskSpec

Observation = TypeVar("Observation")
Action = TypeVar("Action")

HIDDEN_GRAY = 128
"""What hidden rows hold: gray / 128 - 1 is 0 there."""
LUMA_WEIGHTS = (299, 587, 114)
"""Red, green and blue in thousandths of the gray value (ITU-R BT.601)."""


def to_gray(frame: NDArray[np.uint8], weights: tuple[int, int, int] = LUMA_WEIGHTS) -> NDArray[np.uint8]:
    """The weighted mean of red, green and blue, rounded to the nearest integer (halves up).

    In integers, so that every machine gives the same bytes.

    Args:
        frame: [H, W, 3] uint8.
        weights: non-negative integers; only their ratio matters.

    Returns:
        [H, W] uint8.
    """
    total = sum(weights)
    red, green, blue = (frame[..., channel].astype(np.uint32) * np.uint32(w) for channel, w in enumerate(weights))
    gray: NDArray[np.uint32] = (red + green + blue + np.uint32(total // 2)) // np.uint32(total)
    return gray.astype(np.uint8)


class DiscreteActions(gymnasium.ActionWrapper[Any, np.int64, Any]):
    """Discrete actions over an environment whose actions are vectors.

    Args:
        env: takes float vectors of k elements.
        table: [A, k]; action i plays row i. Kept as the attribute `action_table`.
        names: what each action does, in words.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], table: NDArray[np.float32], names: tuple[str, ...]) -> None:
        super().__init__(env)
        self.action_table = np.asarray(table, dtype=np.float32)
        self.action_names = names
        space = env.action_space
        if self.action_table.shape != (len(names), *(space.shape or ())) or not isinstance(space, spaces.Box):
            raise UnknownEnvironmentError(
                f"an action table of shape {self.action_table.shape} with {len(names)} names over {space}",
                where="DiscreteActions",
                expected="one row per name, as long as the environment's action vector",
            )
        self.action_space = spaces.Discrete(len(names))

    def action(self, action: np.int64) -> NDArray[np.float32]:
        """The vector that action index `action` stands for: a copy of its row, float32 [k]."""
        vector: NDArray[np.float32] = self.action_table[int(action)]
        return vector.copy()


class GrayStack(
    gymnasium.Wrapper[NDArray[np.uint8], Action, NDArray[np.uint8], Action], RecordConstructorArgs, Generic[Action]
):
    """Frames to stacks of gray frames, oldest first; at reset the first frame fills the stack.

    `observation[-1]` is the newest frame. Where the environment's frames are RGB, `info["rgb"]` is the raw frame.

    Args:
        env: its observations are uint8 [H, W, 3] (RGB), [H, W, 1] or [H, W] (gray).
        stack: frames in one observation.
        hidden_rows: rows that policies must not see, a slice or its start, stop and step; they are gray 128 (0 after
            normalisation) in every observation.
        weights: see `to_gray`.

    Raises:
        ConfigError: a stack of no frames, or no whole number of them.
        UnknownEnvironmentError: other observations.
    """

    def __init__(
        self,
        env: gymnasium.Env[NDArray[np.uint8], Action],
        stack: int = 4,
        hidden_rows: slice | Sequence[int | None] | None = None,
        weights: tuple[int, int, int] = LUMA_WEIGHTS,
    ) -> None:
        hidden = hidden_rows if isinstance(hidden_rows, slice | None) else slice(*hidden_rows)
        recorded = None if hidden is None else [hidden.start, hidden.stop, hidden.step]  # as JSON can hold it
        RecordConstructorArgs.__init__(self, stack=stack, hidden_rows=recorded, weights=tuple(weights))
        super().__init__(env)
        stack = require_count(stack, "GrayStack.stack")
        if not is_frame_space(env.observation_space):
            raise UnknownEnvironmentError(
                f"observations {env.observation_space}",
                where="GrayStack",
                expected="uint8 frames, RGB [H, W, 3] or gray [H, W, 1] or [H, W]",
            )
        height, width = (env.observation_space.shape or ())[:2]
        self._stack = np.zeros((stack, height, width), dtype=np.uint8)
        self._hidden_rows = hidden
        self._weights = weights
        self.observation_space = spaces.Box(0, 255, self._stack.shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Starts an episode; the observation is its first frame, repeated."""
        frame, info = self.env.reset(seed=seed, options=options)
        # A new array per observation: callers may keep what they were given.
        self._stack = np.repeat(self._gray(frame, info)[None], len(self._stack), axis=0)
        return self._stack, info

    def step(self, action: Action) -> tuple[NDArray[np.uint8], SupportsFloat, bool, bool, dict[str, Any]]:
        """One step; the oldest frame makes place for the newest."""
        frame, reward, terminated, truncated, info = self.env.step(action)
        observation = np.empty_like(self._stack)
        observation[:-1] = self._stack[1:]
        observation[-1] = self._gray(frame, info)
        self._stack = observation
        return observation, reward, terminated, truncated, info

    def _gray(self, frame: NDArray[np.uint8], info: dict[str, Any]) -> NDArray[np.uint8]:
        if frame.ndim == 3 and frame.shape[2] == 3:
            info["rgb"] = frame
            gray = to_gray(frame, self._weights)
        else:
            gray = frame.reshape(frame.shape[:2]).copy()
        if self._hidden_rows is not None:
            gray[self._hidden_rows] = HIDDEN_GRAY
        return gray


def is_frame_space(space: spaces.Space[Any]) -> bool:
    """Whether observations are uint8 frames: RGB [H, W, 3] or gray [H, W, 1] or [H, W]."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    return len(space.shape) == 2 or (len(space.shape) == 3 and space.shape[2] in (1, 3))


class ExactGrayStack(
    gymnasium.Wrapper[NDArray[np.float32], Action, NDArray[np.uint8], Action], RecordConstructorArgs, Generic[Action]
):
    """Stacks as networks see them, of gray that is not rounded: gray / 128 - 1, float32, oldest frame first.

    For rules that are not offrl's own; policies of offrl's learn from rounded gray. At reset the first frame fills
    the stack.

    Args:
        env: gives its RGB frames in `info["rgb"]`, as `GrayStack` does.
        stack: frames in one observation.

    Raises:
        ConfigError: a stack of no frames, or no whole number of them.
        UnknownEnvironmentError: an environment without `info["rgb"]`, at reset.
    """

    def __init__(self, env: gymnasium.Env[Any, Action], stack: int = 4) -> None:
        RecordConstructorArgs.__init__(self, stack=stack)
        super().__init__(env)
        stack = require_count(stack, "ExactGrayStack.stack")
        height, width = (env.observation_space.shape or ())[-2:]
        self.observation_space = spaces.Box(-1, 1, (stack, height, width), np.float32)
        self._frames: deque[NDArray[np.float32]] = deque(maxlen=stack)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Starts an episode; the observation is its first frame, repeated."""
        _, info = self.env.reset(seed=seed, options=options)
        if "rgb" not in info:
            raise UnknownEnvironmentError('no info["rgb"]', where="ExactGrayStack", expected="RGB frames there")
        self._frames.extend([_exact_gray(info["rgb"])] * (self._frames.maxlen or 1))
        return np.stack(self._frames), info

    def step(self, action: Action) -> tuple[NDArray[np.float32], SupportsFloat, bool, bool, dict[str, Any]]:
        """One step; the oldest frame makes place for the newest."""
        _, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(_exact_gray(info["rgb"]))
        return np.stack(self._frames), reward, terminated, truncated, info


def _exact_gray(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """0.299 red + 0.587 green + 0.114 blue, over 128, minus 1. [H, W, 3] -> [H, W]."""
    gray: NDArray[np.float64] = frame @ (np.array(LUMA_WEIGHTS) / sum(LUMA_WEIGHTS))
    return (gray / 128 - 1).astype(np.float32)


class RandomActions(
    gymnasium.Wrapper[Observation, np.int64, Observation, np.int64], RecordConstructorArgs, Generic[Observation]
):
    """Plays a uniformly random action in place of the given one with probability `epsilon`.

    What is drawn depends on the seed given to `reset` alone, so an episode is the same whoever plays it.

    Args:
        env: its actions are discrete.
        epsilon: in [0, 1].

    Raises:
        ConfigError: another epsilon, or other actions.
    """

    def __init__(self, env: gymnasium.Env[Observation, np.int64], epsilon: float) -> None:
        RecordConstructorArgs.__init__(self, epsilon=epsilon)
        super().__init__(env)
        self._num_actions = num_actions(env)
        self._epsilon = require_share(epsilon, "RandomActions.epsilon")
        self._rng = episode_rng(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode, and with a seed its random actions anew."""
        if seed is not None:
            self._rng = episode_rng(seed)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: np.int64) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step, with this action or a random one."""
        if self._rng.random() < self._epsilon:
            action = self._rng.integers(self._num_actions)
        return self.env.step(action)


class _StopRule(gymnasium.Wrapper[Observation, Action, Observation, Action], RecordConstructorArgs):
    """Truncates where `_stops` says so; an episode that ends by itself keeps its own flags."""

    name = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode and forgets the rewards of the last one."""
        self._begin()
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Action) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step; where the rule ends the episode, `info["stopped_by"]` is its name."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self._stops(float(reward)) and not (terminated or truncated):
            truncated = True
            info["stopped_by"] = self.name
        return observation, reward, terminated, truncated, info

    def _begin(self) -> None:
        raise TypeError(f"{type(self).__name__} is no stop rule")

    def _stops(self, reward: float) -> bool:
        raise TypeError(f"{type(self).__name__} is no stop rule")


class StallStop(_StopRule[Observation, Action]):
    """Truncates when the mean of the last `window` rewards (of all, while fewer) is at most `threshold`.

    Raises:
        ConfigError: a window below 1, or a threshold that is no number.
    """

    name = "stall"

    def __init__(self, env: gymnasium.Env[Observation, Action], window: int = 100, threshold: float = -1.0) -> None:
        RecordConstructorArgs.__init__(self, window=window, threshold=threshold)
        super().__init__(env)
        self._rewards: deque[float] = deque(maxlen=require_count(window, "StallStop.window"))
        if not is_number(threshold) and threshold != -math.inf:  # at which it never stops
            raise ConfigError(f"{threshold!r}", where="StallStop.threshold", expected="a number")
        self._threshold = threshold

    def _begin(self) -> None:
        self._rewards.clear()

    def _stops(self, reward: float) -> bool:
        self._rewards.append(reward)
        return math.fsum(self._rewards) <= self._threshold * len(self._rewards)


class NoProgressStop(_StopRule[Observation, Action]):
    """Truncates after `steps` steps in a row without a positive reward.

    Raises:
        ConfigError: fewer than 1 step, or no whole number of them.
    """

    name = "no progress"

    def __init__(self, env: gymnasium.Env[Observation, Action], steps: int = 150) -> None:
        RecordConstructorArgs.__init__(self, steps=steps)
        super().__init__(env)
        self._limit = require_count(steps, "NoProgressStop.steps")
        self._steps = 0

    def _begin(self) -> None:
        self._steps = 0

    def _stops(self, reward: float) -> bool:
        self._steps = 0 if reward > 0 else self._steps + 1
        return self._steps >= self._limit


class DescribedTask(gymnasium.Wrapper[Observation, Action, Observation, Action]):
    """An environment that says what its task looks like, in `task_spec`."""

    def __init__(self, env: gymnasium.Env[Observation, Action], task_spec: TaskSpec) -> None:
        super().__init__(env)
        self.task_spec = task_spec
