"""Pixel augmentation on the device: pictures are changed in ways that a policy should not care about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


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
