"""Discrete BCQ (arXiv:1910.01708) whose q is a distribution of quantiles (arXiv:1710.10044)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from offrl.algorithms.algorithm import Metrics, PolicyOutput
from offrl.algorithms.bases import QuantileLearning
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses.actions import likely_actions
from offrl.losses.policies import imitation_accuracy, imitation_loss, logit_penalty
from offrl.losses.quantiles import quantile_loss, quantile_target, select_quantiles
from offrl.networks.encoders import EncoderFactory, feature_dim
from offrl.networks.heads import Head


@dataclass(frozen=True)
class QRBCQConfig:
    """Settings of BCQ with quantiles.

    Attributes:
        threshold: an action is allowed if it is more than this many times as likely as the likeliest, in [0, 1);
            0 allows all (double QR-DQN's targets), close to 1 leaves the imitator's choice (behaviour cloning).
        logit_penalty: weight of the mean squared logit, 0 or more.
        num_quantiles: of each action's return, 1 to 1,000.
        kappa: where the quantile Huber loss turns from quadratic to linear, over 0.
    """

    threshold: float = 0.3
    logit_penalty: float = 0.01
    num_quantiles: int = 51
    kappa: float = 1.0

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.number("threshold", "0 <= threshold < 1", lambda threshold: 0 <= threshold < 1)
        checks.number("logit_penalty", "0 or more", lambda penalty: penalty >= 0)
        checks.whole("num_quantiles", least=1, most=1_000)
        checks.number("kappa", "a number over 0", lambda kappa: kappa > 0)


class QRBCQ(QuantileLearning[QRBCQConfig]):
    """Q-learning of the distribution of returns that only ever considers actions the data makes likely."""

    name = "qr-bcq"

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder, heads for quantiles and for the imitator's logits; target networks for encoder and quantiles.

        The target's choice is never asked for, so it needs no imitator.
        """
        super().make_networks(encoder)
        self.threshold = self.config.threshold
        self.imitation_head = Head(feature_dim(self.encoder), self.spec.num_actions)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Quantile Huber loss against the constrained target, plus cross-entropy, plus the logit penalty."""
        features = self.encoder(batch.observation)
        quantiles = select_quantiles(self.as_quantiles(self.q_head(features)), batch.action)
        logits = self.imitation_head(features)
        with torch.no_grad():
            next_features = self.encoder(batch.next_observation)
            next_logits, picking = self.imitation_head(next_features), self.as_quantiles(self.q_head(next_features))
            allowed = likely_actions(next_logits, self.config.threshold, batch.next_action_mask)
            judging = self.target_quantiles(batch.next_observation)
            target = quantile_target(batch.reward, batch.discount, picking, judging, allowed)

        td = quantile_loss(quantiles, target, self.config.kappa)
        imitation = imitation_loss(logits, batch.action)
        metrics = {
            "td_loss": td,
            "imitation_loss": imitation,
            "imitation_accuracy": imitation_accuracy(logits, batch.action),
            "q": quantiles.mean(),
            "allowed_actions": allowed.sum(dim=1).float().mean(),
        }
        return td + imitation + self.config.logit_penalty * logit_penalty(logits), metrics

    def forward(self, observation: Tensor) -> PolicyOutput:
        """Q, the mean of the quantiles, ranks the actions that the imitator's logits allow."""
        features = self.encoder(observation)
        return PolicyOutput(self.as_quantiles(self.q_head(features)).mean(dim=2), self.imitation_head(features))
