"""Which action: of the log, of the likely, of the legal ones. B is the batch, A the number of actions."""

from __future__ import annotations

import torch
from torch import Tensor

from offrl.errors import ConfigError

_AXES = {1: "[B]", 2: "[B, A]", 3: "[B, A, N]"}


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
            raise ConfigError(f"{name} has the shape {list(tensor.shape)}", where=where, expected=_AXES[rank])


def select_action(values: Tensor, action: Tensor) -> Tensor:
    """The entry of each row that belongs to its action. [B, A], int64 [B] -> [B]."""
    require_ranks("select_action", values=(values, 2), action=(action, 1))
    return values.gather(1, action.unsqueeze(1)).squeeze(1)


def likely_actions(logits: Tensor, threshold: float, legal: Tensor | None = None) -> Tensor:
    """Actions more than `threshold` times as likely as the likeliest (arXiv:1910.01708, eq. 11). -> bool [B, A].

    The likeliest action always passes, so that only a row without a legal action is empty; threshold 0 lets all pass.

    Args:
        logits: [B, A].
        threshold: in [0, 1).
        legal: bool [B, A], the actions that the task allows at all, or None for every one.
    """
    require_ranks("likely_actions", logits=(logits, 2))
    if legal is not None:
        logits = logits.masked_fill(~legal, -torch.inf)
    if threshold > 0:
        ratios = (logits - logits.max(dim=1, keepdim=True).values).exp()
        # One that the logits' precision rounds to 1 would let no action pass: this is the largest number below 1.
        return ratios > min(threshold, 1 - torch.finfo(ratios.dtype).eps / 2)
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


def legal_or_logged(legal: Tensor | None, action: Tensor) -> Tensor | None:
    """The legal actions, and the logged one: whoever took it could. bool [B, A], int64 [B] -> bool [B, A].

    Without it a row that forbids its own action, or all, would have a probability of 0 and a loss without bound.

    Args:
        legal: `Batch.action_mask`; None, where every action is legal, stays None.
        action: [B].
    """
    if legal is None:
        return None
    require_ranks("legal_or_logged", legal=(legal, 2), action=(action, 1))
    return legal | (torch.arange(legal.shape[1], device=legal.device) == action.unsqueeze(1))
