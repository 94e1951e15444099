"""What Q-learning and actor-critic algorithms have in common: networks and how they act. The loss is each one's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from offrl.algorithms.algorithm import Algorithm, Config, PolicyOutput, frozen_copy
from offrl.networks.encoders import EncoderFactory, feature_dim
from offrl.networks.heads import Head, QHead


class QLearning(Algorithm[Config]):
    """Base of algorithms that learn q, and act by the best of it: write `class Mine(QLearning[MyConfig])` with a loss.

    The networks are `encoder`, `q_head`, and target networks of both, `target_encoder` and `target_q_head`. An
    `ensemble` among the config's settings is that of `offrl.networks.QHead`.
    """

    q_head: Any  # a QHead, unless make_q_head makes another one
    target_q_head: Any

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder and a head for q; target networks for both."""
        self.encoder = encoder(self.spec.observation_shape)
        self.q_head = self.make_q_head(feature_dim(self.encoder))
        self.target_encoder = frozen_copy(self.encoder)
        self.target_q_head = frozen_copy(self.q_head)

    def make_q_head(self, num_features: int) -> nn.Module:
        """From an observation's features to what is learned of each action."""
        return QHead(num_features, self.spec.num_actions, getattr(self.config, "ensemble", None))

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


class QuantileLearning(QLearning[Config]):
    """Base of Q-learning of quantiles of the returns: the config's `num_quantiles` for each action, whose mean is q."""

    def make_q_head(self, num_features: int) -> nn.Module:
        """The quantiles of each action."""
        return Head(num_features, self.spec.num_actions * self.num_quantiles)

    @property
    def num_quantiles(self) -> int:
        """Of each action's return."""
        config: Any = self.config
        return int(config.num_quantiles)

    def quantiles(self, observation: Tensor) -> Tensor:
        """The quantiles of the return of each action, in no order. [B, ...] -> [B, A, num_quantiles]."""
        return self.as_quantiles(self.q_head(self.encoder(observation)))

    def target_quantiles(self, observation: Tensor) -> Tensor:
        """Those of the target network."""
        return self.as_quantiles(self.target_q_head(self.target_encoder(observation)))

    def as_quantiles(self, output: Tensor) -> Tensor:
        """A head's output, action by action. [B, A * num_quantiles] -> [B, A, num_quantiles]."""
        return output.reshape(-1, self.spec.num_actions, self.num_quantiles)

    def values(self, observation: Tensor) -> Tensor:
        """q(s, .) of the online network. [B, ...] -> [B, A]."""
        return self.quantiles(observation).mean(dim=2)


class ActorCritic(QLearning[Config]):
    """Base of algorithms with a policy of their own beside q: `make_networks` adds a `policy_head` for its logits."""

    policy_head: nn.Module

    def forward(self, observation: Tensor) -> PolicyOutput:
        """The policy's logits rank the actions."""
        logits = self.policy_head(self.encoder(observation))
        return PolicyOutput(scores=logits, logits=logits)
