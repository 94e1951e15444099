"""Critic-regularised regression for discrete actions (Wang et al. 2020, arXiv:2006.15134)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from offrl.algorithms.algorithm import Metrics, PolicyOutput, frozen_copy
from offrl.algorithms.bases import ActorCritic
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses.actions import legal_or_logged, select_action
from offrl.losses.policies import binary_weight, expected_value, exponential_weight, log_policy, weighted_imitation_loss
from offrl.losses.values import advantage_over_max, advantage_over_mean, bootstrap_target, mean_of, td_loss
from offrl.networks.encoders import EncoderFactory, feature_dim
from offrl.networks.heads import ENSEMBLES, Head, is_ensemble


@dataclass(frozen=True)
class CRRConfig:
    """Settings of CRR. Where the paper samples actions, expectations are exact sums over the legal ones; q is a number.

    Attributes:
        weighting: of logged actions: "exp" of the advantage, as AWAC's, or "binary", 1 where it is not negative.
        beta: divides the advantage in "exp", and q in `critic_weighted`; over 0. A lower value gives good actions more
            weight.
        weight_limit: the largest weight of an action, over 0; 20 is the paper's.
        advantage: over the policy's "mean", or over the best action ("max"; with "binary" it alone is imitated).
        critic_weighted: act by pi(a | s) exp(q(s, a) / beta), the paper's CWP, in place of pi alone; what is learned is
            the same.
        ensemble: "mean:5" or "min:2" for an ensemble of so many q heads, see `offrl.networks.QHead`; None for one head.
    """

    weighting: Literal["exp", "binary"] = "exp"
    beta: float = 1.0
    weight_limit: float = 20.0
    advantage: Literal["mean", "max"] = "mean"
    critic_weighted: bool = False
    ensemble: str | None = None

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.choice("weighting", ("exp", "binary"))
        checks.number("beta", "a number over 0", lambda beta: beta > 0, as_float32=True)
        checks.number("weight_limit", "a number over 0", lambda limit: limit > 0, as_float32=True)
        checks.choice("advantage", ("mean", "max"))
        checks.flag("critic_weighted")
        checks.that(is_ensemble(self.ensemble), "ensemble", ENSEMBLES)


class CRR(ActorCritic[CRRConfig]):
    """Imitation of those logged actions that the policy's own critic finds good."""

    name = "crr"

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder and heads for q and the policy's logits; target networks for all three."""
        super().make_networks(encoder)
        self.policy_head = Head(feature_dim(self.encoder), self.spec.num_actions)
        self.target_policy_head = frozen_copy(self.policy_head)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Huber loss of q against the target policy's value, plus imitation weighted by the advantage."""
        features = self.encoder(batch.observation)
        legal, next_legal = legal_or_logged(batch.action_mask, batch.action), batch.next_action_mask
        heads, log_pi = self.q_head.members(features), log_policy(self.policy_head(features), legal)
        with torch.no_grad():
            next_features = self.target_encoder(batch.next_observation)
            next_log_pi = log_policy(self.target_policy_head(next_features), next_legal)
            next_value = expected_value(next_log_pi, self.target_q_head(next_features), next_legal)
            target = bootstrap_target(batch.reward, batch.discount, next_value)
            q = self.q_head.reduce(heads)
            advantage = advantage_over_mean(q, batch.action, log_pi)
            if self.config.advantage == "max":
                advantage = advantage_over_max(q, batch.action, legal)
            weight = exponential_weight(advantage, 1 / self.config.beta, self.config.weight_limit)
            if self.config.weighting == "binary":
                weight = binary_weight(advantage)

        td = mean_of([td_loss(each, batch.action, target) for each in heads])
        policy_loss, q_logged = weighted_imitation_loss(log_pi, batch.action, weight), select_action(q, batch.action)
        metrics = {"td_loss": td, "policy_loss": policy_loss, "weight": weight.mean(), "q": q_logged.mean()}
        return td + policy_loss, metrics

    def forward(self, observation: Tensor) -> PolicyOutput:
        """The policy's logits rank the actions, or those of the policy that the critic weights."""
        features = self.encoder(observation)
        logits = self.policy_head(features)
        if self.config.critic_weighted:
            logits = logits + self.q_head(features) / self.config.beta
        return PolicyOutput(scores=logits, logits=logits)

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Encoder, q head and policy head."""
        return [*super().targets(), (self.policy_head, self.target_policy_head)]
