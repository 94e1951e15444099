"""Policies: raw observations in, actions out."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offrl.algorithms.algorithm import Algorithm
from offrl.errors import ConfigError, SpecMismatchError
from offrl.losses import likely_actions, masked_argmax


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


class TorchPolicy:
    """Acts with an algorithm's networks, in float32, on whatever device they are.

    Args:
        algorithm: is put into evaluation mode.
        threshold: the likelihood threshold, in [0, 1); None takes the algorithm's own.
        epsilon: probability of a uniformly random action (0.001 in the discrete BCQ paper).
        seed: of the random actions.

    Raises:
        ConfigError: threshold or epsilon out of range.
    """

    def __init__(
        self, algorithm: Algorithm, *, threshold: float | None = None, epsilon: float = 0.0, seed: int = 0
    ) -> None:
        self.threshold = algorithm.threshold if threshold is None else threshold
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"{self.threshold}", where="TorchPolicy.threshold", expected="0 <= threshold < 1")
        if not 0 <= epsilon <= 1:
            raise ConfigError(f"{epsilon}", where="TorchPolicy.epsilon", expected="0 <= epsilon <= 1")
        self.algorithm = algorithm.eval()
        self.spec = algorithm.spec
        self.epsilon = epsilon
        self.seed = seed
        self._rng = np.random.default_rng(seed)
        self._device = next(algorithm.parameters()).device

    def __call__(self, observation: NDArray[Any]) -> NDArray[np.int64]:
        """Raw observations [N, ...] -> actions [N].

        Raises:
            SpecMismatchError: observations of another shape or dtype than the task's.
        """
        return explore(self.choices(observation).greedy(), self.spec.num_actions, self.epsilon, self._rng)

    def choices(self, observation: NDArray[Any]) -> Choices:
        """What the policy chooses from, for raw observations [N, ...].

        Raises:
            SpecMismatchError: observations of another shape or dtype than the task's.
        """
        if observation.shape[1:] != self.spec.observation_shape or observation.dtype != self.spec.observation_dtype:
            raise SpecMismatchError(
                f"{observation.dtype} {list(observation.shape)}",
                where="observation",
                expected=f"{self.spec.observation_dtype} [N, {str(list(self.spec.observation_shape))[1:]}",
                mend="give the policy raw observations of the task that it was trained for",
            )
        with torch.inference_mode():
            raw = torch.from_numpy(np.array(observation)).to(self._device)
            output = self.algorithm(self.spec.normalise(raw))
            return Choices(output.scores, likely_actions(output.logits, self.threshold))

    def with_threshold(self, threshold: float) -> TorchPolicy:
        """A policy of the same networks with this threshold; its random actions begin anew.

        Raises:
            ConfigError: a threshold out of range.
        """
        return TorchPolicy(self.algorithm, threshold=threshold, epsilon=self.epsilon, seed=self.seed)
