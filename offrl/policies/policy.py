"""What a policy is: raw observations in, actions out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

ActionFunction: TypeAlias = Callable[..., NDArray[np.int64]]
"""Raw observations [N, ...] -> actions [N]: a Policy, or any function that evaluation can play with."""


class Policy(Protocol):
    """A policy, such as TorchPolicy and OnnxPolicy."""

    def __call__(self, observation: NDArray[Any], action_mask: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """Raw observations [N, ...] and, where the task has them, legal actions bool [N, A] -> actions [N]."""
        ...

    def probabilities(self, observation: NDArray[Any], action_mask: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """The probability of each action, for raw observations [N, ...]. [N, A]."""
        ...


class ThresholdPolicy(Policy, Protocol):
    """A policy that can act with another likelihood threshold without being trained again."""

    threshold: float

    def with_threshold(self, threshold: float) -> ThresholdPolicy:
        """The same policy, acting with this threshold."""
        ...


def takes_action_masks(policy: object) -> bool:
    """Whether a policy must be given the legal actions of each observation: its spec says so."""
    return bool(getattr(getattr(policy, "spec", None), "action_masks", False))


class Shown(Protocol):
    """What an environment shows, such as `offrl.envs.episodes.EpisodeRunner`."""

    observation: Any
    action_mask: NDArray[np.bool_] | None


def policy_inputs(policy: object, shown: Shown, num_copies: int = 1) -> tuple[Any, ...]:
    """What a policy is called with for one observation: a batch of copies, and the legal actions if it needs them."""
    observations = np.repeat(np.asarray(shown.observation)[None], num_copies, axis=0)
    if not takes_action_masks(policy):
        return (observations,)
    mask = shown.action_mask
    return observations, None if mask is None else np.repeat(mask[None], num_copies, axis=0)
