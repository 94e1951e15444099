"""Frames with all their channels, stacked: RGB, or planes such as MinAtar's."""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, SupportsFloat, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from offrl.envs._arguments import require_count
from offrl.errors import UnknownEnvironmentError
from offrl.spec import TaskSpec, default_action_names

Action = TypeVar("Action")


class FrameStack(
    gymnasium.Wrapper[NDArray[np.uint8], Action, NDArray[Any], Action], RecordConstructorArgs, Generic[Action]
):
    """Frames [H, W, C] to stacks [S * C, H, W] uint8, the oldest frame first, the channels of a frame together.

    At reset the first frame fills the stack. Colours are kept as they are, and networks see value / 128 - 1; planes of
    booleans become 0 and 1, and networks see just these.

    Args:
        env: Its actions are discrete, from 0 on, its observations uint8 or bool [H, W, C].
        stack: Frames in one observation, 1 or more.

    Attributes:
        task_spec: What the task looks like to a policy.

    Raises:
        ConfigError: A stack of no frames, or no whole number of them.
        UnknownEnvironmentError: Other observations or actions.
    """

    def __init__(self, env: gymnasium.Env[NDArray[Any], Action], stack: int = 1) -> None:
        RecordConstructorArgs.__init__(self, stack=stack)
        super().__init__(env)
        stack = require_count(stack, "FrameStack.stack")
        space, actions = env.observation_space, env.action_space
        fits = isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype in (np.uint8, np.bool_)
        if not fits or not isinstance(actions, spaces.Discrete) or actions.start != 0:
            raise UnknownEnvironmentError(
                f"observations {space}, actions {actions}",
                where="FrameStack",
                expected="uint8 or bool frames [H, W, C] and Discrete actions from 0",
            )
        height, width, channels = space.shape or (0, 0, 0)
        shape, names = (stack * channels, height, width), default_action_names(int(actions.n))
        if space.dtype == np.uint8:
            self.task_spec = TaskSpec.pixels(shape, names, channels=channels)
        else:
            self.task_spec = TaskSpec(shape, "uint8", names, channels=channels)
        self.observation_space = spaces.Box(0, 255 if space.dtype == np.uint8 else 1, shape, np.uint8)
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=stack)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Starts an episode; the observation is its first frame, repeated."""
        frame, info = self.env.reset(seed=seed, options=options)
        self._frames.extend([_planes(frame)] * (self._frames.maxlen or 1))
        return np.concatenate(self._frames), info

    def step(self, action: Action) -> tuple[NDArray[np.uint8], SupportsFloat, bool, bool, dict[str, Any]]:
        """One step; the oldest frame makes place for the newest."""
        frame, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(_planes(frame))
        return np.concatenate(self._frames), reward, terminated, truncated, info


def _planes(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """A frame with its channels first. [H, W, C] -> uint8 [C, H, W], a copy."""
    return np.ascontiguousarray(np.moveaxis(frame, -1, 0)).astype(np.uint8)
