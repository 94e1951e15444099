"""The batches of the next updates, asked for or gathered ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from offrl.batch import Batch
from offrl.replay.source import ReplaySource

_BATCHES_AHEAD = 2


Gather = Callable[[NDArray[np.int64]], Batch]


def _plan(start: int, stop: int, periods: Sequence[int], most: int) -> Iterator[range]:
    """The updates start .. stop-1 in groups of at most `most`, none across a multiple of one of the periods."""
    while start < stop:
        end = min(stop, start + most, *(start - start % period + period for period in periods))
        yield range(start, end)
        start = end


@contextmanager
def _gathered_ahead(
    replay: ReplaySource, gather: Gather, plan: Iterator[range], batch_size: int, device: torch.device
) -> Iterator[Iterator[tuple[Batch, int]]]:
    """The batch of each group of updates, and how many they are.

    What is on disk is asked for some batches ahead. For a GPU a thread gathers them ahead, too; where the learner has
    all cores busy, that would stop it for longer than the copy takes, and it gathers them itself.
    """
    prefetch = getattr(replay, "prefetch", None)
    uses_thread = prefetch is None or device.type != "cpu"

    def ask(steps: range) -> NDArray[np.int64]:
        indices = np.concatenate([replay.indices(step, batch_size) for step in steps])
        if prefetch is not None:
            prefetch(indices)
        return indices

    def load(steps: range) -> Batch:
        batch = gather(ask(steps))
        # What is on the device already needs no pinning.
        return batch.pin_memory() if device.type == "cuda" and not batch.action.is_cuda else batch

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="offrl-gather") as pool:
        pending: deque[tuple[range, NDArray[np.int64] | Future[Batch]]] = deque()

        def batches() -> Iterator[tuple[Batch, int]]:
            while True:
                for steps in islice(plan, _BATCHES_AHEAD + 1 - len(pending)):
                    pending.append((steps, pool.submit(load, steps) if uses_thread else ask(steps)))
                if not pending:
                    return
                steps, found = pending.popleft()
                yield (found.result() if isinstance(found, Future) else gather(found)), len(steps)

        try:
            yield batches()
        finally:
            for _, found in pending:
                if isinstance(found, Future):
                    found.cancel()
