"""From what is said of each action to the action that is taken: legal ones, likely ones, draws."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offrl.errors import OfflineRLError, SpecMismatchError
from offrl.losses import likely_actions, masked_argmax
from offrl.spec import TaskSpec


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


class _Draws(Protocol):
    """Where random numbers come from: a generator of numpy's, or one for each row of a batch."""

    def random(self, size: int, /) -> NDArray[np.float64]:
        """Numbers in [0, 1). [size]."""
        ...

    def integers(self, high: Any, /, *, size: int | None = None) -> NDArray[np.int64]:
        """Integers from 0, below `high`, which is one number or one for each row."""
        ...


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
        self._rng: _Draws = np.random.default_rng(seed)

    @property
    def is_random(self) -> bool:
        """Whether it draws at all."""
        return self.stochastic or self.epsilon > 0

    def drawing_from(self, draws: _Draws) -> Actor:
        """The same, but for where its random numbers come from."""
        actor = copy.copy(self)
        actor._rng = draws
        return actor

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


def explore(
    actions: NDArray[np.int64],
    num_actions: int,
    epsilon: float,
    rng: _Draws,
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


def sample(probabilities: NDArray[np.float64], rng: _Draws) -> NDArray[np.int64]:
    """Draws an action from each row; one of probability 0 is never drawn. [N, A] -> int64 [N]."""
    cumulative = probabilities.cumsum(axis=1)
    # Rounding may leave the last sum below 1: a draw above it would find no action.
    threshold = rng.random(len(probabilities))[:, None] * cumulative[:, -1:]
    actions: NDArray[np.int64] = (cumulative > threshold).argmax(axis=1)
    return actions
