"""Each action played several times in a row, as the field does in Atari (frame skip)."""

from __future__ import annotations

import math
from typing import Any, Generic, SupportsFloat, TypeVar

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from offrl.envs._arguments import require_count

Observation = TypeVar("Observation")
Action = TypeVar("Action")


class ActionRepeat(
    gymnasium.Wrapper[Observation, Action, Observation, Action], RecordConstructorArgs, Generic[Observation, Action]
):
    """Plays each action up to `count` times; the reward is the sum, observation and info are those of the last time.

    It stops early where the episode ends, and where the action is no longer legal (`info["action_mask"]`). Datasets
    then hold one transition for each decision, and a discount counts decisions rather than steps of the environment.

    Args:
        env: Any environment. Wrap it before its frames are stacked: a stack then holds the frames of decisions. Around
            a stack it holds those of single steps, which can be played, but neither collected nor recorded, because
            two stacks in a row do not share their frames.
        count: Steps of the environment in one step of this one, 1 or more.

    Raises:
        ConfigError: A count below 1, or no whole number.
    """

    def __init__(self, env: gymnasium.Env[Observation, Action], count: int) -> None:
        RecordConstructorArgs.__init__(self, count=count)
        super().__init__(env)
        self._count = require_count(count, "ActionRepeat.count")

    def step(self, action: Action) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """One decision: up to `count` steps with the same action."""
        rewards: list[float] = []
        while True:
            observation, reward, terminated, truncated, info = self.env.step(action)
            rewards.append(float(reward))
            if terminated or truncated or len(rewards) == self._count or not _is_legal(action, info):
                return observation, math.fsum(rewards), terminated, truncated, info


def _is_legal(action: Any, info: dict[str, Any]) -> bool:
    """Whether the action may be played once more; an environment without masks allows all."""
    legal = info.get("action_mask")
    return legal is None or bool(legal[action])
