"""Statistics on held-out transitions for `offrl.training.Selection`, one batch at a time while a run trains."""

from __future__ import annotations

import torch
from torch import Tensor

from offrl.algorithms.algorithm import Algorithm, PolicyOutput
from offrl.batch import Batch
from offrl.losses import bootstrap_target, greedy_actions, select_action
from offrl.training.selection import Statistic


def _td_error(algorithm: Algorithm, batch: Batch) -> Tensor:
    """Mean squared error of q(s, a) to reward + discount * q(s', a'), a' the policy's action. []."""
    following = algorithm(batch.next_observation)
    action = greedy_actions(following.scores, following.logits, algorithm.threshold, batch.next_action_mask)
    next_value = select_action(algorithm.values(batch.next_observation), action)
    target = bootstrap_target(batch.reward, batch.discount, next_value)
    error = select_action(algorithm.values(batch.observation), batch.action) - target
    return _unless_nan(error.square().mean(), following)


def _agreement(algorithm: Algorithm, batch: Batch) -> Tensor:
    """Share of the transitions whose logged action is the policy's. []."""
    output = algorithm(batch.observation)
    action = greedy_actions(output.scores, output.logits, algorithm.threshold, batch.action_mask)
    agrees = action == batch.action
    if batch.action_mask is not None:  # where it may take none, as with legal_actions, it agrees with nobody
        agrees = agrees & batch.action_mask.any(dim=1)
    return _unless_nan(agrees.float().mean(), output)


def _unless_nan(statistic: Tensor, output: PolicyOutput) -> Tensor:
    """The statistic; NaN where the networks give NaN, whose greedy actions mean nothing. []."""
    has_nan = output.scores.isnan().any() | output.logits.isnan().any()
    return statistic.masked_fill(has_nan, torch.nan)


td_error = Statistic("td_error", _td_error, more_is_better=False)
"""The squared temporal-difference error of the algorithm's own q under its own policy; less is better.

It needs an algorithm with values. Noise in rewards and transitions is in it, alike for all policies of one dataset, and
small values have small errors: an algorithm that undervalues everything looks good.
"""

agreement = Statistic("agreement", _agreement, more_is_better=True)
"""How often the policy takes the logged action; more is better, where the log is of somebody good."""
