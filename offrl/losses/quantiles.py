"""Q as a distribution of N quantiles for each action. B is the batch, A the number of actions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from offrl.losses.actions import masked_argmax, require_ranks


def select_quantiles(quantiles: Tensor, action: Tensor) -> Tensor:
    """The quantiles of each row's action. [B, A, N], int64 [B] -> [B, N]."""
    require_ranks("select_quantiles", quantiles=(quantiles, 3), action=(action, 1))
    rows = action.view(-1, 1, 1).expand(-1, 1, quantiles.shape[2])
    return quantiles.gather(1, rows).squeeze(1)


def quantile_target(
    reward: Tensor,
    discount: Tensor,
    next_quantiles_online: Tensor,
    next_quantiles_target: Tensor,
    allowed: Tensor | None = None,
) -> Tensor:
    """The target of each quantile, r + discount * theta_j(s', a') (arXiv:1710.10044). -> [B, N].

    a' is the best action by the mean of the first network's quantiles, as in `offrl.losses.double_q_target`: give the
    target network's twice for the paper's own.

    Args:
        reward: [B], the n-step return.
        discount: [B], 0 where the episode terminated.
        next_quantiles_online: [B, A, N], picks a'.
        next_quantiles_target: [B, A, N], judges it.
        allowed: bool [B, A], or None for all; in a row without one, the value is 0.
    """
    require_ranks("quantile_target", reward=(reward, 1), discount=(discount, 1), online=(next_quantiles_online, 3))
    next_q = next_quantiles_online.mean(dim=2)
    next_action = next_q.argmax(dim=1) if allowed is None else masked_argmax(next_q, allowed)
    following = select_quantiles(next_quantiles_target, next_action)
    bootstraps = discount > 0 if allowed is None else (discount > 0) & allowed.any(dim=1)
    bootstrap = torch.where(bootstraps.unsqueeze(1), discount.unsqueeze(1) * following, 0.0)
    return (reward.unsqueeze(1) + bootstrap).detach()


def quantile_loss(quantiles: Tensor, target: Tensor, kappa: float = 1.0) -> Tensor:
    """Quantile Huber loss, |tau_i - 1[u < 0]| L_kappa(u) with u = target_j - theta_i (arXiv:1710.10044, eq. 10). -> [].

    tau_i = (i + 1/2) / N, and L_kappa(u) is u**2 / 2 up to |u| = kappa, kappa (|u| - kappa / 2) beyond. The mean is
    over the batch, i and j; the paper sums over i, which makes the loss N times as large beside others.

    Args:
        quantiles: theta [B, N] of the logged action.
        target: [B, N].
        kappa: over 0.
    """
    require_ranks("quantile_loss", quantiles=(quantiles, 2), target=(target, 2))
    num_quantiles = quantiles.shape[1]
    midpoints = (torch.arange(num_quantiles, device=quantiles.device, dtype=quantiles.dtype) + 0.5) / num_quantiles
    error = target.unsqueeze(1) - quantiles.unsqueeze(2)  # [B, i, j]
    weight = (midpoints.unsqueeze(1) - (error < 0).to(error.dtype)).abs()
    return (weight * F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=kappa)).mean()
