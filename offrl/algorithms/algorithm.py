"""What every algorithm is: a module with a loss, and nothing about how that loss is run."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

from torch import Tensor, nn

from offrl.batch import Batch
from offrl.errors import ConfigError, OfflineRLError
from offrl.spec import TaskSpec

Metrics = Mapping[str, Tensor]
"""Detached 0-d tensors on the device of the loss; reading one on the host is the logger's business."""


class PolicyOutput(NamedTuple):
    """What a policy acts on, the same for every algorithm: see `offrl.losses.greedy_actions`."""

    scores: Tensor
    """[B, A] float32: the greedy action has the best score among the likely actions."""
    logits: Tensor
    """[B, A] float32: which actions are likely; all zero where the algorithm rules none out."""


class Algorithm(nn.Module, ABC):
    """Base of all algorithms; a subclass brings a frozen config, its networks, a loss and what its policy acts on.

    The observations that `loss`, `forward` and `values` see are normalised (`TaskSpec.normalise`). Networks may
    run in bf16, and pixels come in it where that rounds no gray; q, logits and losses are float32
    (`offrl.networks.Head` sees to it).

    Attributes:
        name: what the algorithm is called in runs and tables.
        spec: the task.
        config: the algorithm's frozen dataclass.
        threshold: the likelihood threshold its policy acts with, see `offrl.losses.greedy_actions`.
    """

    name: ClassVar[str]
    threshold: float = 0.0

    def __init__(self, spec: TaskSpec, config: Any) -> None:
        super().__init__()
        self.spec = spec
        self.config = config

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """The loss [] of a prepared batch, and metrics to log beside it.

        On a CUDA device it is recorded once and then replayed: what changes from update to update must be a tensor.
        """

    @abstractmethod
    def forward(self, observation: Tensor) -> PolicyOutput:
        """What the policy acts on. [B, ...] -> scores [B, A], logits [B, A]."""

    def values(self, observation: Tensor) -> Tensor:
        """Q values. [B, ...] -> [B, A].

        Raises:
            OfflineRLError: the algorithm learns no values.
        """
        raise OfflineRLError(f"{self.name} learns no values", hint="use an algorithm with q, such as DiscreteBCQ")

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """(online, target) pairs of networks; the Learner moves each target after its online network."""
        return []


Network = TypeVar("Network")


def frozen_copy(network: Network) -> Network:
    """A target network: equal at first, never trained by gradients.

    Raises:
        ConfigError: `network` is no nn.Module.
    """
    target = copy.deepcopy(network)
    if not isinstance(target, nn.Module):
        raise ConfigError(f"{type(network).__name__}", where="target network", expected="an nn.Module")
    target.requires_grad_(False)
    return target
