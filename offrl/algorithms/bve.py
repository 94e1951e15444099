"""Behaviour value estimation (Gulcehre et al. 2021, arXiv:2103.09575): what the behaviour is worth, improved once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from offrl.algorithms.algorithm import Metrics
from offrl.algorithms.bases import QLearning
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses import follows_log, mean_of, sarsa_target, select_action, td_loss
from offrl.networks.heads import ENSEMBLES, is_ensemble


@dataclass(frozen=True)
class BVEConfig:
    """Settings of BVE.

    Attributes:
        ensemble: "mean:5" or "min:2" for an ensemble of so many q heads, see `offrl.networks.QHead`; None for one head.
    """

    ensemble: str | None = None

    def __post_init__(self) -> None:
        Checks(self).that(is_ensemble(self.ensemble), "ensemble", ENSEMBLES)


class BVE(QLearning[BVEConfig]):
    """SARSA on the log: q is the behaviour's, never a maximum; one step of policy improvement where it acts.

    Rows after which the log ends before the episode does are left out: the action that would follow is not known, and
    any other would mix the value of another policy into the behaviour's.
    """

    name = "bve"
    needs = frozenset({"next_action"})

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
