"""Conservative Q-learning for discrete actions (Kumar et al. 2020, arXiv:2006.04779), on double DQN."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from offrl.algorithms.algorithm import Metrics
from offrl.algorithms.bases import QLearning
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses import conservative_penalty, double_q_target, legal_or_logged, mean_of, select_action, td_loss
from offrl.networks.heads import ENSEMBLES, is_ensemble


@dataclass(frozen=True)
class CQLConfig:
    """Settings of CQL.

    The penalty is the paper's CQL(H): logsumexp over all actions, which a discrete action space has exactly.

    Attributes:
        weight: of the penalty (the paper's alpha), 0 or more; 0 is double DQN, and the more the closer to the data.
        ensemble: "mean:5" or "min:2" for an ensemble of so many q heads, see `offrl.networks.QHead`; None for one head.
    """

    weight: float = 1.0
    ensemble: str | None = None

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.number("weight", "0 or more", lambda weight: weight >= 0, as_float32=True)
        checks.that(is_ensemble(self.ensemble), "ensemble", ENSEMBLES)


class CQL(QLearning[CQLConfig]):
    """Double Q-learning that pushes down the values of actions which the data does not show."""

    name = "cql"

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Huber loss of q(s, a) against the double-Q target, plus the weighted penalty."""
        heads = self.q_head.members(self.encoder(batch.observation))
        with torch.no_grad():
            next_q = self.values(batch.next_observation)
            next_q_target = self.target_q_head(self.target_encoder(batch.next_observation))
            target = double_q_target(batch.reward, batch.discount, next_q, next_q_target, batch.next_action_mask)

        td = mean_of([td_loss(q, batch.action, target) for q in heads])
        legal = legal_or_logged(batch.action_mask, batch.action)
        penalty = mean_of([conservative_penalty(q, batch.action, legal) for q in heads])
        metrics = {
            "td_loss": td,
            "conservative_loss": penalty,
            "q": select_action(self.q_head.reduce(heads), batch.action).mean(),
        }
        return td + self.config.weight * penalty, metrics
