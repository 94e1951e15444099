"""Deep Q-learning: right online, and on data that covers every action; the baseline that shows why BCQ is needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offrl.algorithms.algorithm import Algorithm, Metrics, PolicyOutput, frozen_copy
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses import double_q_target, max_q_target, mean_of, select_action, td_loss
from offrl.networks.encoders import EncoderFactory, feature_dim
from offrl.networks.heads import ENSEMBLES, QHead, is_ensemble


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


class DQN(Algorithm[DQNConfig]):
    """Deep Q-learning (doi:10.1038/nature14236), with double Q-learning as an option."""

    name = "dqn"

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder and a head for q; target networks for both."""
        self.encoder = encoder(self.spec.observation_shape)
        self.q_head = QHead(feature_dim(self.encoder), self.spec.num_actions, self.config.ensemble)
        self.target_encoder = frozen_copy(self.encoder)
        self.target_q_head = frozen_copy(self.q_head)

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
