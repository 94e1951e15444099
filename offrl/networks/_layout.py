"""How pictures and convolutions lie in memory: channels last, which changes strides and no value."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn


def channels_last(pictures: Tensor) -> Tensor:
    """Pictures [B, C, H, W] as convolutions run fastest; of other shapes, the same."""
    return pictures.contiguous(memory_format=torch.channels_last) if pictures.dim() == 4 else pictures


def lay_channels_last(network: nn.Module) -> None:
    """The same of a network's parameters and buffers, in place."""
    for tensor in chain(network.parameters(), network.buffers()):
        tensor.data = channels_last(tensor.data)
