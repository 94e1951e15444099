"""The one loop that steps an environment: scores, lengths, ends and legal actions of an episode."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray


class EpisodeEnd(NamedTuple):
    """What an episode came to.

    Attributes:
        score: its undiscounted return.
        length: in steps.
        finished: `info["lap_finished"]`; None where the environment does not say.
    """

    score: float
    length: int
    finished: bool | None


class EpisodeRunner:
    """Steps an environment and keeps what the episode has come to.

    Args:
        env: any environment with discrete actions.

    Attributes:
        observation: the newest one.
        action_mask: bool [A], the legal actions there, from Gymnasium's `info["action_mask"]`; None where the
            environment states none.
        info: the newest one.
        reward: of the last step.
        score: the undiscounted return until now.
        length: steps until now.
        terminated: whether the last step ended the task.
        truncated: whether the last step was cut off, by a time limit for example.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env

    def reset(self, seed: int) -> None:
        """Begins the episode of `seed`."""
        observation, info = self.env.reset(seed=seed)
        self.reward, self.score, self.length = 0.0, 0.0, 0
        self.terminated = self.truncated = False
        self._show(observation, info)

    def step(self, action: int) -> None:
        """Takes one step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.reward = float(reward)
        self.score += self.reward
        self.length += 1
        self.terminated, self.truncated = bool(terminated), bool(truncated)
        self._show(observation, info)

    def _show(self, observation: Any, info: dict[str, Any]) -> None:
        self.observation, self.info = observation, info
        mask = info.get("action_mask")
        # A copy: environments may write into the same array at every step. Gymnasium's masks are int8.
        self.action_mask: NDArray[np.bool_] | None = None if mask is None else np.array(mask).astype(np.bool_)

    @property
    def ended(self) -> bool:
        """Whether the episode is over."""
        return self.terminated or self.truncated

    @property
    def end(self) -> EpisodeEnd | None:
        """What the episode came to; None while it goes on."""
        if not self.ended:
            return None
        finished = bool(self.info["lap_finished"]) if "lap_finished" in self.info else None
        return EpisodeEnd(self.score, self.length, finished)
