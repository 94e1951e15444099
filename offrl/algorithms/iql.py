"""Implicit Q-learning for discrete actions (Kostrikov et al. 2021, arXiv:2110.06169)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from offrl.algorithms.algorithm import Metrics
from offrl.algorithms.bases import ActorCritic
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses.actions import legal_or_logged, select_action
from offrl.losses.policies import exponential_weight, log_policy, weighted_imitation_loss
from offrl.losses.values import expectile_loss, mean_of, td_loss, value_target
from offrl.networks.encoders import EncoderFactory, feature_dim
from offrl.networks.heads import ENSEMBLES, Head, is_ensemble


@dataclass(frozen=True)
class IQLConfig:
    """Settings of IQL.

    The policy is extracted by advantage-weighted regression, the paper's own way: the greedy policy of q would ask for
    the values of actions that the data does not show. The advantage is the target network's q less the value, and its
    weight has the limit of the authors' experiments. q has the Huber loss of all algorithms here, not the square.

    Attributes:
        expectile: of the values of logged actions that the value nears, in (0, 1); 1/2 is their mean (SARSA),
            towards 1 their maximum (Q-learning within the data).
        temperature: multiplies the advantage (the paper's beta, an inverse temperature), 0 or more; 0 is behaviour
            cloning.
        weight_limit: the largest weight of an action, over 0.
        ensemble: "mean:5" or "min:2" for an ensemble of so many q heads, see `offrl.networks.QHead`; None for one head.
            The least of two is the paper's.
    """

    expectile: float = 0.7
    temperature: float = 3.0
    weight_limit: float = 100.0
    ensemble: str | None = "min:2"

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.number("expectile", "0 < expectile < 1", lambda expectile: 0 < expectile < 1)
        checks.number("temperature", "0 or more", lambda temperature: temperature >= 0, as_float32=True)
        checks.number("weight_limit", "a number over 0", lambda limit: limit > 0, as_float32=True)
        checks.that(is_ensemble(self.ensemble), "ensemble", ENSEMBLES)


class IQL(ActorCritic[IQLConfig]):
    """Q-learning that never asks for the value of an action which is not in the data."""

    name = "iql"

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder and heads for q, the value and the policy's logits; target networks for encoder and q."""
        super().make_networks(encoder)
        self.value_head = Head(feature_dim(self.encoder), 1)
        self.policy_head = Head(feature_dim(self.encoder), self.spec.num_actions)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Expectile loss of the value, Huber loss of q, and imitation weighted by the exponentiated advantage."""
        features = self.encoder(batch.observation)
        heads, value = self.q_head.members(features), self.value_head(features).squeeze(1)
        log_pi = log_policy(self.policy_head(features), legal_or_logged(batch.action_mask, batch.action))
        with torch.no_grad():
            q = select_action(self.target_q_head(self.target_encoder(batch.observation)), batch.action)
            next_value = self.value_head(self.encoder(batch.next_observation)).squeeze(1)
            target = value_target(batch.reward, batch.discount, next_value, batch.next_action_mask)
            weight = exponential_weight(q - value, self.config.temperature, self.config.weight_limit)

        value_loss = expectile_loss(value, q, self.config.expectile)
        td = mean_of([td_loss(each, batch.action, target) for each in heads])
        policy_loss = weighted_imitation_loss(log_pi, batch.action, weight)
        metrics = {"td_loss": td, "value_loss": value_loss, "policy_loss": policy_loss}
        return td + value_loss + policy_loss, {**metrics, "q": q.mean(), "weight": weight.mean()}
