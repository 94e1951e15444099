"""What a replay hands to algorithms: B transitions of n steps each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from offrl.checks import is_whole
from offrl.errors import ConfigError

Self = TypeVar("Self", bound="_Tensors")


class _Tensors:
    """What batches of either kind can do: the same operation on each of their tensors, [B, ...] or None."""

    shared: ClassVar[frozenset[str]] = frozenset()
    """Fields that all batches have in common; no operation touches them."""

    action: Tensor

    def __len__(self) -> int:
        """B, the number of transitions."""
        return len(self.action)

    def to(self: Self, device: torch.device | str) -> Self:
        """The same batch on `device`; the copy from pinned memory does not wait for the device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self: Self) -> Self:
        """The same batch in page-locked memory, from which a GPU copies without the processor."""
        return self.map(Tensor.pin_memory)

    def part(self: Self, rows: slice) -> Self:
        """Some of the transitions."""
        return self.map(lambda tensor: tensor[rows])

    def split(self: Self, count: int) -> list[Self]:
        """`count` equal parts, in order.

        Raises:
            ConfigError: the transitions cannot be divided by `count`.
        """
        if not is_whole(count) or count < 1:
            raise ConfigError(f"{count!r} parts", where="Batch.split", expected="1 or more, a whole number")
        size, rest = divmod(len(self), count)
        if rest or not size:
            raise ConfigError(f"{len(self)} transitions", where="Batch.split", expected=f"a multiple of {count}")
        return [self.part(slice(start, start + size)) for start in range(0, count * size, size)]

    def is_like(self, other: object) -> bool:
        """Whether `copy_` accepts the other batch: one of the same kind, with the same tensors of the same shapes."""
        if type(self) is not type(other):
            return False
        if any(getattr(self, name) is not getattr(other, name) for name in self.shared):
            return False
        pairs = [(getattr(self, name), getattr(other, name)) for name in self._names()]
        return all(
            one is two is None or (one is not None and two is not None and one.shape == two.shape) for one, two in pairs
        )

    def copy_(self: Self, other: Self) -> None:
        """Overwrites this batch's tensors with those of another one that it `is_like`."""
        for name in self._names():
            tensor = getattr(self, name)
            if tensor is not None:
                tensor.copy_(getattr(other, name), non_blocking=True)

    def map(self: Self, function: Callable[[Tensor], Tensor]) -> Self:
        """The batch whose tensors are the function's results; fields that are None stay None."""
        mapped: dict[str, Any] = {name: getattr(self, name) for name in self.shared}
        for name in self._names():
            tensor = getattr(self, name)
            mapped[name] = None if tensor is None else function(tensor)
        return type(self)(**mapped)

    def needed(self, name: str) -> Tensor:
        """The field of that name, which is optional and a loss cannot do without.

        Raises:
            ConfigError: The replay did not give it.
        """
        found: Tensor | None = getattr(self, name, None)
        if found is None:
            raise ConfigError(
                f"batches without {name}",
                where="replay",
                expected="batches that carry what the algorithm's loss reads",
                hint=f'open it with open_replay(..., include=["{name}"])',
            )
        return found

    def _names(self) -> list[str]:
        return [field.name for field in fields(self) if field.name not in self.shared]  # type: ignore[arg-type]


@dataclass(frozen=True)
class Batch(_Tensors):
    """B transitions of n steps each.

    Termination is decided where the data is read: `discount` is 0 where the episode terminated within the
    n steps, so no algorithm sees a "done". Truncated episodes still bootstrap, from their own last observation.

    Attributes:
        observation: [B, C, H, W] uint8 (pixels) or [B, D] float32; the Learner normalises it before the loss.
        action: [B] int64.
        reward: [B] float32, sum of discount**i * reward_i over k = min(n, steps left in the episode) steps.
        discount: [B] float32, discount**k, and 0 where the episode terminated within those k steps.
        next_observation: like `observation`, k steps on.
        action_mask: [B, A] bool, the actions that a policy may take, where the data or the replay's settings say so;
            None where it may take all. `action` need not be among them, see `offrl.losses.legal_or_logged`.
        next_action_mask: [B, A] bool, the same k steps on; None where `action_mask` is.
        next_action: [B] int64, the action logged k steps on, -1 where the log ends before it. This field and the next
            two are None unless the replay was asked for them (`ReplayConfig.include`).
        behaviour_probability: [B] float32, the probability with which the behaviour policy took `action`; NaN where
            the log does not say.
        index: [B] int64, the number of each transition in its replay.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_observation: Tensor
    action_mask: Tensor | None = None
    next_action_mask: Tensor | None = None
    next_action: Tensor | None = None
    behaviour_probability: Tensor | None = None
    index: Tensor | None = None

    def stacked(self) -> Batch:
        """This batch: its observations are complete."""
        return self


@dataclass(frozen=True)
class FrameBatch(_Tensors):
    """A batch whose observations are still single frames where the update runs, named by their rows there.

    `stacked` gathers and stacks them there: to a GPU only row numbers cross from the host, and on a CPU the update
    reads the memory map by itself.

    Attributes:
        frames: [F, H, W] or [F, C, H, W] uint8, or [F, D] float32: all frames of the dataset, shared by all batches.
        rows: [B, S] int64, the rows of `frames` that make each observation, oldest first.
        next_rows: [B, S] int64, the same for the next observation.
        action: see `Batch`, as for all that follow.
    """

    shared = frozenset({"frames"})

    frames: Tensor
    rows: Tensor
    next_rows: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    action_mask: Tensor | None = None
    next_action_mask: Tensor | None = None
    next_action: Tensor | None = None
    behaviour_probability: Tensor | None = None
    index: Tensor | None = None

    def stacked(self) -> Batch:
        """The batch with its observations."""
        rest = {name: getattr(self, name) for name in self._names() if name not in ("rows", "next_rows")}
        return Batch(
            observation=self._observations(self.rows), next_observation=self._observations(self.next_rows), **rest
        )

    def _observations(self, rows: Tensor) -> Tensor:
        found = self.frames.index_select(0, rows.flatten())
        if self.frames.dim() == 2:  # vectors are not stacked
            return found
        return found.reshape(len(rows), -1, *self.frames.shape[-2:])
