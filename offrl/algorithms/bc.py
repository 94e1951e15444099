"""Behaviour cloning: do what the data does. The floor that an offline algorithm has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from offrl.algorithms.algorithm import Algorithm, Metrics, PolicyOutput
from offrl.batch import Batch
from offrl.losses import imitation_accuracy, imitation_loss
from offrl.networks.encoders import EncoderFactory, feature_dim
from offrl.networks.heads import Head


@dataclass(frozen=True)
class BCConfig:
    """Behaviour cloning has no settings of its own."""


class BC(Algorithm[BCConfig]):
    """Behaviour cloning by cross-entropy (Pomerleau 1991)."""

    name = "bc"

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder, and a head for the logits of each action."""
        self.encoder = encoder(self.spec.observation_shape)
        self.imitation_head = Head(feature_dim(self.encoder), self.spec.num_actions)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Mean of -log G(a | s), G being over the legal actions."""
        logits = self.imitation_head(self.encoder(batch.observation))
        accuracy = imitation_accuracy(logits, batch.action, batch.action_mask)
        return imitation_loss(logits, batch.action, batch.action_mask), {"imitation_accuracy": accuracy}

    def forward(self, observation: Tensor) -> PolicyOutput:
        """The imitator's logits rank the actions and rule out the unlikely."""
        logits = self.imitation_head(self.encoder(observation))
        return PolicyOutput(scores=logits, logits=logits)
