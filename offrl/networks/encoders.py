"""From observations to features: the networks below the heads, and how weights begin."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from offrl.checks import is_whole
from offrl.errors import ConfigError


class Encoder(Protocol):
    """An nn.Module from normalised observations [B, C, H, W] or [B, D] to features [B, feature_dim]."""

    feature_dim: int

    def __call__(self, observation: Tensor) -> Tensor:
        """The features of each observation."""
        ...


EncoderFactory = Callable[[tuple[int, ...]], nn.Module]
"""Makes an Encoder for observations of the given shape: an encoder's class, or a functools.partial of one."""


_LEAST_FOR_NATURE = 36  # pixels in height and width
_LEAST_FOR_MINATAR = 3


class _ConvEncoder(nn.Module):
    """A stack of convolutions with ReLUs, flattened. Layers are (channels, kernel, stride)."""

    layers: tuple[tuple[int, int, int], ...]

    def __init__(self, observation_shape: tuple[int, ...]) -> None:
        super().__init__()
        _require_picture(type(self).__name__, observation_shape)
        channels, *size = observation_shape
        modules: list[nn.Module] = []
        for out_channels, kernel, stride in self.layers:
            modules += [nn.Conv2d(channels, out_channels, kernel, stride), nn.ReLU(inplace=True)]
            channels, size = out_channels, [(n - kernel) // stride + 1 for n in size]
            if min(size) < 1:
                raise ConfigError(
                    f"frames of {observation_shape[1:]} pixels",
                    where=type(self).__name__,
                    expected="larger ones",
                    hint="use MinAtarEncoder for small pictures"
                    if min(observation_shape[1:]) >= _LEAST_FOR_MINATAR
                    else "pass an encoder of your own",
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


class MinAtarEncoder(_ConvEncoder):
    """The convolution of MinAtar's baselines (arXiv:1903.03176), for small grids. [B, C, H, W] -> [B, feature_dim]."""

    layers = ((16, _LEAST_FOR_MINATAR, 1),)


class _Residual(nn.Module):
    """x plus two convolutions of it, a ReLU before each. [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # Not in place: x itself is added.
        change: Tensor = self.second(F.relu(self.first(F.relu(x))))
        return x + change


class ImpalaEncoder(nn.Module):
    """The residual network of IMPALA (arXiv:1802.01561, figure 3, right). [B, C, H, W] -> [B, feature_dim].

    Three blocks of 16, 32 and 32 channels: a 3 x 3 convolution, a 3 x 3 max-pool of stride 2, two residual blocks. Its
    layer of 256 units is left to the heads, which have one of 512. About 7 times the operations of NatureEncoder: for a
    GPU.
    """

    channels = (16, 32, 32)
    stem: int | None = None

    def __init__(self, observation_shape: tuple[int, ...]) -> None:
        super().__init__()
        _require_picture(type(self).__name__, observation_shape)
        inputs, *size = observation_shape
        blocks: list[nn.Module] = []
        if self.stem is not None:
            # Of 4 x 4 pixels and with a border of one, so that it halves the size, rounded down.
            blocks += [nn.Conv2d(inputs, self.stem, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
            inputs, size = self.stem, [n // 2 for n in size]
            if min(size) < 1:
                raise ConfigError(
                    f"frames of {observation_shape[1:]} pixels",
                    where=type(self).__name__,
                    expected="2 or more in height and width",
                    hint="use ImpalaEncoder, which takes pixels of any size",
                )
        for outputs in self.channels:
            # As in the paper a convolution keeps the size, and the pool halves it, rounded up.
            blocks += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
            blocks += [_Residual(outputs), _Residual(outputs)]
            inputs, size = outputs, [(n + 1) // 2 for n in size]
        self.network = nn.Sequential(*blocks, nn.ReLU(), nn.Flatten())
        self.feature_dim = inputs * math.prod(size)

    def forward(self, observation: Tensor) -> Tensor:
        """[B, ...] -> [B, feature_dim]."""
        features: Tensor = self.network(observation)
        return features


class ResidualEncoder(ImpalaEncoder):
    """ImpalaEncoder after a convolution that halves the pictures: for a CPU. [B, C, H, W] -> [B, feature_dim].

    A 4 x 4 convolution of 16 channels and stride 2, then the three blocks. About 2.4 times the operations of
    NatureEncoder.
    """

    stem = 16


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
        hidden = tuple(hidden)
        if not all(is_whole(size) and size >= 1 for size in hidden):
            raise ConfigError(f"{hidden!r}", where="MLPEncoder.hidden", expected="whole numbers, 1 or more")
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
    """MLPEncoder for vectors, NatureEncoder for pictures, MinAtarEncoder for those too small for it (under 36)."""
    if len(observation_shape) != 3:
        return MLPEncoder(observation_shape)
    is_small = min(observation_shape[1:]) < _LEAST_FOR_NATURE
    return MinAtarEncoder(observation_shape) if is_small else NatureEncoder(observation_shape)


def _require_picture(name: str, observation_shape: tuple[int, ...]) -> None:
    if len(observation_shape) != 3:
        raise ConfigError(
            f"observation shape {observation_shape}",
            where=name,
            expected="(C, H, W)",
            hint="use MLPEncoder for vectors",
        )


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
