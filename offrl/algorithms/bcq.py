"""Discrete batch-constrained Q-learning (Fujimoto et al. 2019, arXiv:1910.01708)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offrl.algorithms.algorithm import Algorithm, Metrics, PolicyOutput, frozen_copy
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses import (
    double_q_target,
    imitation_accuracy,
    imitation_loss,
    likely_actions,
    logit_penalty,
    mean_of,
    select_action,
    td_loss,
)
from offrl.networks.encoders import EncoderFactory, feature_dim
from offrl.networks.heads import ENSEMBLES, Head, QHead, is_ensemble


@dataclass(frozen=True)
class DiscreteBCQConfig:
    """Settings of discrete BCQ.

    Attributes:
        threshold: an action is allowed if it is more than this many times as likely as the likeliest, in [0, 1);
            0 allows all (double DQN's targets), close to 1 leaves the imitator's choice (behaviour cloning).
        logit_penalty: weight of the mean squared logit, 0 or more.
        ensemble: "mean:5" or "min:2" for an ensemble of so many q heads, see `offrl.networks.QHead`; None for one head.
    """

    threshold: float = 0.3
    logit_penalty: float = 0.01
    ensemble: str | None = None

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.number("threshold", "0 <= threshold < 1", lambda threshold: 0 <= threshold < 1)
        checks.number("logit_penalty", "0 or more", lambda penalty: penalty >= 0)
        checks.that(is_ensemble(self.ensemble), "ensemble", ENSEMBLES)


class DiscreteBCQ(Algorithm[DiscreteBCQConfig]):
    """Q-learning that only ever considers actions the data makes likely."""

    name = "bcq"

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder, a head for q and one for the imitator's logits; target networks for encoder and q."""
        self.threshold = self.config.threshold
        self.encoder = encoder(self.spec.observation_shape)
        self.q_head = QHead(feature_dim(self.encoder), self.spec.num_actions, self.config.ensemble)
        self.imitation_head = Head(feature_dim(self.encoder), self.spec.num_actions)
        self.target_encoder = frozen_copy(self.encoder)
        self.target_q_head = frozen_copy(self.q_head)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Huber loss of q against the constrained double-Q target, plus cross-entropy, plus the logit penalty."""
        features = self.encoder(batch.observation)
        heads, logits = self.q_head.members(features), self.imitation_head(features)
        with torch.no_grad():
            next_q, next_logits = self(batch.next_observation)
            next_q_target = self.target_q_head(self.target_encoder(batch.next_observation))
            allowed = likely_actions(next_logits, self.config.threshold, batch.next_action_mask)
            target = double_q_target(batch.reward, batch.discount, next_q, next_q_target, allowed)

        td = mean_of([td_loss(q, batch.action, target) for q in heads])
        imitation = imitation_loss(logits, batch.action)
        loss = td + imitation + self.config.logit_penalty * logit_penalty(logits)
        metrics = {
            "td_loss": td,
            "imitation_loss": imitation,
            "imitation_accuracy": imitation_accuracy(logits, batch.action),
            "q": select_action(self.q_head.reduce(heads), batch.action).mean(),
            "allowed_actions": allowed.sum(dim=1).float().mean(),
        }
        return loss, metrics

    def forward(self, observation: Tensor) -> PolicyOutput:
        """Q ranks the actions that the imitator's logits allow."""
        features = self.encoder(observation)
        return PolicyOutput(scores=self.q_head(features), logits=self.imitation_head(features))

    def values(self, observation: Tensor) -> Tensor:
        """q(s, .) of the online network. [B, ...] -> [B, A]."""
        output: PolicyOutput = self(observation)
        return output.scores

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Encoder and q head: the target's choice is never asked for, so it needs no imitator."""
        return [(self.encoder, self.target_encoder), (self.q_head, self.target_q_head)]
