"""Policies: raw observations in, actions out."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from offrl.losses import masked_argmax


class Policy(Protocol):
    """Anything that acts: TorchPolicy, OnnxPolicy, a driver, a user's function."""

    def __call__(self, observation: NDArray[Any]) -> NDArray[np.int64]:
        """Raw observations [N, ...] -> actions [N]."""
        ...


class ThresholdPolicy(Policy, Protocol):
    """A policy that can act with another likelihood threshold without being trained again."""

    threshold: float

    def with_threshold(self, threshold: float) -> ThresholdPolicy:
        """The same policy, acting with this threshold."""
        ...


class Choices(NamedTuple):
    """What a policy chooses from; its greedy action has the best score among the allowed ones."""

    scores: Tensor
    """[N, A], q or whatever ranks the actions."""
    allowed: Tensor
    """bool [N, A], the actions that the threshold leaves."""

    def greedy(self) -> NDArray[np.int64]:
        """The greedy actions. [N]."""
        actions: NDArray[np.int64] = masked_argmax(self.scores, self.allowed).cpu().numpy()
        return actions


def explore(
    actions: NDArray[np.int64], num_actions: int, epsilon: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Replaces each action by a uniformly random one with probability `epsilon`. [N] -> [N]."""
    if epsilon == 0:
        return actions
    random = rng.random(len(actions)) < epsilon
    return np.where(random, rng.integers(num_actions, size=len(actions)), actions)
