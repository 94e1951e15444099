"""Soft actor-critic for discrete actions (Christodoulou 2019, arXiv:1910.07207)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offrl.algorithms.algorithm import Metrics
from offrl.algorithms.bases import ActorCritic
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses.actions import legal_or_logged, select_action
from offrl.losses.policies import entropy, entropy_coefficient_loss, largest_entropy, log_policy, soft_value
from offrl.losses.values import bootstrap_target, mean_of, td_loss
from offrl.networks.encoders import EncoderFactory, feature_dim
from offrl.networks.heads import ENSEMBLES, Head, is_ensemble


@dataclass(frozen=True)
class DiscreteSACConfig:
    """Settings of discrete SAC. The encoder is the critic's; the actor only reads its features (arXiv:1910.01741).

    Attributes:
        entropy_coefficient: what a nat of entropy is worth in reward, at first; over 0, or 0 where it is not learned.
            The paper's 1 outweighs rewards that are scaled to q values of the order of 1 to 10.
        learn_entropy_coefficient: whether it is moved so that the policy has the target entropy.
        target_entropy: as a share of log of the number of legal actions, in [0, 1]; 0.98 is the paper's.
        ensemble: "mean:5" or "min:2" for an ensemble of so many q heads, see `offrl.networks.QHead`; None for one head.
            The least of two is the paper's.
    """

    entropy_coefficient: float = 0.1
    learn_entropy_coefficient: bool = True
    target_entropy: float = 0.98
    ensemble: str | None = "min:2"

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.flag("learn_entropy_coefficient")
        least = 1e-30 if self.learn_entropy_coefficient else 0.0  # its logarithm is what is learned
        checks.number(
            "entropy_coefficient",
            "over 0, or 0 where it is not learned",
            lambda number: number >= least,
            as_float32=True,
        )
        checks.number("target_entropy", "a share in [0, 1]", lambda share: 0 <= share <= 1)
        checks.that(is_ensemble(self.ensemble), "ensemble", ENSEMBLES)


class DiscreteSAC(ActorCritic[DiscreteSACConfig]):
    """Soft actor-critic, whose expectations over discrete actions are exact: the policy of highest q plus entropy."""

    name = "sac"

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder and heads for q and the policy's logits; target networks for encoder and q; the coefficient."""
        super().make_networks(encoder)
        self.policy_head = Head(feature_dim(self.encoder), self.spec.num_actions)
        if self.config.learn_entropy_coefficient:
            self.log_entropy_coefficient = nn.Parameter(torch.tensor(math.log(self.config.entropy_coefficient)))

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Huber loss of q against the soft target, the actor's loss, and that of the entropy coefficient."""
        features = self.encoder(batch.observation)
        heads, learns = self.q_head.members(features), self.config.learn_entropy_coefficient
        legal, next_legal = legal_or_logged(batch.action_mask, batch.action), batch.next_action_mask
        log_pi = log_policy(self.policy_head(features.detach()), legal)
        with torch.no_grad():
            fixed = torch.full_like(batch.reward[0], self.config.entropy_coefficient)
            coefficient = self.log_entropy_coefficient.exp() if learns else fixed
            next_log_pi = log_policy(self.policy_head(self.encoder(batch.next_observation)), next_legal)
            next_q = self.target_q_head(self.target_encoder(batch.next_observation))
            next_value = soft_value(next_log_pi, next_q, coefficient, next_legal)
            target = bootstrap_target(batch.reward, batch.discount, next_value)
            q = self.q_head.reduce(heads).detach()  # of a single head it is the head's own output, graph and all

        td = mean_of([td_loss(each, batch.action, target) for each in heads])
        actor = -soft_value(log_pi, q, coefficient, legal).mean()
        loss, q_logged = td + actor, select_action(q, batch.action).mean()
        if learns:
            target_entropy = self.config.target_entropy * largest_entropy(log_pi, legal)
            loss = loss + entropy_coefficient_loss(self.log_entropy_coefficient.exp(), log_pi, target_entropy)
        metrics = {"td_loss": td, "actor_loss": actor, "q": q_logged, "entropy": entropy(log_pi).mean()}
        return loss, {**metrics, "entropy_coefficient": coefficient}
