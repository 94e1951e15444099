"""The small output networks on top of an encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Head(nn.Module):
    """One hidden ReLU layer, then a linear output. [B, feature_dim] -> [B, num_outputs] float32.

    The output layer runs in float32 also where the network runs in bf16: q values differ by less than bf16
    resolves, and the layer costs next to nothing.
    """

    def __init__(self, feature_dim: int, num_outputs: int, hidden: int = 512) -> None:
        super().__init__()
        self.hidden = nn.Linear(feature_dim, hidden)
        self.output = nn.Linear(hidden, num_outputs)

    def forward(self, features: Tensor) -> Tensor:
        """[B, feature_dim] -> [B, num_outputs] float32."""
        hidden = F.relu(self.hidden(features), inplace=True)  # nobody reads what was there before
        with torch.autocast(hidden.device.type, enabled=False):
            output: Tensor = self.output(hidden.to(self.output.weight.dtype))
        return output
