"""How fast batches come from data that is larger than memory need be, and what they cost."""

from __future__ import annotations

import csv
import multiprocessing
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import offrl
from offrl.batch import Batch
from offrl.envs import car_racing
from offrl.files import write_json
from offrl.replay.indexing import n_step_returns, stack_windows
from offrl.replay.layouts import ShardRows
from offrl.replay.replay import Replay
from offrl.replay.store import FrameStore, IngestReport, Tier
from offrl.replay.writer import StoreWriter
from offrl.runs import describe_machine

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "data.json"
BATCH_SIZE = 128
EPISODE_STEPS = 1000


def noise_store(directory: Path, transitions: int) -> Path:
    """A store of episodes of 1000 steps whose 96 x 96 frames are noise, so that nothing can compress or repeat them."""
    path = directory / f"noise-{transitions}"
    if (path / "store.json").is_file():
        return path
    shutil.rmtree(path, ignore_errors=True)
    rng = np.random.default_rng(0)
    steps = np.arange(EPISODE_STEPS)
    with StoreWriter(path) as writer:
        for _ in tqdm(range(transitions // EPISODE_STEPS), "noise", unit="episode", leave=False):
            frames = rng.integers(2**64, size=((EPISODE_STEPS + 1) * 96 * 96 // 8), dtype=np.uint64)
            is_end = steps == EPISODE_STEPS - 1
            rows = ShardRows(
                observations=frames.view(np.uint8).reshape(-1, 96, 96),
                actions=rng.integers(25, size=EPISODE_STEPS),
                rewards=rng.normal(size=EPISODE_STEPS).astype(np.float32),
                terminated=is_end,
                truncated=np.zeros_like(is_end),
                last=steps,
                first=np.zeros_like(steps),
                next_last=steps + 1,
                next_first=np.zeros_like(steps),
                segment_end=np.full_like(steps, EPISODE_STEPS - 1),
                observation_shape=(4, 96, 96),
            )
            writer.append(rows, 25)
        counts = (writer.num_transitions, writer.num_segments, writer.num_frames)
        writer.finish(car_racing.spec(), IngestReport("frames", 1, *counts), fingerprint="noise")
    return path


def fancy_index_gather(store: FrameStore, rows: NDArray[np.int64], n_step: int) -> Batch:
    """The same batch by plain numpy: an index array of windows into the frames."""
    returns = n_step_returns(rows, store.rewards, store.terminated, store.segment_end, n_step, 0.97)
    last = returns.last_row
    stack = store.spec.stack
    return Batch(
        observation=torch.from_numpy(store.frames[stack_windows(store.last[rows], store.first[rows], stack)]),
        action=torch.from_numpy(store.actions[rows]),
        reward=torch.from_numpy(returns.reward),
        discount=torch.from_numpy(returns.discount),
        next_observation=torch.from_numpy(
            store.frames[stack_windows(store.next_last[last], store.next_first[last], stack)]
        ),
    )


def gathering(path: Path, tier: Tier, batches: int) -> dict[str, float]:
    """Batches/s of our gather and of plain numpy's, alternating, one thread; and that they are equal."""
    store = FrameStore.open(path, tier)
    replay = Replay(store, n_step=10, discount=0.97)
    seconds = np.zeros(2)
    for step in range(batches):
        rows = replay.indices(step, BATCH_SIZE)
        for way in (0, 1) if step % 2 else (1, 0):  # the first of the two pays for pages that are not in memory yet
            start = time.perf_counter()
            batch = replay.gather(rows) if way == 0 else fancy_index_gather(store, rows, 10)
            seconds[way] += time.perf_counter() - start
        if step == 0 and not torch.equal(batch.observation, replay.gather(rows).observation):
            raise SystemExit("the two ways differ")
    return {"ours": batches / seconds[0], "numpy": batches / seconds[1]}


def memory_kib() -> dict[str, int]:
    """Resident memory of this process by kind (Linux): RssFile is mapped file pages."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "Rss" in name}


def training(path: Path, tier: Tier, updates: int) -> dict[str, float]:
    """BCQ trained from a store: how long it waits for data, and its memory. In a process of its own."""
    torch.set_num_threads(len(__import__("os").sched_getaffinity(0)))
    replay = Replay(FrameStore.open(path, tier), n_step=10, discount=0.97)
    algorithm = offrl.DiscreteBCQ(replay.spec)
    start_bytes = read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        settings = offrl.FitConfig(updates=updates, batch_size=BATCH_SIZE, log_period=updates // 2)
        peak = _PeakMemory()
        offrl.fit(algorithm, replay, settings, run=run, loggers=[peak], device="cpu")
        with (run / "timings.csv").open(newline="") as file:
            last = list(csv.DictReader(file))[-1]
    return {
        "updates_per_second": float(last["updates_per_second"]),
        "data_wait": float(last["data_wait"]),
        "anonymous_mib": peak.kib["RssAnon"] / 1024,
        "mapped_file_mib": peak.kib["RssFile"] / 1024,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "read_mib": (read_bytes() - start_bytes) / 2**20,
    }


class _PeakMemory:
    """A logger that looks at the memory where a run logs."""

    def __init__(self) -> None:
        self.kib: dict[str, int] = {}

    def log(self, step: int, metrics: Any, timings: Any) -> None:
        found = memory_kib()
        self.kib = {name: max(kib, self.kib.get(name, 0)) for name, kib in found.items()}

    def close(self) -> None:
        """Nothing is open."""


def read_bytes() -> int:
    """Bytes that this process has had read from disk (Linux)."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))


def apart(function: Any, *arguments: Any) -> Any:
    """What the function returns in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


@click.command()
@click.option("--transitions", default=1_000_000, show_default=True, help="Of the large store; 9.2 kB each on disk.")
@click.option("--small", default=100_000, show_default=True, help="Of the store that fits into memory.")
@click.option("--batches", default=400, show_default=True, help="Gathered in each way.")
@click.option("--updates", default=200, show_default=True, help="Of training.")
@click.option("--directory", default=ROOT / "data", type=click.Path(path_type=Path), help="Where the stores are made.")
def data(transitions: int, small: int, batches: int, updates: int, directory: Path) -> None:
    """Batches/s and memory from a large and a small store of noise, beside plain numpy's fancy index."""
    directory.mkdir(parents=True, exist_ok=True)
    small_store, large_store = noise_store(directory, small), noise_store(directory, transitions)
    gather, train = {}, {}
    for label, path, tier in (
        (f"{small:,} transitions, RAM", small_store, "ram"),
        (f"{small:,} transitions, memory map", small_store, "mmap"),
        (f"{transitions:,} transitions, memory map", large_store, "mmap"),
    ):
        gather[label] = apart(gathering, path, tier, batches)
        ours, numpy = gather[label]["ours"], gather[label]["numpy"]
        print(f"{label:<40} {ours:8.1f} batches/s, numpy {numpy:8.1f}: {ours / numpy:.2f} times")
        train[label] = apart(training, path, tier, updates)
        print(
            f"{'':<40} training: {train[label]['updates_per_second']:.1f} updates/s, waits "
            f"{train[label]['data_wait']:.1%}, {train[label]['anonymous_mib']:,.0f} MiB without mapped file pages"
        )
    write_json(
        RESULTS,
        {
            "command": f"python -m benchmarks data --transitions {transitions} --small {small} --batches {batches} "
            f"--updates {updates}",
            "batch_size": BATCH_SIZE,
            "gather": gather,
            "train": train,
            "machine": describe_machine(),
        },
    )
