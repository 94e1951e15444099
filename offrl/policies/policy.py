"""Policies: raw observations in, actions out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from offrl.algorithms.algorithm import PolicyOutput
from offrl.errors import OfflineRLError, SpecMismatchError
from offrl.losses import likely_actions, masked_argmax
from offrl.spec import TaskSpec

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


class Choices(NamedTuple):
    """What a policy chooses from; its greedy action has the best score among the allowed ones."""

    scores: Tensor
    """[N, A], q or whatever ranks the actions; -inf for illegal ones."""
    allowed: Tensor
    """bool [N, A], the legal actions that the threshold leaves."""
    logits: Tensor
    """[N, A], whose softmax over the allowed actions is what a stochastic policy samples from."""

    def greedy(self) -> NDArray[np.int64]:
        """The greedy actions. [N]."""
        actions: NDArray[np.int64] = masked_argmax(self.scores, self.allowed).cpu().numpy()
        return actions

    def probabilities(self, *, stochastic: bool) -> NDArray[np.float64]:
        """Softmax of the logits over the allowed actions, or 1 for the greedy action. [N, A]."""
        if not stochastic:
            return np.eye(self.scores.shape[1])[self.greedy()]
        probabilities = self.logits.double().masked_fill(~self.allowed, -torch.inf).softmax(dim=1)
        found: NDArray[np.float64] = probabilities.cpu().numpy()
        return found


def choose_from(
    scores: Tensor, logits: Tensor, threshold: float, legal: NDArray[np.bool_] | None, scale: float = 1.0
) -> Choices:
    """What a policy chooses from: the likely ones among the legal actions.

    Args:
        scores: [N, A].
        logits: [N, A].
        threshold: see `offrl.losses.likely_actions`.
        legal: bool [N, A], or None where every action is legal.
        scale: the logits were multiplied by it.

    Raises:
        OfflineRLError: a score or logit is NaN; the best action would be any of them.
    """
    if (scores.isnan().any() | logits.isnan().any()).item():
        raise OfflineRLError(
            "the networks give NaN",
            where="policy",
            expected="numbers",
            hint="the weights or the observations hold NaN: take another checkpoint, or check the environment",
        )
    logits = logits / scale
    if legal is None:
        return Choices(scores, likely_actions(logits, threshold), logits)
    is_legal = torch.from_numpy(legal).to(scores.device)
    return Choices(scores.masked_fill(~is_legal, -torch.inf), likely_actions(logits, threshold, is_legal), logits)


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


def legal_actions(spec: TaskSpec, num_observations: int, action_mask: NDArray[Any] | None) -> NDArray[np.bool_] | None:
    """The actions that a policy may take, from the task's fixed subset and from the mask. -> bool [N, A].

    Args:
        spec: the task.
        num_observations: N.
        action_mask: [N, A], true or 1 for legal actions, or None.

    Returns:
        None where every action is legal.

    Raises:
        SpecMismatchError: a mask is missing or has another shape, or no action is legal in some row.
    """
    if action_mask is None and spec.action_masks:
        raise SpecMismatchError(
            "no action_mask",
            where="policy",
            expected=f"bool [N, {spec.num_actions}] beside the observations",
            hint="the policy learned from data with legal actions: pass those of each observation, such as Gymnasium's "
            "info['action_mask']",
        )
    legal: NDArray[np.bool_] | None = None
    if action_mask is not None:
        legal = np.asarray(action_mask).astype(np.bool_)  # Gymnasium's masks are int8
        if legal.shape != (num_observations, spec.num_actions):
            raise SpecMismatchError(
                f"{list(legal.shape)}", where="action_mask", expected=f"[{num_observations}, {spec.num_actions}]"
            )
    if spec.legal_actions is not None:
        subset = np.isin(np.arange(spec.num_actions), spec.legal_actions)
        legal = np.tile(subset, (num_observations, 1)) if legal is None else legal & subset
    if legal is not None and not legal.any(axis=1).all():
        row = int(np.flatnonzero(~legal.any(axis=1))[0])
        subset_words = "" if spec.legal_actions is None else f" of {spec.legal_actions}"
        raise SpecMismatchError(
            f"no action{subset_words} is legal in row {row}", where="action_mask", expected="one or more in each row"
        )
    return legal


class Actor:
    """Turns what a policy chooses from into actions; owns the random draws.

    Args:
        epsilon: probability of a uniformly random legal action.
        stochastic: sample from the softmax of the logits instead of taking the best score.
        seed: of all draws.
    """

    def __init__(self, epsilon: float, stochastic: bool, seed: int) -> None:
        self.epsilon = epsilon
        self.stochastic = stochastic
        self._rng = np.random.default_rng(seed)

    def act(self, choices: Choices, legal: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """The actions. [N]."""
        if self.stochastic:
            return sample(self.probabilities(choices, legal), self._rng)
        return explore(choices.greedy(), choices.scores.shape[1], self.epsilon, self._rng, legal)

    def probabilities(self, choices: Choices, legal: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """How likely `act` is to take each action. [N, A]."""
        chosen = choices.probabilities(stochastic=self.stochastic)
        if self.epsilon == 0:
            return chosen
        candidates = np.ones(chosen.shape) if legal is None else legal
        uniform = candidates / candidates.sum(axis=1, keepdims=True)
        mixed: NDArray[np.float64] = (1 - self.epsilon) * chosen + self.epsilon * uniform
        return mixed


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


def explore(
    actions: NDArray[np.int64],
    num_actions: int,
    epsilon: float,
    rng: np.random.Generator,
    legal: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Replaces each action by a uniformly random legal one with probability `epsilon`. [N] -> [N].

    Args:
        actions: [N].
        num_actions: A.
        epsilon: in [0, 1].
        rng: where the draws come from.
        legal: bool [N, A] with one or more in each row, or None where every action is legal.
    """
    if epsilon == 0:
        return actions
    random = rng.random(len(actions)) < epsilon
    if legal is None:
        return np.where(random, rng.integers(num_actions, size=len(actions)), actions)
    rank = rng.integers(legal.sum(axis=1))  # the rank-th of a row's legal actions, from 0
    return np.where(random, (legal.cumsum(axis=1) > rank[:, None]).argmax(axis=1), actions)


def sample(probabilities: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draws an action from each row; one of probability 0 is never drawn. [N, A] -> int64 [N]."""
    cumulative = probabilities.cumsum(axis=1)
    # Rounding may leave the last sum below 1: a draw above it would find no action.
    threshold = rng.random(len(probabilities))[:, None] * cumulative[:, -1:]
    actions: NDArray[np.int64] = (cumulative > threshold).argmax(axis=1)
    return actions
