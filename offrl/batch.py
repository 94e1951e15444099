"""The one thing that replay hands to algorithms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
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
        frames: [F, H, W] uint8 or [F, D] float32 on a device, of which `observation` and `next_observation` are then
            rows, int64 [B, S]; `stacked` looks them up. None where they are the observations themselves.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_observation: Tensor
    action_mask: Tensor | None = None
    next_action_mask: Tensor | None = None
    frames: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`; the copy from pinned memory does not wait for the device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from where a GPU copies by itself."""
        return self.map(Tensor.pin_memory)

    def part(self, rows: slice) -> Batch:
        """Some of the transitions."""
        return self.map(lambda tensor: tensor[rows])

    def split(self, count: int) -> list[Batch]:
        """As many equal parts, in order."""
        size = len(self.action) // count
        return [self.part(slice(start, start + size)) for start in range(0, count * size, size)]

    def stacked(self) -> Batch:
        """The same batch with its observations, where they were rows of `frames`."""
        if self.frames is None:
            return self
        now, after = (_look_up(self.frames, rows) for rows in (self.observation, self.next_observation))
        return replace(self, observation=now, next_observation=after, frames=None)

    def is_like(self, other: Batch) -> bool:
        """Whether `copy_` can take the other one: the same tensors of the same shapes, the very same `frames`."""
        if self.frames is not other.frames:
            return False
        pairs = [(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)]
        return all(
            one is two is None or (one is not None and two is not None and one.shape == two.shape) for one, two in pairs
        )

    def copy_(self, other: Batch) -> None:
        """Overwrites this batch's tensors with those of another one of the same shapes."""
        for field in fields(self):
            tensor = getattr(self, field.name)
            if tensor is not None and field.name != "frames":
                tensor.copy_(getattr(other, field.name), non_blocking=True)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch whose tensors are the function's results; `frames`, which all batches share, stay as they are."""
        mapped: dict[str, Any] = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            mapped[field.name] = tensor if tensor is None or field.name == "frames" else function(tensor)
        return Batch(**mapped)


def _look_up(frames: Tensor, rows: Tensor) -> Tensor:
    found = frames.index_select(0, rows.flatten())
    if frames.dim() == 2:  # vectors are not stacked
        return found
    return found.reshape(*rows.shape, *frames.shape[1:])
