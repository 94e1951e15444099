"""From observations to features: the networks below the heads, and how weights begin."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

from torch import Tensor, nn

from offrl.errors import ConfigError


class Encoder(Protocol):
    """An nn.Module from normalised observations [B, C, H, W] or [B, D] to features [B, feature_dim]."""

    feature_dim: int

    def __call__(self, observation: Tensor) -> Tensor:
        """The features of each observation."""
        ...


EncoderFactory = Callable[[tuple[int, ...]], nn.Module]
"""Makes an Encoder for observations of the given shape: an encoder's class, or a functools.partial of one."""


class _ConvEncoder(nn.Module):
    """A stack of convolutions with ReLUs, flattened. Layers are (channels, kernel, stride)."""

    layers: tuple[tuple[int, int, int], ...]

    def __init__(self, observation_shape: tuple[int, ...]) -> None:
        super().__init__()
        name = type(self).__name__
        if len(observation_shape) != 3:
            raise ConfigError(
                f"observation shape {observation_shape}",
                where=name,
                expected="(C, H, W)",
                hint="use MLPEncoder for vectors",
            )
        channels, *size = observation_shape
        modules: list[nn.Module] = []
        for out_channels, kernel, stride in self.layers:
            modules += [nn.Conv2d(channels, out_channels, kernel, stride), nn.ReLU(inplace=True)]
            channels, size = out_channels, [(n - kernel) // stride + 1 for n in size]
            if min(size) < 1:
                raise ConfigError(
                    f"frames of {observation_shape[1:]} pixels",
                    where=name,
                    expected="larger ones",
                    hint="pass an encoder of your own for small pictures",
                )
        self.network = nn.Sequential(*modules, nn.Flatten())
        self.feature_dim = channels * math.prod(size)

    def forward(self, observation: Tensor) -> Tensor:
        """[B, ...] -> [B, feature_dim]."""
        features: Tensor = self.network(observation)
        return features


class NatureEncoder(_ConvEncoder):
    """The three convolutions of DQN (doi:10.1038/nature14236). [B, C, H, W] -> [B, feature_dim]."""

    layers = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


class CompactEncoder(_ConvEncoder):
    """A small strided network, about 4 times fewer operations than NatureEncoder. [B, C, H, W] -> [B, feature_dim]."""

    layers = ((16, 8, 4), (32, 4, 2), (32, 3, 2))


class MLPEncoder(nn.Module):
    """Fully connected layers with ReLUs, for vectors. [B, D] -> [B, feature_dim]."""

    def __init__(self, observation_shape: tuple[int, ...], hidden: Sequence[int] = (256,)) -> None:
        super().__init__()
        if len(observation_shape) != 1:
            raise ConfigError(
                f"observation shape {observation_shape}",
                where="MLPEncoder",
                expected="(D,)",
                hint="use NatureEncoder or CompactEncoder for pixels",
            )
        sizes = [observation_shape[0], *hidden]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
        self.network = nn.Sequential(*layers)
        self.feature_dim = sizes[-1]

    def forward(self, observation: Tensor) -> Tensor:
        """[B, ...] -> [B, feature_dim]."""
        features: Tensor = self.network(observation)
        return features


def default_encoder(observation_shape: tuple[int, ...]) -> nn.Module:
    """NatureEncoder for pixels, MLPEncoder for vectors."""
    return NatureEncoder(observation_shape) if len(observation_shape) == 3 else MLPEncoder(observation_shape)


def feature_dim(encoder: nn.Module) -> int:
    """The size of an encoder's output, for the heads on top of it.

    Raises:
        ConfigError: the encoder does not say.
    """
    size = getattr(encoder, "feature_dim", None)
    if not isinstance(size, int):
        raise ConfigError(
            f"{type(encoder).__name__} has feature_dim {size!r}",
            where="encoder",
            expected="an int, the size of its output",
            hint="set self.feature_dim in its __init__",
        )
    return size
