"""Quantile regression DQN (Dabney et al. 2018, arXiv:1710.10044)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from offrl.algorithms.algorithm import Metrics
from offrl.algorithms.bases import QuantileLearning
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses import quantile_loss, quantile_target, select_quantiles


@dataclass(frozen=True)
class QRDQNConfig:
    """Settings of QR-DQN.

    Attributes:
        num_quantiles: of each action's return, 1 to 1,000. The paper's 200 make the loss 16 times as large a
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
        checks.whole("num_quantiles", least=1, most=1_000)
        checks.flag("double")
        checks.number("kappa", "a number over 0", lambda kappa: kappa > 0)


class QRDQN(QuantileLearning[QRDQNConfig]):
    """Q-learning of the distribution of returns, as quantiles, whose mean is q."""

    name = "qr-dqn"

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Quantile Huber loss of the logged action's quantiles against the one- or n-step target's."""
        quantiles = select_quantiles(self.quantiles(batch.observation), batch.action)
        with torch.no_grad():
            judging = self.target_quantiles(batch.next_observation)
            picking = self.quantiles(batch.next_observation) if self.config.double else judging
            target = quantile_target(batch.reward, batch.discount, picking, judging, batch.next_action_mask)
        return quantile_loss(quantiles, target, self.config.kappa), {"q": quantiles.mean()}
