"""How weights begin: seeded, by torch's own scheme or another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import nn

from offrl.errors import ConfigError

Initialisation = Literal["default", "kaiming", "xavier", "orthogonal"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Lets torch layers draw their first weights from `seed`, and leaves the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def require_initialisation(scheme: str) -> None:
    """Checks a scheme's name, for the configs that hold one.

    Raises:
        ConfigError: an unknown scheme.
    """
    if scheme not in get_args(Initialisation):
        raise ConfigError(f"{scheme!r}", where="initialisation", expected=f"one of {get_args(Initialisation)}")


def initialise(network: nn.Module, scheme: Initialisation) -> None:
    """Draws the weights of all linear and convolutional layers anew; biases become 0.

    Args:
        network: changed in place.
        scheme: "default" leaves the layers as they were constructed (torch's own scheme, or a user's pretrained
            weights); "kaiming" (arXiv:1502.01852, uniform, ReLU gain), "xavier" (Glorot & Bengio 2010, uniform),
            "orthogonal" (arXiv:1312.6120, gain sqrt(2)).

    Raises:
        ConfigError: an unknown scheme.
    """
    require_initialisation(scheme)
    if scheme == "default":
        return
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            if scheme == "kaiming":
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            elif scheme == "xavier":
                nn.init.xavier_uniform_(module.weight)
            else:
                nn.init.orthogonal_(module.weight, gain=math.sqrt(2))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
