"""The one thing that replay hands to algorithms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B transitions of n steps each.

    Termination is decided where the data is read: `discount` is 0 where the episode terminated within the
    n steps, so no algorithm sees a "done". Truncated episodes still bootstrap, from their own last observation.

    Attributes:
        observation: [B, C, H, W] uint8 (pixels) or [B, D] float32; the Learner normalises it before the loss.
        action: [B] int64.
        reward: [B] float32, sum of discount**i * reward_i over k = min(n, steps left in the episode) steps.
        discount: [B] float32, discount**k, and 0 where the episode terminated within those k steps.
        next_observation: like `observation`, k steps on.
        action_mask: [B, A] bool, the legal actions, where the data has them.
        next_action_mask: [B, A] bool, the legal actions k steps on, where the data has them.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_observation: Tensor
    action_mask: Tensor | None = None
    next_action_mask: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`; the copy from pinned memory does not wait for the device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from where a GPU copies by itself."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        mapped: dict[str, Any] = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            mapped[field.name] = None if tensor is None else function(tensor)
        return Batch(**mapped)
