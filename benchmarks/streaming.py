"""Training from shards that pass through a cache a tenth of their size, beside training from all of them on disk."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import offrl
from benchmarks.batches import memory_kib
from benchmarks.data import apart
from benchmarks.stores import ROOT
from offrl.envs import car_racing
from offrl.replay.streaming.source import StreamingReplay
from offrl.runs import describe_machine
from offrl.shards import Episode, Manifest
from offrl.shards._file_systems import _Remote
from offrl.shards.episode import write_shards
from offrl.system.json_files import write_json
from offrl.system.workers import num_cores

RESULTS = ROOT / "benchmarks" / "results" / "streaming.json"
BATCH_SIZE = 128
SHARE = 10  # the cache is a tenth of the data
NUM_SHARDS = 800  # a window takes half of the cache, and half of that are shards: a fortieth of the data, 20 shards
LOGS = 16  # in a run; the first one, with all that happens once, does not count


def noise_shards(directory: Path, transitions: int) -> Path:
    """Shards of an episode each, whose 96 x 96 frames are noise, so that nothing can compress or repeat them."""
    path = directory / f"noise-shards-{transitions}"
    if (path / "manifest.json").is_file():
        return path
    path.mkdir(parents=True, exist_ok=True)
    records = write_shards(path, _episodes(transitions), compress=False, shard_bytes=1)
    Manifest(car_racing.spec(), records, {}, {"name": "noise"}).save(path)
    return path


def _episodes(transitions: int) -> Iterator[Episode]:
    rng = np.random.default_rng(0)
    steps = max(1, transitions // NUM_SHARDS)
    for _ in range(NUM_SHARDS):
        frames = rng.integers(2**64, size=((steps + 1) * 96 * 96 // 8), dtype=np.uint64)
        yield Episode(
            observations=frames.view(np.uint8).reshape(-1, 96, 96),
            actions=rng.integers(25, size=steps),
            rewards=rng.normal(size=steps).astype(np.float32),
            terminated=True,
            truncated=False,
        )


class _Watch:
    """A logger that looks at the clock, the memory and the cache where a run logs."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.cache_bytes, self.anonymous_kib = cache, 0, 0
        self.moments: list[tuple[int, float]] = []
        self.waits: list[float] = []

    def log(self, step: int, metrics: Any, timings: Any) -> None:
        self.moments.append((step, time.perf_counter()))
        self.waits.append(timings["data_wait"])
        self.anonymous_kib = max(self.anonymous_kib, memory_kib()["RssAnon"])
        self.cache_bytes = max(self.cache_bytes, size_of(self.cache))

    def close(self) -> None:
        """Nothing is open."""

    def rate(self) -> float:
        """Updates a second, from the first log on."""
        (first, start), (last, end) = self.moments[0], self.moments[-1]
        return (last - first) / (end - start)


def size_of(directory: Path) -> int:
    """Bytes of all files in a directory in which another thread is at work."""
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(root) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def training(shards: Path, stream: int | None, updates: int) -> dict[str, float]:
    """BCQ trained on the shards: its speed, its memory, and what was fetched. In a process of its own."""
    torch.set_num_threads(num_cores())
    fetched = 0
    fetch = _Remote.fetch

    def counted(self: _Remote, name: str, target: Path, *rest: Any) -> str:
        nonlocal fetched
        version = fetch(self, name, target, *rest)
        fetched += target.stat().st_size
        return version

    _Remote.fetch = counted  # type: ignore[method-assign, assignment]
    with tempfile.TemporaryDirectory(dir=shards.parent) as folder:
        cache = Path(folder) if stream is not None else shards.parent / "cache"  # a store is made once for all rounds
        settings: dict[str, Any] = {"n_step": 10, "discount": 0.97, "cache": cache, "progress": False}
        replay = offrl.open_replay(shards, stream=stream, tier="mmap", **settings)
        config = offrl.FitConfig(updates=updates, batch_size=BATCH_SIZE, log_period=max(1, updates // LOGS))
        watch = _Watch(Path(folder))
        offrl.fit(offrl.DiscreteBCQ(replay.spec), replay, config, loggers=[watch], device="cpu")
        if isinstance(replay, StreamingReplay):
            replay.close()
    return {
        "updates_per_second": watch.rate(),
        "data_wait": statistics.mean(watch.waits[1:]),
        "anonymous_mib": watch.anonymous_kib / 1024,
        "cache_bytes": watch.cache_bytes,
        "fetched_bytes": fetched,
    }


@click.command()
@click.option("--transitions", default=200_000, show_default=True, help="9.2 kB each on disk.")
@click.option("--rounds", default=1, show_default=True, help="Runs of each way, in turns.")
@click.option("--updates", type=int, help="Of a run; default: one pass over the data.")
@click.option("--directory", default=ROOT / "data", type=click.Path(path_type=Path), help="Where the data are made.")
def streaming(transitions: int, rounds: int, updates: int | None, directory: Path) -> None:
    """Training through a cache a tenth of the data: its speed, what it fetches, its memory."""
    shards = noise_shards(directory.resolve(), transitions)
    total = sum(path.stat().st_size for path in shards.glob("*.npz"))
    stream = total // SHARE
    updates = updates or transitions // BATCH_SIZE
    rows: dict[str, list[dict[str, float]]] = {"local": [], "streamed": []}
    offrl.open_replay(shards, cache=shards.parent / "cache", tier="mmap")  # ingested before anything is timed
    for number in range(rounds):
        for name, size in (("local", None), ("streamed", stream)):
            row = apart(training, shards, size, updates)
            rows[name].append(row)
            print(
                f"{number + 1}/{rounds} {name:<9} {row['updates_per_second']:6.2f} updates/s, waits for data "
                f"{row['data_wait']:.1%}, {row['anonymous_mib']:,.0f} MiB, {row['fetched_bytes'] / 1e6:,.0f} MB fetched"
            )
    pairs = zip(rows["streamed"], rows["local"], strict=True)
    rate = statistics.median(ours["updates_per_second"] / theirs["updates_per_second"] for ours, theirs in pairs)
    used = total * updates * BATCH_SIZE / transitions
    per_byte = statistics.median(row["fetched_bytes"] for row in rows["streamed"]) / used
    largest = max(row["cache_bytes"] for row in rows["streamed"])
    print(
        f"streamed / local {rate:.3f} (bar: at least 0.8); {per_byte:.3f} bytes fetched for each byte used (bar: at "
        f"most 1.3); the cache held at most {largest / 1e6:,.1f} of {stream / 1e6:,.1f} MB"
    )
    write_json(
        RESULTS,
        {
            "command": f"python -m benchmarks streaming --transitions {transitions} --rounds {rounds} "
            f"--updates {updates}",
            "data_bytes": total,
            "cache_limit_bytes": stream,
            "largest_cache_bytes": largest,
            "batch_size": BATCH_SIZE,
            "rows": rows,
            "rate_to_local": rate,
            "fetched_for_each_byte_used": per_byte,
            "machine": describe_machine(),
        },
    )
