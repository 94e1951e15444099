"""What happens to a raw batch on the device before the loss sees it: stacking, augmentation, normalisation."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from offrl.batch import Batch, FrameBatch
from offrl.spec import TaskSpec

_CACHED_VALUES = 2**20
"""Pixels that are prepared at a time on a CPU: 4 MiB as float32, which stay in the cache of most processors."""


@dataclass(frozen=True)
class Augmentation:
    """Random shifts (DrQ, arXiv:2004.13649) and brightness, one draw for all frames of a stack.

    What is drawn for a row depends on (seed, step, row) alone: not on the size of the batch, nor on the device.

    Attributes:
        shift: pictures move by up to so many pixels, in x and y apart; the pixels at the border are repeated.
        brightness: up to so many gray levels are added or taken away, within 0 .. 255.
        seed: 0 .. 2**64 - 1.
    """

    shift: int = 0
    brightness: int = 0
    seed: int = 0

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return self.shift > 0 or self.brightness > 0

    def draws(self, steps: range, batch_size: int) -> Tensor:
        """For each update the pixels along x and y and the gray levels of each row, once for either observation.

        int64 [len(steps), batch_size, 2, 3], on the host; without augmentation its last dimension is empty.
        """
        if not self:
            return torch.zeros((len(steps), batch_size, 2, 0), dtype=torch.int64)
        most = np.array([self.shift, self.shift, self.brightness])
        drawn = []
        for step in steps:
            # Far from what the sampler draws by the same seed and step: a shift must not follow from the row it is for.
            bits = np.random.Philox(key=np.array([self.seed, step], np.uint64), counter=[0, 0, 0, 1])
            generator = np.random.Generator(bits)
            # Row after row: a smaller batch draws the beginning of a larger one's.
            drawn.append(np.floor(generator.random((batch_size, 2, 3)) * (2 * most + 1)).astype(np.int64) - most)
        return torch.from_numpy(np.stack(drawn))

    def __call__(self, observation: Tensor, next_observation: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Both augmented, each by draws of its own [B, 2, 3]. Twice uint8 [B, C, H, W] -> the same, channels_last."""
        return self._change(observation, draws[:, 0]), self._change(next_observation, draws[:, 1])

    def _change(self, pictures: Tensor, draws: Tensor) -> Tensor:
        """`draws` [B, 3]: pixels along x and y, gray levels."""
        if self.shift > 0:
            count, _, height, width = pictures.shape
            rows = torch.arange(count, device=pictures.device)
            x = (torch.arange(width, device=pictures.device) + draws[:, 0:1]).clamp_(0, width - 1)
            y = (torch.arange(height, device=pictures.device) + draws[:, 1:2]).clamp_(0, height - 1)
            pictures = pictures[rows[:, None, None], :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
        if self.brightness > 0:
            brighter = pictures.to(torch.int16).add_(draws[:, 2].to(torch.int16)[:, None, None, None])
            pictures = brighter.clamp_(0, 255).to(torch.uint8)
        return pictures


class Preparation:
    """Makes of a raw batch what the loss sees: observations that are stacked, augmented, normalised, channels_last.

    Args:
        spec: The task.
        augmentation: Changes pictures at random.
        device: Where batches are: numbers for each feature are there before an update is compiled or recorded.
    """

    def __init__(self, spec: TaskSpec, augmentation: Augmentation, device: torch.device) -> None:
        self._spec = spec
        self._scale, self._offset = spec.scaling(torch.empty(0, device=device))
        self._augmentation = augmentation
        self._bf16_is_exact = _normalises_exactly(spec, torch.bfloat16)

    def __call__(self, batch: Batch | FrameBatch, draws: Tensor, precision: str) -> Batch:
        """The prepared batch; pixels are bf16 where the networks are and no gray is rounded by it."""
        stacked = batch.stacked()
        now, after = stacked.observation, stacked.next_observation
        if self._augmentation:
            now, after = self._augmentation(now, after, draws)
        dtype = torch.bfloat16 if precision == "bf16" and self._bf16_is_exact else torch.float32
        return replace(stacked, observation=self._normalise(now, dtype), next_observation=self._normalise(after, dtype))

    def _normalise(self, observation: Tensor, dtype: torch.dtype) -> Tensor:
        if observation.dim() != 4:
            return observation.to(dtype).mul(self._scale).add_(self._offset)
        if torch.compiler.is_compiling():  # becomes one pass, wherever it runs
            pixels = _four_planes_last(observation) if _is_four_planes(observation) else observation
            return self._spec.normalise(pixels.to(dtype)).contiguous(memory_format=torch.channels_last)
        if observation.device.type != "cpu":
            return self._spec.normalise(_planes_last(observation).permute(0, 3, 1, 2).to(dtype))
        count, channels, height, width = observation.shape
        prepared = torch.empty(count, height, width, channels, dtype=dtype)
        # Each part stays in the processor's cache through all four steps: one pass over memory in place of four.
        size = max(1, _CACHED_VALUES // (channels * height * width))
        for raw, part in zip(torch.split(observation, size), torch.split(prepared, size), strict=True):
            self._spec.normalise_(part.copy_(_planes_last(raw)))
        return prepared.permute(0, 3, 1, 2)


def _planes_last(pictures: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H, W, C] contiguous; bytes, so before one becomes two or four."""
    if pictures.is_contiguous(memory_format=torch.channels_last):
        return pictures.permute(0, 2, 3, 1)
    # Twice as fast as contiguous(memory_format=torch.channels_last).
    return torch.stack(pictures.unbind(1), dim=-1)


def _is_four_planes(pictures: Tensor) -> bool:
    """Whether `_four_planes_last` takes it: planes of bytes, one after the other, on a CPU."""
    is_plain = pictures.dtype == torch.uint8 and pictures.is_contiguous() and sys.byteorder == "little"
    return is_plain and pictures.device.type == "cpu" and pictures.shape[1] == 4


def _four_planes_last(pictures: Tensor) -> Tensor:
    """Bytes [B, 4, H, W] -> the same, channels_last, for the compiler: it vectorises shifts, but no copies of bytes.

    Four bytes of a pixel are one whole number. Otherwise the copy takes half of the compiled update of a small network.
    """
    first, second, third, fourth = (plane.to(torch.int32) for plane in pictures.unbind(1))
    words = first | (second << 8) | (third << 16) | (fourth << 24)
    return words.view(torch.uint8).view(*words.shape, 4).permute(0, 3, 1, 2)


def _normalises_exactly(spec: TaskSpec, dtype: torch.dtype) -> bool:
    """Whether pixels lose nothing by being normalised in `dtype`: gray / 128 - 1 fits into the 8 bits of bf16."""
    grays = torch.arange(256, dtype=torch.uint8)
    return spec.is_pixels and torch.equal(spec.normalise(grays.to(dtype)).float(), spec.normalise(grays))
