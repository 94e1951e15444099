"""The equations: pure functions of tensors, each with its paper. B is the batch, A the number of actions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from offrl.errors import ConfigError


def require_ranks(where: str, **tensors: tuple[Tensor, int]) -> None:
    """Checks how many axes each tensor has: a [B, 1] beside a [B] would broadcast to [B, B] without a word.

    Args:
        where: The equation.
        tensors: By name, a tensor and the number of its axes.

    Raises:
        ConfigError: A tensor has another number of axes.
    """
    for name, (tensor, rank) in tensors.items():
        if tensor.dim() != rank:
            expected = "[B]" if rank == 1 else "[B, A]"
            raise ConfigError(f"{name} has the shape {list(tensor.shape)}", where=where, expected=expected)


def select_action(values: Tensor, action: Tensor) -> Tensor:
    """The entry of each row that belongs to its action. [B, A], int64 [B] -> [B]."""
    require_ranks("select_action", values=(values, 2), action=(action, 1))
    return values.gather(1, action.unsqueeze(1)).squeeze(1)


def likely_actions(logits: Tensor, threshold: float, legal: Tensor | None = None) -> Tensor:
    """Actions more than `threshold` times as likely as the likeliest (arXiv:1910.01708, eq. 11). -> bool [B, A].

    The likeliest action always passes, so no row is empty; threshold 0 lets all pass.

    Args:
        logits: [B, A].
        threshold: in [0, 1).
        legal: bool [B, A], the actions that the task allows at all, or None for every one.
    """
    require_ranks("likely_actions", logits=(logits, 2))
    if legal is not None:
        logits = logits.masked_fill(~legal, -torch.inf)
    if threshold > 0:
        return (logits - logits.max(dim=1, keepdim=True).values).exp() > threshold
    # Not left to the comparison: exp underflows to 0, which a strict > would refuse.
    return torch.ones_like(logits, dtype=torch.bool) if legal is None else legal


def masked_argmax(values: Tensor, allowed: Tensor) -> Tensor:
    """The best action among the allowed ones. [B, A], bool [B, A] -> int64 [B]."""
    require_ranks("masked_argmax", values=(values, 2), allowed=(allowed, 2))
    return values.masked_fill(~allowed, -torch.inf).argmax(dim=1)


def greedy_actions(scores: Tensor, logits: Tensor, threshold: float, legal: Tensor | None = None) -> Tensor:
    """How every offrl policy acts: the best score among the likely actions. [B, A], [B, A] -> int64 [B].

    Args:
        scores: [B, A], q values or whatever ranks the actions.
        logits: [B, A], the imitator's; all zero where the algorithm rules no action out.
        threshold: see `likely_actions`.
        legal: see `likely_actions`.
    """
    return masked_argmax(scores, likely_actions(logits, threshold, legal))


def bootstrap_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """The target reward + discount * next_value, without gradient. All [B].

    `discount` is 0 where the episode terminated, so a non-finite value there must not leak through 0 * inf.
    """
    require_ranks("bootstrap_target", reward=(reward, 1), discount=(discount, 1), next_value=(next_value, 1))
    return (reward + torch.where(discount > 0, discount * next_value, 0.0)).detach()


def double_q_target(
    reward: Tensor, discount: Tensor, next_q_online: Tensor, next_q_target: Tensor, allowed: Tensor | None = None
) -> Tensor:
    """The online network picks, the target network judges (arXiv:1509.06461, eq. 4). -> [B].

    With `allowed` it is discrete BCQ's target (arXiv:1910.01708, eq. 11): the pick is among the allowed actions.

    Args:
        reward: [B], the n-step return.
        discount: [B], 0 where the episode terminated.
        next_q_online: [B, A].
        next_q_target: [B, A].
        allowed: bool [B, A], or None for all; in a row without one, the value is 0.
    """
    next_action = next_q_online.argmax(dim=1) if allowed is None else masked_argmax(next_q_online, allowed)
    next_value = select_action(next_q_target, next_action)
    if allowed is not None:
        # Where no action is allowed nothing can follow; argmax over nothing would take action 0.
        next_value = torch.where(allowed.any(dim=1), next_value, 0.0)
    return bootstrap_target(reward, discount, next_value)


def max_q_target(reward: Tensor, discount: Tensor, next_q_target: Tensor, allowed: Tensor | None = None) -> Tensor:
    """The target network picks and judges (DQN, doi:10.1038/nature14236). [B], [B], [B, A] -> [B]."""
    return double_q_target(reward, discount, next_q_target, next_q_target, allowed)


def td_loss(q: Tensor, action: Tensor, target: Tensor) -> Tensor:
    """Mean Huber loss (beta = 1) of q(s, a) against its target. [B, A], [B], [B] -> []."""
    require_ranks("td_loss", q=(q, 2), target=(target, 1))
    return F.smooth_l1_loss(select_action(q, action), target)


def imitation_loss(logits: Tensor, action: Tensor) -> Tensor:
    """Mean cross-entropy of the logged actions, -log G(a | s) (arXiv:1910.01708, eq. 10). [B, A], [B] -> []."""
    require_ranks("imitation_loss", logits=(logits, 2), action=(action, 1))
    return F.cross_entropy(logits, action)


def logit_penalty(logits: Tensor) -> Tensor:
    """Mean squared logit, which keeps the imitator from overconfidence. [B, A] -> []."""
    require_ranks("logit_penalty", logits=(logits, 2))
    return logits.square().mean()
