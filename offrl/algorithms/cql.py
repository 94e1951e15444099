"""Conservative Q-learning for discrete actions (Kumar et al. 2020, arXiv:2006.04779), on double DQN."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offrl.algorithms.algorithm import Algorithm, Metrics, PolicyOutput, frozen_copy
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses import conservative_penalty, double_q_target, legal_or_logged, mean_of, select_action, td_loss
from offrl.networks.encoders import EncoderFactory, feature_dim
from offrl.networks.heads import ENSEMBLES, QHead, is_ensemble


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
        checks.number("weight", "0 or more", lambda weight: weight >= 0)
        checks.that(is_ensemble(self.ensemble), "ensemble", ENSEMBLES)


class CQL(Algorithm[CQLConfig]):
    """Double Q-learning that pushes down the values of actions which the data does not show."""

    name = "cql"

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder and a head for q; target networks for both."""
        self.encoder = encoder(self.spec.observation_shape)
        self.q_head = QHead(feature_dim(self.encoder), self.spec.num_actions, self.config.ensemble)
        self.target_encoder = frozen_copy(self.encoder)
        self.target_q_head = frozen_copy(self.q_head)

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

    def forward(self, observation: Tensor) -> PolicyOutput:
        """Q ranks the actions, and no action is ruled out."""
        q = self.values(observation)
        return PolicyOutput(scores=q, logits=torch.zeros_like(q))

    def values(self, observation: Tensor) -> Tensor:
        """q(s, .) of the online network. [B, ...] -> [B, A]."""
        q: Tensor = self.q_head(self.encoder(observation))
        return q

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Encoder and q head."""
        return [(self.encoder, self.target_encoder), (self.q_head, self.target_q_head)]
