"""What offrl's policies share, from raw observations to actions."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offrl.algorithms.algorithm import PolicyOutput
from offrl.errors import SpecMismatchError
from offrl.policies.choices import Actor, Choices, _Draws, legal_actions
from offrl.spec import TaskSpec


class ActingPolicy(ABC):
    """What TorchPolicy and OnnxPolicy share: from what a network says of each action to actions.

    Attributes:
        spec: the task.
    """

    spec: TaskSpec
    _actor: Actor

    @abstractmethod
    def _choices(self, observation: NDArray[Any], legal: NDArray[np.bool_] | None) -> Choices:
        """What the policy chooses from, given the legal actions [N, A], or None where every action is legal."""

    def __call__(self, observation: NDArray[Any], action_mask: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """Actions [N] for raw observations [N, ...] and, where the task has them, legal actions bool [N, A].

        Raises:
            SpecMismatchError: observations of another shape or dtype than the task's; a mask that is missing, of
                another shape, or without a legal action in some row.
        """
        observation = self._raw(observation)
        legal = legal_actions(self.spec, len(observation), action_mask)
        return self._actor.act(self._choices(observation, legal), legal)

    def probabilities(self, observation: NDArray[Any], action_mask: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """How likely the policy is to take each action. Raw observations [N, ...] -> [N, A].

        Raises:
            SpecMismatchError: as for a call.
        """
        observation = self._raw(observation)
        legal = legal_actions(self.spec, len(observation), action_mask)
        return self._actor.probabilities(self._choices(observation, legal), legal)

    def choices(self, observation: NDArray[Any], action_mask: NDArray[Any] | None = None) -> Choices:
        """What the policy chooses from, for raw observations [N, ...].

        Raises:
            SpecMismatchError: as for a call.
        """
        observation = self._raw(observation)
        return self._choices(observation, legal_actions(self.spec, len(observation), action_mask))

    @property
    def is_random(self) -> bool:
        """Whether it draws at all; a subclass that acts by itself has no actor."""
        return hasattr(self, "_actor") and self._actor.is_random

    def drawing_from(self, draws: _Draws) -> Self:
        """The policy whose random actions come from `draws`, and not from its own seed.

        Args:
            draws: has the methods `random` and `integers` of `numpy.random.Generator`.
        """
        policy = copy.copy(self)
        policy._actor = self._actor.drawing_from(draws)
        return policy

    def _raw(self, observation: ArrayLike) -> NDArray[Any]:
        """The observations, if they are raw ones of the task."""
        found = np.asarray(observation)
        shape, dtype = self.spec.observation_shape, self.spec.observation_dtype
        if found.shape[1:] == shape and found.dtype == dtype:
            return found
        hint = "give the policy raw observations of the task that it was trained for"
        if found.shape == shape:
            hint = "a policy acts on a batch: pass observation[None]"
        elif found.shape[1:] == shape and dtype == "float32":
            hint = "pass observation.astype(numpy.float32)"
        raise SpecMismatchError(
            f"{found.dtype} {list(found.shape)}",
            where="observation",
            expected=f"{dtype} [N, {str(list(shape))[1:]}",
            hint=hint,
        )


class NetworkPolicy(ActingPolicy):
    """An acting policy in two steps, of which the first is the same for every threshold."""

    @property
    @abstractmethod
    def networks(self) -> object:
        """What `outputs` come from: policies that share it differ only in how they choose."""

    @abstractmethod
    def _outputs(self, observation: NDArray[Any], legal: NDArray[np.bool_] | None) -> PolicyOutput:
        """What the networks say of raw observations; legal actions [N, A] are for those that are told them."""

    @abstractmethod
    def _choose(self, outputs: PolicyOutput, legal: NDArray[np.bool_] | None) -> Choices:
        """What the policy chooses from, given the legal actions [N, A], or None where every action is legal."""

    def _choices(self, observation: NDArray[Any], legal: NDArray[np.bool_] | None) -> Choices:
        return self._choose(self._outputs(observation, legal), legal)

    def outputs(self, observation: NDArray[Any], action_mask: NDArray[Any] | None = None) -> PolicyOutput:
        """What the networks say of raw observations [N, ...]; `probabilities_of` goes on from there.

        Raises:
            SpecMismatchError: as for a call.
        """
        observation = self._raw(observation)
        return self._outputs(observation, legal_actions(self.spec, len(observation), action_mask))

    def probabilities_of(self, outputs: PolicyOutput, action_mask: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """`probabilities`, from the outputs of this policy or of one that shares its `networks`. [N, A].

        Raises:
            SpecMismatchError: as for a call.
        """
        legal = legal_actions(self.spec, len(outputs.scores), action_mask)
        return self._actor.probabilities(self._choose(outputs, legal), legal)
