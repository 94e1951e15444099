"""One episode of a frames dataset as it is played, step by step; refused where it cannot be kept."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offrl.errors import DatasetError
from offrl.shards.episode import Episode
from offrl.spec import TaskSpec


class _Step(NamedTuple):
    action: int
    probability: float
    reward: float
    row: NDArray[Any]
    action_mask: NDArray[np.bool_] | None


class EpisodeLog:
    """One episode as it is played; what observations share with those before is kept once.

    Args:
        observation: what the episode begins with: a stack of frames, uint8 [C, H, W], oldest first, or float32 [D].
        spec: of the task.
        action_mask: bool [A], the legal actions there; None where the environment states none.

    Raises:
        DatasetError: an observation that is not of the task.
    """

    def __init__(self, observation: NDArray[Any], spec: TaskSpec, action_mask: NDArray[np.bool_] | None = None) -> None:
        self._spec = spec
        self._action_mask = action_mask
        self._newest = self._checked(observation)
        self._rows = self._first_rows(self._newest)
        self._steps: list[_Step] = []

    def __len__(self) -> int:
        """Steps until now."""
        return len(self._steps)

    def append(
        self,
        action: int,
        probability: float,
        reward: float,
        observation: NDArray[Any],
        action_mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """One step, the observation that it led to, and the legal actions there.

        Raises:
            DatasetError: an illegal action, or a reward or observation that cannot be kept; the episode is as it was
                before.
        """
        self.require_legal(action)
        legal = self._action_mask
        if not (math.isnan(probability) or 0 < probability <= 1):
            raise DatasetError(
                f"the probability of the action of step {len(self)} is {probability}",
                where="behaviour",
                expected="over 0, at most 1, or NaN where it is not known",
            )
        with np.errstate(over="ignore"):  # shards have rewards as float32: one beyond them would become infinite there
            is_kept = bool(np.isfinite(np.float32(reward)))
        if not is_kept:
            expected = "a finite number that float32 holds, at most 3.4e38" if math.isfinite(reward) else "a number"
            raise DatasetError(f"the reward of step {len(self)} is {reward}", where="environment", expected=expected)
        following = self._checked(observation)
        if self._spec.is_pixels and not np.array_equal(
            following[: -self._spec.channels], self._newest[self._spec.channels :]
        ):
            raise DatasetError(
                "two observations in a row do not share their frames",
                where="environment",
                expected="stacks of frames, oldest first, one new frame a step",
                hint="put ActionRepeat, or what else skips frames, inside the stack",
            )
        self._newest, self._action_mask = following, action_mask
        self._steps.append(_Step(action, probability, reward, self._last_row(following), legal))

    def require_legal(self, action: int) -> None:
        """Checks an action before it is played.

        Raises:
            DatasetError: It is illegal where the episode is, or what is legal there is not said for each action.
        """
        legal = self._action_mask
        if legal is None:
            return
        if legal.shape != (self._spec.num_actions,):
            raise DatasetError(
                f"an action_mask of shape {list(legal.shape)}",
                where="environment",
                expected=f"[{self._spec.num_actions}]",
            )
        if not legal[action]:
            raise DatasetError(
                f"action {action} of step {len(self)} is illegal there",
                where="behaviour",
                expected=f"one of {np.flatnonzero(legal).tolist()}",
                hint="keep to info['action_mask']; a behaviour's __call__ is given it as a parameter action_mask",
            )

    def episode(self, *, terminated: bool, truncated: bool) -> Episode:
        """All of it, of 1 step or more."""
        masks = [step.action_mask for step in self._steps]
        has_masks = any(mask is not None for mask in masks)
        every = np.ones(self._spec.num_actions, np.bool_)  # where the environment said nothing
        return Episode(
            observations=np.stack([*self._rows, *(step.row for step in self._steps)]),
            actions=np.array([step.action for step in self._steps], np.int64),
            rewards=np.array([step.reward for step in self._steps], np.float32),
            terminated=terminated,
            truncated=truncated,
            behaviour_probability=np.array([step.probability for step in self._steps], np.float32),
            leading=len(self._rows) - 1,
            action_mask=np.stack([every if mask is None else mask for mask in masks]) if has_masks else None,
        )

    def cut(self) -> Episode:
        """What was played until now, truncated; what follows begins with the frames that its first stack needs."""
        episode = self.episode(terminated=False, truncated=True)
        self._rows = [row.copy() for row in episode.observations[-self._spec.stack :]]
        self._steps = []
        return episode

    def _checked(self, observation: NDArray[Any]) -> NDArray[Any]:
        """A copy, because environments may use their arrays again; vectors as float32."""
        spec = self._spec
        found = np.array(observation) if spec.is_pixels else np.array(observation, dtype=np.float32)
        if found.shape != spec.observation_shape or found.dtype != spec.observation_dtype:
            raise DatasetError(
                f"an observation is {found.dtype} {list(found.shape)}",
                where="environment",
                expected=f"{spec.observation_dtype} {list(spec.observation_shape)}",
            )
        if not spec.is_pixels and not np.isfinite(found).all():
            raise DatasetError(
                "an observation holds NaN or infinite values", where="environment", expected="finite numbers"
            )
        return found

    def _first_rows(self, observation: NDArray[Any]) -> list[NDArray[Any]]:
        if not self._spec.is_pixels:
            return [self._last_row(observation)]
        frames = observation.reshape(self._spec.stack, *self._spec.frame_shape)
        if (frames == frames[0]).all():
            return [self._last_row(observation)]
        return list(frames)  # the stack began before the episode: its older frames are kept

    def _last_row(self, observation: NDArray[Any]) -> NDArray[Any]:
        if not self._spec.is_pixels:
            return observation
        return observation[-self._spec.channels :].reshape(self._spec.frame_shape).copy()
