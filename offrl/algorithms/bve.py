"""Behaviour value estimation (Gulcehre et al. 2021, arXiv:2103.09575): what the behaviour is worth, improved once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offrl.algorithms.algorithm import Algorithm, Metrics, PolicyOutput, frozen_copy
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses import follows_log, mean_of, sarsa_target, select_action, td_loss
from offrl.networks.encoders import EncoderFactory, feature_dim
from offrl.networks.heads import ENSEMBLES, QHead, is_ensemble


@dataclass(frozen=True)
class BVEConfig:
    """Settings of BVE.

    Attributes:
        ensemble: "mean:5" or "min:2" for an ensemble of so many q heads, see `offrl.networks.QHead`; None for one head.
    """

    ensemble: str | None = None

    def __post_init__(self) -> None:
        Checks(self).that(is_ensemble(self.ensemble), "ensemble", ENSEMBLES)


class BVE(Algorithm[BVEConfig]):
    """SARSA on the log: q is the behaviour's, never a maximum; one step of policy improvement where it acts.

    Rows after which the log ends before the episode does are left out: the action that would follow is not known, and
    any other would mix the value of another policy into the behaviour's.
    """

    name = "bve"
    needs = frozenset({"next_action"})

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder and a head for q; target networks for both."""
        self.encoder = encoder(self.spec.observation_shape)
        self.q_head = QHead(feature_dim(self.encoder), self.spec.num_actions, self.config.ensemble)
        self.target_encoder = frozen_copy(self.encoder)
        self.target_q_head = frozen_copy(self.q_head)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Huber loss of q(s, a) against the value of the action that was logged next."""
        heads = self.q_head.members(self.encoder(batch.observation))
        next_action = batch.needed("next_action")
        rows = follows_log(batch.discount, next_action)
        with torch.no_grad():
            next_q_target = self.target_q_head(self.target_encoder(batch.next_observation))
            target = sarsa_target(batch.reward, batch.discount, next_q_target, next_action)
        loss = mean_of([td_loss(q, batch.action, target, rows) for q in heads])
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
