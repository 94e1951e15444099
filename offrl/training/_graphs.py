"""Several updates recorded as one CUDA graph: the device repeats them without asking Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from offrl.batch import Batch, FrameBatch

Update = Callable[[Batch | FrameBatch, Tensor, Tensor], None]
"""One update from its B transitions, augmentation draws [B, 2, 3] and step schedule [3]."""


def recorded(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """`run` as a graph, whose replay costs what the device needs and no launches; `run` itself if it cannot be one."""
    run()  # sets up what cannot be set up while recording
    graph = torch.cuda.CUDAGraph()
    try:
        with _recording(graph, device):
            run()
    except RuntimeError:
        return run
    return graph.replay


@contextmanager
def _recording(graph: torch.cuda.CUDAGraph, device: torch.device) -> Iterator[None]:
    with (
        torch.cuda.device(device),  # the current one need not be ours
        torch.cuda.stream(torch.cuda.current_stream(device)),  # a recording that fails leaves its own stream behind
        torch.cuda.graph(
            graph,
            stream=torch.cuda.Stream(device),  # type: ignore[no-untyped-call]
            capture_error_mode="thread_local",  # other threads may pin memory meanwhile
        ),
    ):
        yield


class UpdateGraph:
    """`count` updates as one graph. Recording runs none of them.

    A graph repeats kernels on the same memory. So what changes from replay to replay is copied into tensors of its
    own, and `update` must do everything else in place.

    Args:
        update: has been run before with the same shapes, so that nothing is left to be set up.
        batch: [count * B, ...] on the device; later ones must have its shapes and, if it has frames, the same ones.
        draws: [count, B, 2, 3], on the device.
        schedules: [count, 3], on the host: see `StepSchedule`.

    Raises:
        RuntimeError: `update` does what cannot be recorded, such as to wait for the device.
    """

    def __init__(self, update: Update, batch: Batch | FrameBatch, draws: Tensor, schedules: Tensor) -> None:
        self._batch = batch.map(torch.clone)
        self._draws = draws.clone()
        self._schedules = schedules.to(draws.device)
        self._graph = torch.cuda.CUDAGraph()
        with _recording(self._graph, draws.device):
            parts: list[Batch | FrameBatch] = [*self._batch.split(len(draws))]
            for part, draw, schedule in zip(parts, self._draws, self._schedules, strict=True):
                update(part, draw, schedule)

    def fits(self, batch: Batch | FrameBatch) -> bool:
        """Whether a batch has the shapes of the recorded one, and the same frames if it has any."""
        return self._batch.is_like(batch)

    def replay(self, batch: Batch | FrameBatch, draws: Tensor, schedules: Tensor) -> None:
        """The same updates on other data, which `fits`; returns before the device is done."""
        self._batch.copy_(batch)  # type: ignore[arg-type]  # `fits` has seen that both are of one kind
        self._draws.copy_(draws, non_blocking=True)
        self._schedules.copy_(schedules, non_blocking=True)
        self._graph.replay()
