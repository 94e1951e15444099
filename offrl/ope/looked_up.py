"""Networks with a value for each of several policies and each action, fitted to targets that are looked up by row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offrl.algorithms.algorithm import Algorithm, PolicyOutput
from offrl.networks import EncoderFactory
from offrl.networks.encoders import feature_dim
from offrl.networks.heads import Head
from offrl.ope.episodes import in_parts
from offrl.system.devices import exact_convolutions

Config = TypeVar("Config")


class LookedUp(Algorithm[Config]):
    """An encoder that K policies share, and a head for all their values.

    What is known of a transition beforehand, such as what each policy does next, is a table; `batch.index` says where.
    """

    needs = frozenset({"index"})

    @property
    @abstractmethod
    def num_policies(self) -> int:
        """K."""

    def make_networks(self, encoder: EncoderFactory) -> None:
        """Encoder and head."""
        self.encoder = encoder(self.spec.observation_shape)
        self.head = Head(feature_dim(self.encoder), self.num_policies * self.spec.num_actions)

    def policy_values(self, observation: Tensor) -> Tensor:
        """The values of every policy. [B, ...] -> [B, K, A]."""
        return self.split(self.head(self.encoder(observation)))

    def logged_values(self, observation: Tensor, action: Tensor) -> Tensor:
        """Those of the logged actions. [B, ...], [B] -> [B, K]."""
        values = self.policy_values(observation)
        return values.gather(2, action[:, None, None].expand(-1, self.num_policies, 1)).squeeze(2)

    def values(self, observation: Tensor) -> Tensor:
        """The mean over the policies, which is the value of one where it is alone. [B, ...] -> [B, A]."""
        return self.policy_values(observation).mean(dim=1)

    def forward(self, observation: Tensor) -> PolicyOutput:
        """Ranks the actions by `values`; what is evaluated are policies, this is none of them."""
        values = self.values(observation)
        return PolicyOutput(scores=values, logits=torch.zeros_like(values))

    def split(self, output: Tensor) -> Tensor:
        """What a head says, by policy. [B, K * A] -> [B, K, A]."""
        return output.reshape(-1, self.num_policies, self.spec.num_actions)


def read_values(
    model: LookedUp[Any], observations: Callable[[NDArray[np.int64]], NDArray[Any]], rows: NDArray[np.int64]
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """The values of all policies at the observations of some rows, a few hundred at a time.

    Args:
        model: As evaluation sees it.
        observations: Rows to raw observations, such as `store.observations`.
        rows: [N].

    Yields:
        A slice of the rows, and the values there, [n, K, A].
    """
    device = next(model.parameters()).device
    start = 0
    for part in in_parts(rows):
        with torch.inference_mode(), exact_convolutions(device):
            prepared = model.spec.normalise(torch.from_numpy(observations(part)).to(device))
            values = model.policy_values(prepared).double().cpu().numpy()
        yield slice(start, start + len(part)), values
        start += len(part)
