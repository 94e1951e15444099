"""Frames where the update runs, which gathers and stacks its batches there."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from offrl.errors import ConfigError
from offrl.replay.store import FrameStore

_CHUNK_BYTES = 256 * 2**20  # copied at once, so that the host never holds the frames twice


def frames_on(device: torch.device, store: FrameStore) -> Tensor:
    """All frames of a store in a device's memory, uint8 [F, H, W] or float32 [F, D].

    Raises:
        ConfigError: they do not fit there.
    """
    frames = store.frames
    dtype = torch.uint8 if store.spec.is_pixels else torch.float32
    try:
        placed = torch.empty(frames.shape, dtype=dtype, device=device)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the frames need {frames.nbytes / 2**30:.1f} GiB",
            where=f"tier='device' on {device}",
            expected="as much free memory there",
            hint="take tier='auto'",
        ) from error
    rows = max(1, _CHUNK_BYTES // max(frames[:1].nbytes, 1))
    for start in range(0, len(frames), rows):
        placed[start : start + rows] = torch.from_numpy(
            np.array(store.frames_between(start, min(start + rows, len(frames))))
        )
    return placed


def frames_of(store: FrameStore) -> Tensor:
    """All frames of a store where they are: a tensor that shares their memory. Nothing may write to it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says so of a read-only memory map
        return torch.from_numpy(store.frames)


def fits_on(device: torch.device, store: FrameStore) -> bool:
    """Whether a store's frames take less than half of what is free on a CUDA device."""
    return device.type == "cuda" and store.frames.nbytes < torch.cuda.mem_get_info(device)[0] / 2
