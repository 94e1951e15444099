"""Behaviour cloning: do what the data does. The floor that an offline algorithm has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from offrl.algorithms.algorithm import Algorithm, Metrics, PolicyOutput
from offrl.batch import Batch
from offrl.losses import imitation_loss
from offrl.networks.encoders import EncoderFactory, default_encoder, feature_dim
from offrl.networks.heads import Head
from offrl.networks.initialisation import Initialisation, initialise, require_initialisation, seeded
from offrl.spec import TaskSpec


@dataclass(frozen=True)
class BCConfig:
    """Settings of behaviour cloning.

    Attributes:
        initialisation: how weights begin, see `offrl.networks.initialise`.
    """

    initialisation: Initialisation = "default"

    def __post_init__(self) -> None:
        require_initialisation(self.initialisation)


class BC(Algorithm):
    """Behaviour cloning by cross-entropy (Pomerleau 1991)."""

    name = "bc"

    def __init__(
        self,
        spec: TaskSpec,
        config: BCConfig | None = None,
        *,
        encoder: EncoderFactory = default_encoder,
        seed: int = 0,
    ) -> None:
        config = BCConfig() if config is None else config
        super().__init__(spec, config)
        with seeded(seed):
            self.encoder = encoder(spec.observation_shape)
            self.imitation_head = Head(feature_dim(self.encoder), spec.num_actions)
            initialise(self, config.initialisation)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Mean of -log G(a | s)."""
        logits = self.imitation_head(self.encoder(batch.observation))
        loss = imitation_loss(logits, batch.action)
        accuracy = (logits.argmax(dim=1) == batch.action).float().mean()
        return loss, {"imitation_accuracy": accuracy}

    def forward(self, observation: Tensor) -> PolicyOutput:
        """The imitator's logits rank the actions and rule out the unlikely."""
        logits = self.imitation_head(self.encoder(observation))
        return PolicyOutput(scores=logits, logits=logits)
