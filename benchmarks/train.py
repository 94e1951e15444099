"""Updates a second, data from disk included: ours, a plain loop and other libraries, in turns in one run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import charts
from benchmarks.alternate import Way, WayError, alternate
from benchmarks.peers.environments import PEERS, PeerError, python_of
from offrl.files import write_json
from offrl.recipes import RECIPES
from offrl.replay.ingest import ingest
from offrl.runs import describe_machine
from offrl.workers import num_cores

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "train"
OURS = {
    "offrl": "offrl",
    "offrl, one batch again and again": "ceiling",
    "offrl, CompactEncoder": "compact",
    "plain PyTorch": "plain",
}
NOTES = {
    "offrl": "`offrl.fit`, frames memory-mapped, 10-step returns",
    "offrl, one batch again and again": "the Learner without a data path: the ceiling",
    "offrl, CompactEncoder": "`offrl.fit` with the smaller network",
    "plain PyTorch": "`benchmarks/baseline.py`: eager, float32, our batches",
    "d3rlpy": "data in memory, frames stacked by its own picker; its shared 512 units, 1-step returns",
    "d3rlpy, compile_graph": "the same with its CUDA graphs",
    "Tianshou": "data in memory, frames stacked by its own buffer, 10-step returns",
    "notebook loop": "compressed npz of float32 stacks, DataLoader with one worker, the plain update, 1-step returns",
}


def car_racing_store(directory: Path, transitions: int) -> Path:
    """A store of carracing/mixed, which is collected where it is missing."""
    shards = directory / f"carracing-mixed-{transitions}"
    if not (shards / "manifest.json").is_file():
        RECIPES["carracing/mixed"].collect(shards, transitions=transitions)
    return ingest(shards, tier="mmap").path


def our_command(way: str, **options: object) -> list[str]:
    """What starts one of our ways; the options are those of `benchmarks.ways`."""
    given = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return [sys.executable, "-m", "benchmarks.ways", way, *given]


def peer_commands(store: Path, batch_size: int, device: str) -> dict[str, list[str]]:
    """What starts each peer that can be installed; says of the others why not."""
    commands = {}
    for name, peer in PEERS.items():
        try:
            python = python_of(name)
        except PeerError as error:
            print(f"{name}: left out: {error}")
            continue
        script = str(ROOT / "benchmarks" / "peers" / peer.script)
        command = [str(python), script, str(store), "--batch-size", str(batch_size), "--device", device]
        commands[name] = command
        if name == "d3rlpy" and device != "cpu":
            commands["d3rlpy, compile_graph"] = [*command, "--compile"]
    return commands


def measure(commands: dict[str, list[str]], updates: int, rounds: int, logs: Path) -> dict[str, dict[str, Any]]:
    """For each way its rates and their ratios to the first way's; one that cannot start is left out with a word."""
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        ways: dict[str, Way] = {}
        for name, command in commands.items():
            try:
                ways[name] = Way(command, logs / f"{name.replace(' ', '-').replace(',', '')}.log")
            except WayError as error:
                if name in OURS:
                    raise
                print(f"{name}: left out: {error}")
                continue
            stack.callback(ways[name].close)
        answers = alternate(ways, updates, rounds)
        about = {name: way.about for name, way in ways.items()}
    rates = {name: [updates / answer["seconds"] for answer in found] for name, found in answers.items()}
    first = next(iter(rates))
    return {
        name: {
            "updates_per_second": float(np.median(rates[name])),
            "rates": rates[name],
            "ratio": spread(np.divide(rates[first], rates[name])),
            "notes": NOTES.get(name, ""),
            **about[name],
            **{key: value for key, value in answers[name][-1].items() if key != "seconds"},
        }
        for name in rates
    }


def spread(ratios: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Median, smallest and largest."""
    low, middle, high = np.percentile(ratios, (0, 50, 100))
    return {"median": float(middle), "low": float(low), "high": float(high)}


def show(ways: dict[str, dict[str, Any]]) -> None:
    """Prints the table."""
    first = next(iter(ways))
    print(f"\n{'':<34} {'updates/s':>10} {first + ' / it':>14}  {'of each round':<16} {'weights':>10}")
    for name, way in ways.items():
        ratio = way["ratio"]
        print(
            f"{name:<34} {way['updates_per_second']:10.2f} {ratio['median']:14.2f}  "
            f"{ratio['low']:.2f} to {ratio['high']:<8.2f} {way['parameters']:>10,}"
        )


@click.command()
@click.option("--peers", is_flag=True, help="d3rlpy, Tianshou and the usual notebook loop too; installs them once.")
@click.option("--updates", default=60, show_default=True, help="Of one slice.")
@click.option("--rounds", default=7, show_default=True, help="Slices of each way; one more is for warming up.")
@click.option("--batch-size", default=128, show_default=True)
@click.option("--transitions", default=20_000, show_default=True, help="Of carracing/mixed, collected once.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--directory", default=ROOT / "data", type=click.Path(path_type=Path), help="Where the data is made.")
def train(
    peers: bool, updates: int, rounds: int, batch_size: int, transitions: int, device: str, directory: Path
) -> None:
    """Updates/s end to end, in turns with a plain loop, our own ceiling and, with --peers, other libraries."""
    store = car_racing_store(directory.resolve(), transitions)
    common = {"store": store, "batch_size": batch_size, "updates": updates, "device": device}
    commands = {name: our_command(way, **common) for name, way in OURS.items()}
    if peers:
        commands |= peer_commands(store, batch_size, device)
    found = measure(commands, updates, rounds, directory / "peers")
    show(found)
    name = "results" if device == "cpu" else device.partition(":")[0]
    rates = {way: row["updates_per_second"] for way, row in found.items()}
    ours = [way for way in rates if way.startswith("offrl")]
    charts.bars(rates, "updates a second", RESULTS / f"{name}.png", ours)
    given = f"{' --peers' if peers else ''} --updates {updates} --rounds {rounds}"
    changed = {"--batch-size": (batch_size, 128), "--transitions": (transitions, 20_000), "--device": (device, "cpu")}
    given += "".join(f" {option} {value}" for option, (value, default) in changed.items() if value != default)
    write_json(
        RESULTS / f"{name}.json",
        {
            "command": f"python -m benchmarks train{given}",
            "batch_size": batch_size,
            "observation": [4, 96, 96],
            "actions": 25,
            "transitions": transitions,
            "threads": num_cores(),
            "device": device,
            "ways": found,
            "machine": describe_machine(),
        },
    )
