"""Deep Q-learning: right online, and on data that covers every action; the baseline that shows why BCQ is needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from offrl.algorithms.algorithm import Metrics
from offrl.algorithms.bases import QLearning
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses import double_q_target, max_q_target, mean_of, select_action, td_loss
from offrl.networks.heads import ENSEMBLES, is_ensemble


@dataclass(frozen=True)
class DQNConfig:
    """Settings of DQN.

    Attributes:
        double: the online network picks the next action and the target network judges it (arXiv:1509.06461);
            otherwise the target network does both.
        ensemble: "mean:5" or "min:2" for an ensemble of so many q heads, see `offrl.networks.QHead`; None for one head.
    """

    double: bool = True
    ensemble: str | None = None

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.flag("double")
        checks.that(is_ensemble(self.ensemble), "ensemble", ENSEMBLES)


class DQN(QLearning[DQNConfig]):
    """Deep Q-learning (doi:10.1038/nature14236), with double Q-learning as an option."""

    name = "dqn"

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Mean Huber loss of q(s, a) against the one- or n-step target."""
        heads = self.q_head.members(self.encoder(batch.observation))
        with torch.no_grad():
            next_q_target = self.target_q_head(self.target_encoder(batch.next_observation))
            if self.config.double:
                next_q = self.values(batch.next_observation)
                target = double_q_target(batch.reward, batch.discount, next_q, next_q_target, batch.next_action_mask)
            else:
                target = max_q_target(batch.reward, batch.discount, next_q_target, batch.next_action_mask)
        loss = mean_of([td_loss(q, batch.action, target) for q in heads])
        return loss, {"q": select_action(self.q_head.reduce(heads), batch.action).mean()}
