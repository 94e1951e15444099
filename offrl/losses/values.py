"""What q is trained towards, and how far it is from there. B is the batch, A the number of actions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from offrl.losses.actions import masked_argmax, require_ranks, select_action
from offrl.losses.policies import expected_value

_STRIDE = 0x9E3779B9  # 2**32 divided by the golden ratio: neighbours are far apart, and no key is 0


def bootstrap_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """The target reward + discount * next_value, without gradient. All [B].

    `discount` is 0 where the episode terminated, so a non-finite value there must not leak through 0 * inf.
    """
    require_ranks("bootstrap_target", reward=(reward, 1), discount=(discount, 1), next_value=(next_value, 1))
    return (reward + torch.where(discount > 0, discount * next_value, 0.0)).detach()


def value_target(reward: Tensor, discount: Tensor, next_value: Tensor, legal: Tensor | None = None) -> Tensor:
    """The target of a q whose next value is a network's own, V(s') (arXiv:2110.06169). [B], [B], [B] -> [B].

    Args:
        reward: [B], the n-step return.
        discount: [B], 0 where the episode terminated.
        next_value: [B].
        legal: bool [B, A], the legal actions at s', or None for all; in a row without one, the value is 0.
    """
    if legal is not None:
        next_value = torch.where(legal.any(dim=1), next_value, 0.0)
    return bootstrap_target(reward, discount, next_value)


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


def sarsa_target(reward: Tensor, discount: Tensor, next_q: Tensor, next_action: Tensor) -> Tensor:
    """The value of what the behaviour did next, r + discount * Q(s', a') (arXiv:2103.09575). -> [B].

    Args:
        reward: [B], the n-step return.
        discount: [B], 0 where the episode terminated.
        next_q: [B, A], of the target network.
        next_action: int64 [B], the action logged at s'; rows with -1 have no target, see `follows_log`.
    """
    return bootstrap_target(reward, discount, select_action(next_q, next_action.clamp(min=0)))


def follows_log(discount: Tensor, next_action: Tensor) -> Tensor:
    """Where `sarsa_target` has a target: the log says what came next, or the episode terminated. -> bool [B].

    A log that ends before its episode does (a time limit, the end of a file) says neither what was done at s' nor that
    nothing more was to come: bootstrapping from any other action would give the value of another policy.

    Args:
        discount: [B], 0 where the episode terminated.
        next_action: int64 [B], -1 where the log ends.
    """
    require_ranks("follows_log", discount=(discount, 1), next_action=(next_action, 1))
    return (next_action >= 0) | (discount == 0)


def td_loss(q: Tensor, action: Tensor, target: Tensor, rows: Tensor | None = None) -> Tensor:
    """Mean Huber loss (beta = 1) of q(s, a) against its target. [B, A], [B], [B] -> [].

    With `rows`, bool [B], the mean is over these rows only, and 0 where there are none.
    """
    require_ranks("td_loss", q=(q, 2), target=(target, 1))
    if rows is None:
        return F.smooth_l1_loss(select_action(q, action), target)
    require_ranks("td_loss", rows=(rows, 1))
    losses = F.smooth_l1_loss(select_action(q, action), target, reduction="none")
    return torch.where(rows, losses, 0.0).sum() / rows.sum().clamp(min=1)


def mean_of(losses: Sequence[Tensor]) -> Tensor:
    """The mean loss of an ensemble's members, [] each; that of a single one is returned as it is. -> []."""
    return losses[0] if len(losses) == 1 else torch.stack([*losses]).mean()


def conservative_penalty(q: Tensor, action: Tensor, legal: Tensor | None = None) -> Tensor:
    """Mean of logsumexp_b q(s, b) - q(s, a): pushes down what the data does not do (CQL(H) of arXiv:2006.04779). -> [].

    Args:
        q: [B, A].
        action: [B], logged.
        legal: bool [B, A] with the logged actions among them (`legal_or_logged`), or None for all.
    """
    logged = select_action(q, action)
    if legal is not None:
        q = q.masked_fill(~legal, -torch.inf)
    return (q.logsumexp(dim=1) - logged).mean()


def expectile_loss(value: Tensor, target: Tensor, expectile: float) -> Tensor:
    """Mean of |expectile - 1[u < 0]| u**2 with u = target - value (arXiv:2110.06169). [B], [B] -> [].

    1/2 is half the mean squared error, whose minimum is the mean; towards 1 the minimum nears the largest target.
    """
    require_ranks("expectile_loss", value=(value, 1), target=(target, 1))
    error = target - value
    return ((expectile - (error < 0).to(error.dtype)).abs() * error.square()).mean()


def advantage_over_mean(q: Tensor, action: Tensor, log_probabilities: Tensor) -> Tensor:
    """q(s, a) - sum_b pi(b | s) q(s, b) (arXiv:2006.15134, "mean", with all actions for its samples). -> [B].

    Args:
        q: [B, A].
        action: [B], logged.
        log_probabilities: [B, A], of `log_policy` over the legal actions.
    """
    return select_action(q, action) - expected_value(log_probabilities, q)


def advantage_over_max(q: Tensor, action: Tensor, legal: Tensor | None = None) -> Tensor:
    """q(s, a) - max_b q(s, b), 0 or less (arXiv:2006.15134, "max", with all actions for its samples). -> [B].

    Args:
        q: [B, A].
        action: [B], logged.
        legal: bool [B, A] with the logged actions among them (`legal_or_logged`), or None for all.
    """
    logged = select_action(q, action)
    if legal is not None:
        q = q.masked_fill(~legal, -torch.inf)
    return logged - q.max(dim=1).values


def random_mixture(updates: Tensor, num_heads: int, seed: int = 0) -> Tensor:
    """Weights of REM's heads for one update: uniform numbers divided by their sum (arXiv:1907.04543). -> [num_heads].

    A hash of (seed, updates, head) in place of a generator: a CUDA graph replays it with the counter as it is by then,
    every device and rank has the same weights, and what a resumed run needs to know of it is the counter.

    Args:
        updates: int64 [], counts the updates.
        num_heads: 1 or more.
        seed: Of the sequence.
    """
    key = _hashed(_hashed(torch.full_like(updates, (seed + _STRIDE) % 2**32)) ^ (updates % 2**32))
    heads = torch.arange(num_heads, device=updates.device)
    bits = _hashed((key + heads * _STRIDE) % 2**32)
    uniform = ((bits >> 8) + 0.5) / 2**24
    return uniform / uniform.sum()


def _hashed(bits: Tensor) -> Tensor:
    """A permutation of 0 .. 2**32 - 1 that leaves no pattern (C. Wellons's lowbias32), in int64 without overflow."""
    bits = ((bits ^ (bits >> 16)) * 0x7FEB352D) % 2**32
    bits = ((bits ^ (bits >> 15)) * (0x846CA68B - 2**32)) % 2**32  # the same modulo 2**32; the product fits
    return bits ^ (bits >> 16)
