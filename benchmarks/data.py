"""How fast batches come from data of which only a part need be in memory, and what that costs."""

from __future__ import annotations

import csv
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import torch

import offrl
from benchmarks import charts
from benchmarks.batches import forget_pages, memory_kib, read_mib
from benchmarks.stores import ROOT, car_racing_store, noise_store
from benchmarks.train import measure, peer_commands
from offrl.replay import FrameStore, Replay
from offrl.replay.store import Tier
from offrl.runs import describe_machine
from offrl.system.json_files import write_json
from offrl.system.workers import num_cores

RESULTS = ROOT / "benchmarks" / "results" / "data.json"
BATCH_SIZE = 128
BATCHES_OF = {"d3rlpy": "d3rlpy's buffer", "notebook loop": "notebook's DataLoader"}
WAYS = {
    "offrl": "`Replay.gather`",
    "stack of fancy indices": "plain numpy: a fancy index for each of a stack's frames, and `np.stack`",
    "one fancy index": "plain numpy: `frames[windows]`, one index array for all frames of the batch",
}


def batch_commands(store: Path, tier: Tier) -> dict[str, list[str]]:
    """What starts each of our ways of gathering."""
    commands = zip(WAYS, ("ours", "stack", "index"), strict=True)
    options = ["--store", str(store), "--tier", tier, "--batch-size", str(BATCH_SIZE)]
    return {name: [sys.executable, "-m", "benchmarks.batches", way, *options] for name, way in commands}


def training(path: Path, tier: Tier, updates: int) -> dict[str, float]:
    """BCQ trained from a store: how long it waits for data, and its memory. In a process of its own."""
    torch.set_num_threads(num_cores())
    replay = Replay(FrameStore.open(path, tier), n_step=10, discount=0.97)
    forget_pages(path)
    algorithm = offrl.DiscreteBCQ(replay.spec)
    before = read_mib()
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
        "read_mib": read_mib() - before,
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


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def show_batches(ways: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints batches/s of each way, and how many times as fast the first one is."""
    for name, way in ways.items():
        ratio = way["ratio"]
        print(
            f"  {name:<26} {way['updates_per_second']:8.1f} batches/s, offrl is {ratio['median']:.2f} times as fast "
            f"({ratio['low']:.2f} to {ratio['high']:.2f})"
        )


@click.command()
@click.option("--peers", is_flag=True, help="d3rlpy's buffer and the usual notebook's DataLoader too.")
@click.option("--transitions", default=1_000_000, show_default=True, help="Of the large store; 9.2 kB each on disk.")
@click.option("--small", default=100_000, show_default=True, help="Of the store that fits into memory.")
@click.option("--batches", default=60, show_default=True, help="Of one slice.")
@click.option("--rounds", default=9, show_default=True, help="Slices of each way; one more is for warming up.")
@click.option("--updates", default=200, show_default=True, help="Of training.")
@click.option("--directory", default=ROOT / "data", type=click.Path(path_type=Path), help="Where the stores are made.")
def data(peers: bool, transitions: int, small: int, batches: int, rounds: int, updates: int, directory: Path) -> None:
    """Batches/s beside plain numpy, and what training from a large store waits, reads and holds in memory."""
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    stores = {size: noise_store(directory, size) for size in (small, transitions)}
    cases: tuple[tuple[str, int, Tier], ...] = (
        (f"{small:,} transitions in RAM", small, "ram"),
        (f"{small:,} transitions, memory map", small, "mmap"),
        (f"{transitions:,} transitions, memory map", transitions, "mmap"),
    )
    gathering, trained = {}, {}
    for label, size, tier in cases:
        print(label)
        gathering[label] = measure(batch_commands(stores[size], tier), batches, rounds, directory / "peers")
        show_batches(gathering[label])
        trained[label] = row = apart(training, stores[size], tier, updates)
        print(
            f"  training: {row['updates_per_second']:.1f} updates/s, waits {row['data_wait']:.1%}, reads "
            f"{row['read_mib']:,.0f} MiB, holds {row['anonymous_mib']:,.0f} MiB without mapped file pages"
        )
    if peers:
        real = car_racing_store(directory, 20_000)
        others = {
            name: command for name, command in peer_commands(real, BATCH_SIZE, "cpu").items() if name in BATCHES_OF
        }
        commands = {
            "offrl": batch_commands(real, "mmap")["offrl"],
            **{BATCHES_OF[name]: [*command, "--batches"] for name, command in others.items()},
        }
        label = "carracing/mixed, 20,000 transitions"
        print(label)
        gathering[label] = measure(commands, batches // 4, rounds, directory / "peers")
        show_batches(gathering[label])
    rates = {
        f"{way}: {label}": row["updates_per_second"] for label, ways in gathering.items() for way, row in ways.items()
    }
    ours = [name for name in rates if name.startswith("offrl:")]
    charts.bars(rates, "batches a second", RESULTS.with_suffix(".png"), ours)
    given = f"{' --peers' if peers else ''} --transitions {transitions} --small {small} --batches {batches}"
    write_json(
        RESULTS,
        {
            "command": f"python -m benchmarks data{given} --rounds {rounds} --updates {updates}",
            "batch_size": BATCH_SIZE,
            "ways": WAYS,
            "gathering": gathering,
            "training": trained,
            "machine": describe_machine(),
        },
    )
