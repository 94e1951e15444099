"""Conservative Q-learning (arXiv:2006.04779) on quantiles (arXiv:1710.10044), as its paper has it on Atari."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from offrl.algorithms.algorithm import Metrics
from offrl.algorithms.bases import QuantileLearning
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses import conservative_penalty, legal_or_logged, quantile_loss, quantile_target, select_quantiles


@dataclass(frozen=True)
class QRCQLConfig:
    """Settings of CQL with quantiles.

    Attributes:
        weight: of the penalty (the paper's alpha), 0 or more; 0 is double QR-DQN. It is meant beside a sum over the
            quantiles, as in that paper. The loss here is their mean, and so it is divided by their number: more would
            push the upper quantiles away, on which the loss has little hold.
        num_quantiles: of each action's return, 1 to 1,000. On CartPole's mixed data two learned more than 8 and 51.
        kappa: where the quantile Huber loss turns from quadratic to linear, over 0.
    """

    weight: float = 1.0
    num_quantiles: int = 2
    kappa: float = 1.0

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.number("weight", "0 or more", lambda weight: weight >= 0, as_float32=True)
        checks.whole("num_quantiles", least=1, most=1_000)
        checks.number("kappa", "a number over 0", lambda kappa: kappa > 0)


class QRCQL(QuantileLearning[QRCQLConfig]):
    """Q-learning of the distribution of returns that pushes down the values of actions which the data does not show."""

    name = "qr-cql"

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Quantile Huber loss against double QR-DQN's target, plus the weighted penalty on the quantiles' mean."""
        every = self.quantiles(batch.observation)
        quantiles = select_quantiles(every, batch.action)
        with torch.no_grad():
            picking, judging = self.quantiles(batch.next_observation), self.target_quantiles(batch.next_observation)
            target = quantile_target(batch.reward, batch.discount, picking, judging, batch.next_action_mask)

        td = quantile_loss(quantiles, target, self.config.kappa)
        legal = legal_or_logged(batch.action_mask, batch.action)
        penalty = conservative_penalty(every.mean(dim=2), batch.action, legal)
        metrics = {"td_loss": td, "conservative_loss": penalty, "q": quantiles.mean()}
        return td + self.config.weight / self.num_quantiles * penalty, metrics
