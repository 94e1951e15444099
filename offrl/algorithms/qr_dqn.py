"""Quantile regression DQN (Dabney et al. 2018, arXiv:1710.10044)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from offrl.algorithms.algorithm import Metrics, frozen_copy
from offrl.algorithms.bases import QLearning
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses import quantile_loss, quantile_target, select_quantiles
from offrl.networks.encoders import EncoderFactory, feature_dim
from offrl.networks.heads import Head


@dataclass(frozen=True)
class QRDQNConfig:
    """Settings of QR-DQN.

    Attributes:
        num_quantiles: of each action's return, 1 or more. The paper's 200 make the loss 16 times as large a
            computation as 51.
        double: the online network picks the next action and the target network judges it, as in `DQNConfig`; the
            paper lets the target network do both.
        kappa: where the quantile Huber loss turns from quadratic to linear, over 0.
    """

    num_quantiles: int = 51
    double: bool = True
    kappa: float = 1.0

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.whole("num_quantiles", least=1)
        checks.flag("double")
        checks.number("kappa", "a number over 0", lambda kappa: kappa > 0)


class QRDQN(QLearning[QRDQNConfig]):
    """Q-learning of the distribution of returns, as quantiles, whose mean is q."""

    name = "qr-dqn"

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder and a head for the quantiles of each action; target networks for both."""
        self.encoder = encoder(self.spec.observation_shape)
        self.q_head = Head(feature_dim(self.encoder), self.spec.num_actions * self.config.num_quantiles)
        self.target_encoder = frozen_copy(self.encoder)
        self.target_q_head = frozen_copy(self.q_head)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Quantile Huber loss of the logged action's quantiles against the one- or n-step target's."""
        quantiles = select_quantiles(self.quantiles(batch.observation), batch.action)
        with torch.no_grad():
            judging = self._quantiles(self.target_q_head(self.target_encoder(batch.next_observation)))
            picking = self.quantiles(batch.next_observation) if self.config.double else judging
            target = quantile_target(batch.reward, batch.discount, picking, judging, batch.next_action_mask)
        return quantile_loss(quantiles, target, self.config.kappa), {"q": quantiles.mean()}

    def quantiles(self, observation: Tensor) -> Tensor:
        """The quantiles of the return of each action, in no order. [B, ...] -> [B, A, num_quantiles]."""
        return self._quantiles(self.q_head(self.encoder(observation)))

    def _quantiles(self, output: Tensor) -> Tensor:
        return output.reshape(-1, self.spec.num_actions, self.config.num_quantiles)

    def values(self, observation: Tensor) -> Tensor:
        """q(s, .) of the online network. [B, ...] -> [B, A]."""
        return self.quantiles(observation).mean(dim=2)
