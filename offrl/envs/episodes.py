"""The one loop that steps an environment: scores, lengths, ends and legal actions of an episode."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from offrl.checks import is_whole
from offrl.errors import OfflineRLError


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


def action_mask_of(info: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """The legal actions where a step or reset has led to, bool [A], from Gymnasium's `info["action_mask"]`, or None.

    Raises:
        OfflineRLError: It is no row of actions, or has other numbers than 0 and 1.
    """
    mask = info.get("action_mask")
    if mask is None:
        return None
    try:
        found = np.array(mask)  # a copy: environments may write into the same array at every step
    except ValueError:  # lists of several lengths
        found = np.array(None)
    if found.ndim != 1 or found.dtype.kind not in "biuf":
        shown = f"of {found.dtype} {list(found.shape)}" if found.dtype != object else f"{mask!r}"[:60]
        raise OfflineRLError(
            f"an action_mask {shown}",
            where="info",
            expected="bool [A], or 0 and 1, one for each action",
            hint="correct the environment",
        )
    is_legal: NDArray[np.bool_] = found.astype(np.bool_)  # Gymnasium's masks are int8
    if not np.array_equal(is_legal, found):
        raise OfflineRLError(
            f"an action_mask with {found[is_legal != found][0]!s}",
            where="info",
            expected="bool [A], or 0 and 1",
            hint="correct the environment",
        )
    return is_legal


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
        space = env.action_space
        self._actions = range(int(space.start), int(space.start + space.n)) if isinstance(space, Discrete) else None

    @property
    def num_actions(self) -> int | None:
        """Of the environment; None where its actions are not discrete."""
        return None if self._actions is None else len(self._actions)

    def reset(self, seed: int) -> None:
        """Begins the episode of `seed`."""
        observation, info = self.env.reset(seed=seed)
        self.seed = seed
        self.reward, self.score, self.length = 0.0, 0.0, 0
        self.terminated = self.truncated = False
        self._show(observation, info)

    def step(self, action: int) -> None:
        """Takes one step.

        Raises:
            OfflineRLError: The action is none of the environment's, which might do anything with it.
        """
        if self._actions is not None and not (is_whole(action) and action in self._actions):
            raise OfflineRLError(
                f"action {action!r}",
                where=self.place,
                expected=f"an integer, {self._actions[0]} to {self._actions[-1]}",
                hint="correct the policy or behaviour",
            )
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.reward = float(reward)
        self.score += self.reward
        self.length += 1
        self.terminated, self.truncated = bool(terminated), bool(truncated)
        self._show(observation, info)

    def _show(self, observation: Any, info: dict[str, Any]) -> None:
        self.observation, self.info = observation, info
        self.action_mask = action_mask_of(info)

    @property
    def place(self) -> str:
        """Where the episode is, for messages."""
        return f"step {self.length} of the episode of seed {self.seed}"

    def require_finite(self) -> None:
        """Checks what the last step gave, where nobody else looks at it: a score of NaN says nothing.

        Raises:
            OfflineRLError: The reward or the observation is infinite or NaN.
        """
        observation = self.observation
        is_float = isinstance(observation, np.ndarray) and observation.dtype.kind == "f"
        if not math.isfinite(self.reward) or (is_float and not np.isfinite(observation).all()):
            what = (
                "an observation with NaN or infinite values" if math.isfinite(self.reward) else f"reward {self.reward}"
            )
            raise OfflineRLError(what, where=self.place, expected="finite numbers", hint="correct the environment")

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
