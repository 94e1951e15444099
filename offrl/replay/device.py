"""Frames in a device's memory: batches are gathered and stacked there."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offrl.errors import ConfigError
from offrl.replay.indexing import stack_windows
from offrl.replay.store import FrameStore

_CHUNK_BYTES = 256 * 2**20  # copied at once, so that the host never holds the frames twice


class DeviceFrames:
    """All frames of a store on `device`; what it gathers is the same bytes as from the host.

    Args:
        store: the data.
        device: where to put its frames.

    Raises:
        ConfigError: they do not fit there.
    """

    def __init__(self, store: FrameStore, device: torch.device) -> None:
        self.device = device
        self._shape = store.spec.observation_shape
        self._stack = store.spec.stack
        frames = store.frames
        dtype = torch.uint8 if store.spec.is_pixels else torch.float32
        try:
            self._frames = torch.empty(frames.shape, dtype=dtype, device=device)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"the frames need {frames.nbytes / 2**30:.1f} GiB",
                where=f"tier='device' on {device}",
                expected="as much free memory there",
                mend="take tier='auto'",
            ) from error
        rows = max(1, _CHUNK_BYTES // max(frames[:1].nbytes, 1))
        for start in range(0, len(frames), rows):
            self._frames[start : start + rows] = torch.from_numpy(np.array(frames[start : start + rows]))

    def stacks(self, last: NDArray[np.int64], first: NDArray[np.int64]) -> Tensor:
        """The observations whose windows these are, [B, S, H, W] or [B, D] on the device; see `stack_windows`."""
        windows = torch.from_numpy(stack_windows(last, first, self._stack).ravel()).to(self.device, non_blocking=True)
        return self._frames.index_select(0, windows).reshape(len(last), *self._shape)


def fits_on(device: torch.device, store: FrameStore) -> bool:
    """Whether a store's frames take less than half of what is free on a CUDA device."""
    return device.type == "cuda" and store.frames.nbytes < torch.cuda.mem_get_info(device)[0] / 2
