"""The small output networks on top of an encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ENSEMBLES = 'None, or "mean:N" or "min:N" of N heads, 1 to 100'
"""What `is_ensemble` allows, for messages."""
MOST_HEADS = 100


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


def is_ensemble(ensemble: object) -> bool:
    """Whether `QHead` takes it: None, or a text such as "min:2", which says how to reduce how many heads."""
    if not isinstance(ensemble, str):
        return ensemble is None
    reduction, _, size = ensemble.partition(":")
    return reduction in ("mean", "min") and size.isdecimal() and 1 <= int(size) <= MOST_HEADS


class QHead(Head):
    """A head for q, or an ensemble of them: separate heads on the same features. [B, feature_dim] -> [B, A] float32.

    What an ensemble says of an action is the mean of its heads (arXiv:1611.01929) or the least of them, which holds
    back where they disagree (arXiv:1802.09477). Each head is trained towards the same target, made of what the target
    network's ensemble says.

    Args:
        feature_dim: Of the encoder.
        num_actions: A.
        ensemble: "mean:5" or "min:2", with so many heads; None for a single one.
    """

    def __init__(self, feature_dim: int, num_actions: int, ensemble: str | None = None) -> None:
        super().__init__(feature_dim, num_actions)
        self.reduction, _, size = (ensemble or "mean:1").partition(":")
        # This head is the first of them, so that weights of a single one have the names that they always had.
        self.others = nn.ModuleList([Head(feature_dim, num_actions) for _ in range(int(size) - 1)])

    def members(self, features: Tensor) -> list[Tensor]:
        """What each head says. [B, feature_dim] -> a [B, A] for each."""
        return [super().forward(features), *(head(features) for head in self.others)]

    def reduce(self, members: list[Tensor]) -> Tensor:
        """What the ensemble says. A [B, A] of each head -> [B, A]."""
        if len(members) == 1:
            return members[0]
        stacked = torch.stack(members)
        return stacked.mean(dim=0) if self.reduction == "mean" else stacked.amin(dim=0)

    def forward(self, features: Tensor) -> Tensor:
        """[B, feature_dim] -> [B, A] float32."""
        return self.reduce(self.members(features))
