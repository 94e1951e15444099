"""The batches of the next updates, asked for or gathered ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from offrl.batch import Batch, FrameBatch
from offrl.replay.source import ReplaySource
from offrl.system.ranks import ALONE, Ranks

_BATCHES_AHEAD = 2


def plan_updates(start: int, stop: int, periods: Sequence[int], most: int) -> Iterator[range]:
    """The updates start .. stop-1 in groups of at most `most`, none across a multiple of one of the periods."""
    while start < stop:
        end = min(stop, start + most, *(start - start % period + period for period in periods))
        yield range(start, end)
        start = end


@contextmanager
def gathered_ahead(
    replay: ReplaySource, plan: Iterator[range], batch_size: int, device: torch.device, ranks: Ranks = ALONE
) -> Iterator[Iterator[tuple[Batch | FrameBatch, int]]]:
    """The batch of each group of updates, and how many they are; on several ranks, this rank's rows of each batch.

    The replay is asked to prefetch some batches ahead. For a GPU, and for a replay that wants it, a thread gathers
    them ahead, too; elsewhere the update has all cores busy, and a thread would stop it for longer than that takes.
    """
    rows = ranks.rows(batch_size)
    uses_thread = replay.gather_ahead or device.type != "cpu"

    def ask(steps: range) -> NDArray[np.int64]:
        indices = np.concatenate([replay.indices(step, batch_size)[rows] for step in steps])
        replay.prefetch(indices)
        return indices

    def load(steps: range) -> Batch | FrameBatch:
        batch = replay.gather(ask(steps))
        # What is on the device already needs no pinning.
        return batch.pin_memory() if device.type == "cuda" and not batch.action.is_cuda else batch

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="offrl-gather") as pool:
        pending: deque[tuple[range, NDArray[np.int64] | Future[Batch | FrameBatch]]] = deque()

        def batches() -> Iterator[tuple[Batch | FrameBatch, int]]:
            while True:
                for steps in islice(plan, _BATCHES_AHEAD + 1 - len(pending)):
                    pending.append((steps, pool.submit(load, steps) if uses_thread else ask(steps)))
                if not pending:
                    return
                steps, found = pending.popleft()
                yield (found.result() if isinstance(found, Future) else replay.gather(found)), len(steps)

        try:
            yield batches()
        finally:
            for _, found in pending:
                if isinstance(found, Future):
                    found.cancel()
