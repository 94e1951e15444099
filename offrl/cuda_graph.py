"""Several updates recorded as one CUDA graph: the device repeats them without asking Python."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from offrl.batch import Batch

Update = Callable[[Batch, Tensor, Tensor], None]
"""One update from its B transitions, augmentation draws [B, 2, 3] and pace [P]."""


class UpdateGraph:
    """`count` updates as one graph. Recording runs none of them.

    A graph repeats kernels on the same memory. So what changes from replay to replay is copied into tensors of its
    own, and `update` must do everything else in place.

    Args:
        update: has been run before with the same shapes, so that nothing is left to be set up.
        batch: [count * B, ...] on the device; later ones must have its shapes and, if it has frames, the same ones.
        draws: [count, B, 2, 3], on the device.
        paces: [count, P], on the host.

    Raises:
        RuntimeError: `update` does what cannot be recorded, such as to wait for the device.
    """

    def __init__(self, update: Update, batch: Batch, draws: Tensor, paces: Tensor) -> None:
        self._batch = batch.map(torch.clone)
        self._draws = draws.clone()
        self._paces = paces.to(draws.device)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            for part, draw, pace in zip(self._batch.split(len(draws)), self._draws, self._paces, strict=True):
                update(part, draw, pace)

    def replay(self, batch: Batch, draws: Tensor, paces: Tensor) -> None:
        """The same updates on other data, shaped as at construction; returns before the device is done."""
        self._batch.copy_(batch)
        self._draws.copy_(draws, non_blocking=True)
        self._paces.copy_(paces, non_blocking=True)
        self._graph.replay()
