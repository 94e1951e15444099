"""What a policy is trained towards: imitation, advantages, entropy. B is the batch, A the number of actions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from offrl.losses.actions import require_ranks, select_action

_ILLEGAL = -1e9  # not -inf: 0 * -inf is NaN in an expectation, and exp(-1e9) is 0 all the same


def imitation_loss(logits: Tensor, action: Tensor, legal: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of the logged actions, -log G(a | s) (arXiv:1910.01708, eq. 10). [B, A], [B] -> [].

    Args:
        logits: [B, A].
        action: [B].
        legal: bool [B, A], the actions that G is over, or None for all. A row whose logged action is not among them
            teaches nothing: it counts as 0 in the mean.
    """
    require_ranks("imitation_loss", logits=(logits, 2), action=(action, 1))
    if legal is None:
        return F.cross_entropy(logits, action)
    surprise = F.cross_entropy(_of_legal(logits, legal), action, reduction="none")
    return torch.where(select_action(legal, action), surprise, 0.0).mean()


def imitation_accuracy(logits: Tensor, action: Tensor, legal: Tensor | None = None) -> Tensor:
    """Share of the logged actions that are the likeliest legal ones. Arguments as of `imitation_loss`. -> []."""
    require_ranks("imitation_accuracy", logits=(logits, 2), action=(action, 1))
    return (_of_legal(logits, legal).argmax(dim=1) == action).float().mean()


def logit_penalty(logits: Tensor) -> Tensor:
    """Mean squared logit, which keeps the imitator from overconfidence. [B, A] -> []."""
    require_ranks("logit_penalty", logits=(logits, 2))
    return logits.square().mean()


def log_policy(logits: Tensor, legal: Tensor | None = None) -> Tensor:
    """The policy log pi(a | s), a softmax over the legal actions. [B, A], bool [B, A] -> [B, A].

    Illegal actions have about -1e9, whose probability is 0. A row that forbids everything is uniform and finite.
    """
    require_ranks("log_policy", logits=(logits, 2))
    return F.log_softmax(_of_legal(logits, legal), dim=1)


def _of_legal(logits: Tensor, legal: Tensor | None) -> Tensor:
    return logits if legal is None else logits.masked_fill(~legal, _ILLEGAL)


def expected_value(log_probabilities: Tensor, values: Tensor, legal: Tensor | None = None) -> Tensor:
    """sum_a pi(a | s) values(s, a), exact where papers sample. [B, A], [B, A] -> [B].

    Args:
        log_probabilities: of `log_policy` with the same `legal`.
        values: [B, A].
        legal: bool [B, A], or None for all; in a row without one the expectation is 0.
    """
    require_ranks("expected_value", log_probabilities=(log_probabilities, 2), values=(values, 2))
    expected = (log_probabilities.exp() * values).sum(dim=1)
    return expected if legal is None else torch.where(legal.any(dim=1), expected, 0.0)


def soft_value(
    log_probabilities: Tensor, q: Tensor, coefficient: Tensor | float, legal: Tensor | None = None
) -> Tensor:
    """sum_a pi(a | s) (q(s, a) - coefficient * log pi(a | s)) (arXiv:1910.07207). [B, A], [B, A] -> [B].

    Minus its mean is the actor's loss. Arguments as of `expected_value`.
    """
    return expected_value(log_probabilities, q - coefficient * log_probabilities, legal)


def entropy(log_probabilities: Tensor) -> Tensor:
    """-sum_a pi(a | s) log pi(a | s), in nats. [B, A] -> [B]."""
    return -expected_value(log_probabilities, log_probabilities)


def largest_entropy(log_probabilities: Tensor, legal: Tensor | None = None) -> Tensor:
    """Log of the number of legal actions, the entropy of a uniform policy. [B, A], bool [B, A] -> [B]."""
    return entropy(log_policy(torch.zeros_like(log_probabilities), legal))


def entropy_coefficient_loss(coefficient: Tensor, log_probabilities: Tensor, target_entropy: Tensor) -> Tensor:
    """Mean of coefficient * (entropy - target_entropy): it falls where there is more (arXiv:1910.07207). -> [].

    Args:
        coefficient: [], which alone receives a gradient.
        log_probabilities: [B, A], of `log_policy`.
        target_entropy: [B], in nats.
    """
    require_ranks("entropy_coefficient_loss", target_entropy=(target_entropy, 1))
    return (coefficient * (entropy(log_probabilities) - target_entropy).detach()).mean()


def exponential_weight(advantage: Tensor, inverse_temperature: float, limit: float) -> Tensor:
    """min(exp(inverse_temperature * advantage), limit), without gradient. [B] -> [B].

    Of CRR (arXiv:2006.15134) and AWAC (arXiv:2006.09359), whose temperature divides, and of IQL (arXiv:2110.06169).
    """
    require_ranks("exponential_weight", advantage=(advantage, 1))
    return (inverse_temperature * advantage).exp().clamp(max=limit).detach()


def binary_weight(advantage: Tensor) -> Tensor:
    """1 where the advantage is 0 or more, else 0 (arXiv:2006.15134). [B] -> [B].

    0 counts, which the paper leaves out: over the exact maximum nothing but the best action has it, and no more.
    """
    require_ranks("binary_weight", advantage=(advantage, 1))
    return (advantage >= 0).to(advantage.dtype)


def weighted_imitation_loss(log_probabilities: Tensor, action: Tensor, weight: Tensor) -> Tensor:
    """Mean of -weight * log pi(a | s) (arXiv:2006.15134, arXiv:2110.06169). [B, A], [B], [B] -> [].

    The mean is over all rows, whatever their weights.
    """
    require_ranks("weighted_imitation_loss", weight=(weight, 1))
    return -(weight * select_action(log_probabilities, action)).mean()
