"""Random ensemble mixture (Agarwal et al. 2020, arXiv:1907.04543)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from offrl.algorithms.algorithm import Metrics
from offrl.algorithms.bases import QLearning
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.losses import max_q_target, random_mixture, select_action, td_loss
from offrl.networks.encoders import EncoderFactory
from offrl.networks.heads import Head


@dataclass(frozen=True)
class REMConfig:
    """Settings of REM.

    Attributes:
        num_heads: q's that are mixed, 1 to 10,000; they share all layers but the last. 1 is DQN without double
            Q-learning, 200 the paper's number.
    """

    num_heads: int = 200

    def __post_init__(self) -> None:
        Checks(self).whole("num_heads", least=1, most=10_000)


class REM(QLearning[REMConfig]):
    """Q-learning of a random convex combination of heads, another one in every update; it acts by their mean.

    `updates` counts the losses in training: the combination is a function of it and of the seed, so that it is saved
    with the weights, a resumed run has the same ones, and a CUDA graph does not replay the one that it was recorded
    with. Drawn from the batch's content instead, an algorithm that always sees the same rows would never mix anew.
    """

    name = "rem"
    updates: Tensor

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder and a head for q; target networks for both; the counter."""
        super().make_networks(encoder)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._random_mixture = _uncompiled_mixture()

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and sent to other processes: all but a function that neither can be."""
        return {name: value for name, value in vars(self).items() if name != "_random_mixture"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The inverse."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._random_mixture = _uncompiled_mixture()

    def make_q_head(self, num_features: int) -> nn.Module:
        """num_heads q's for each action."""
        return Head(num_features, self.config.num_heads * self.spec.num_actions)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Mean Huber loss of the mixed q(s, a) against the target of the same mixture."""
        mixture = self._random_mixture(self.updates, self.config.num_heads, self.seed).view(1, -1, 1)
        if self.training:
            self.updates += 1
        q = (mixture * self._heads(self.q_head(self.encoder(batch.observation)))).sum(dim=1)
        with torch.no_grad():
            next_heads = self._heads(self.target_q_head(self.target_encoder(batch.next_observation)))
            next_q = (mixture * next_heads).sum(dim=1)
            target = max_q_target(batch.reward, batch.discount, next_q, batch.next_action_mask)
        loss = td_loss(q, batch.action, target)
        return loss, {"q": select_action(q, batch.action).mean()}

    def _heads(self, output: Tensor) -> Tensor:
        return output.reshape(-1, self.config.num_heads, self.spec.num_actions)

    def values(self, observation: Tensor) -> Tensor:
        """q(s, .) of the online network, the mean of its heads. [B, ...] -> [B, A]."""
        return self._heads(self.q_head(self.encoder(observation))).mean(dim=1)


def _uncompiled_mixture() -> Callable[[Tensor, int, int], Tensor]:
    """`random_mixture` as it is: a compiled backward pass would compute it again, when the counter has gone on."""
    found: Callable[[Tensor, int, int], Tensor] = torch.compiler.disable(random_mixture)  # type: ignore[no-untyped-call]
    return found
