"""Ways of gathering batches from a store, each served by a process of its own: python -m benchmarks.batches NAME."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.protocol import Channel, serve
from offrl import Batch
from offrl.replay import FrameStore, Replay, Sampler
from offrl.replay._windows import n_step_returns, stack_windows
from offrl.replay.store import Tier
from offrl.system.memory import keep_freed_memory

N_STEP, DISCOUNT = 10, 0.97
Stacks = Callable[[FrameStore, NDArray[np.int64], NDArray[np.int64]], NDArray[Any]]


def ours(store: FrameStore) -> Callable[[int, int], Batch]:
    """`Replay.gather`, in a process that keeps freed memory, as the Learner makes every run's process do."""
    keep_freed_memory()
    replay = Replay(store, n_step=N_STEP, discount=DISCOUNT)
    return lambda step, size: replay.gather(replay.indices(step, size))


def plain(store: FrameStore, stacks: Stacks) -> Callable[[int, int], Batch]:
    """The same batch by plain numpy."""
    sampler = Sampler(len(store), 0)

    def gather(step: int, size: int) -> Batch:
        rows = sampler.indices(step, size)
        returns = n_step_returns(rows, store.rewards, store.terminated, store.segment_end, N_STEP, DISCOUNT)
        last = returns.last_row
        return Batch(
            observation=torch.from_numpy(stacks(store, store.last[rows], store.first[rows])),
            action=torch.from_numpy(store.actions[rows]),
            reward=torch.from_numpy(returns.reward),
            discount=torch.from_numpy(returns.discount),
            next_observation=torch.from_numpy(stacks(store, store.next_last[last], store.next_first[last])),
        )

    return gather


def stack_of_fancy_indices(store: FrameStore, last: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[Any]:
    """One fancy index for each of a stack's frames, and np.stack."""
    oldest = store.spec.stack - 1
    return np.stack([store.frames[np.maximum(last - age, first)] for age in range(oldest, -1, -1)], axis=1)


def one_fancy_index(store: FrameStore, last: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[Any]:
    """One fancy index with the whole window of every stack."""
    found: NDArray[Any] = store.frames[stack_windows(last, first, store.spec.stack)]
    return found


WAYS: dict[str, Callable[[FrameStore], Callable[[int, int], Batch]]] = {
    "ours": ours,
    "stack": lambda store: plain(store, stack_of_fancy_indices),
    "index": lambda store: plain(store, one_fancy_index),
}


def memory_kib() -> dict[str, int]:
    """Resident memory of this process by kind (Linux): RssFile is mapped file pages."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "Rss" in name}


def read_mib() -> float:
    """What this process has had read from disk (Linux)."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes"))) / 2**20


def forget_pages(path: Path) -> None:
    """Lets the system drop what it holds of a store in memory, so that it is read from disk again."""
    for file in path.glob("*.npy"):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # what is not yet written cannot be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def read_all(path: Path) -> None:
    """Reads a store's files, so that the system holds of them in memory what fits."""
    for file in path.glob("*.npy"):
        with file.open("rb") as opened:
            while opened.read(2**24):
                pass


@click.command()
@click.argument("name", type=click.Choice(list(WAYS)))
@click.option("--store", "path", type=click.Path(path_type=Path), required=True)
@click.option("--batch-size", default=128)
@click.option("--tier", default="mmap")
def main(name: str, path: Path, batch_size: int, tier: Tier) -> None:
    """Serves slices of batches until stdin closes."""
    torch.set_num_threads(1)
    gather = WAYS[name](FrameStore.open(path, tier))
    step = 0

    def run(count: int) -> dict[str, Any]:
        nonlocal step
        before = read_mib()
        for _ in range(count):
            gather(step, batch_size)
            step += 1
        return {"memory_mib": memory_kib()["RssAnon"] / 1024, "read_mib": read_mib() - before}

    serve(Channel(), {"parameters": 0}, run)


if __name__ == "__main__":
    main()
