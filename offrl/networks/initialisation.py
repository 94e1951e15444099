"""The first weights of networks: drawn from a seed, by torch's own scheme or another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import nn

from offrl.checks import is_whole
from offrl.errors import ConfigError

Initialisation = Literal["kaiming", "xavier", "orthogonal"]


def require_seed(seed: Any, where: str) -> None:
    """Checks a seed of first weights.

    Raises:
        ConfigError: torch has no random numbers for it.
    """
    if not is_whole(seed) or not -(2**63) <= seed < 2**64:
        raise ConfigError(f"{seed!r}", where=where, expected="a whole number below 2**64")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Lets torch layers draw their first weights from `seed`, and leaves the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def initialise(network: nn.Module, scheme: Initialisation, *, seed: int = 0) -> None:
    """Draws the weights of all linear and convolutional layers anew; biases become 0.

    For an algorithm, call it before training and then `algorithm.copy_to_targets()`.

    Args:
        network: Changed in place.
        scheme: "kaiming" (arXiv:1502.01852, uniform, ReLU gain), "xavier" (Glorot & Bengio 2010, uniform) or
            "orthogonal" (arXiv:1312.6120, gain sqrt(2)).
        seed: Of the weights.

    Raises:
        ConfigError: An unknown scheme, or no seed.
    """
    require_seed(seed, "initialise.seed")
    if scheme not in get_args(Initialisation):
        raise ConfigError(f"{scheme!r}", where="initialise", expected=f"one of {get_args(Initialisation)}")
    with seeded(seed):
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                if scheme == "kaiming":
                    nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                elif scheme == "xavier":
                    nn.init.xavier_uniform_(module.weight)
                else:
                    nn.init.orthogonal_(module.weight, gain=math.sqrt(2))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
