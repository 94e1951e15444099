"""Updates a second, data from disk included: ours, a plain loop and other libraries, in turns in one run."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch

from benchmarks import charts
from benchmarks.alternate import Way, WayError, alternate
from benchmarks.peers.environments import PEERS, PeerError, python_of
from benchmarks.stores import ROOT, car_racing_store
from offrl.runs import describe_machine
from offrl.system.json_files import write_json
from offrl.system.workers import num_cores
from offrl.training._autotune import shortest_seconds

RESULTS = ROOT / "benchmarks" / "results" / "train"
SMALLEST_MATRIX = 256
LONGEST_PRODUCT_SECONDS = 1.0
LONG = 10**9  # a run that ends when it is told to
OURS = {
    "offrl": "offrl",
    "offrl, one batch again and again": "ceiling",
    "offrl, float32": "float32",
    "offrl, CompactEncoder": "compact",
    "plain PyTorch": "plain",
}
ON_CUDA = {"offrl, eager": "eager"}
NOTES = {
    "offrl": "`offrl.fit`, frames memory-mapped (for a GPU in its memory), 3-step returns",
    "offrl, float32": 'the same with `precision="fp32"`',
    "offrl, one batch again and again": "the Learner without a data path: the ceiling",
    "offrl, CompactEncoder": "`offrl.fit` with the smaller network",
    "offrl, eager": "`offrl.fit`, neither compiled nor as CUDA graphs",
    "plain PyTorch": "`benchmarks/baseline.py`: eager, float32, our batches",
    "d3rlpy": "data in memory, float32, frames stacked by its own picker; its shared 512 units, 1-step returns",
    "d3rlpy, compile_graph": "the same with its CUDA graphs",
    "Tianshou": "data in memory, float32, frames stacked by its own buffer, 10-step returns",
    "notebook loop": "compressed npz of float32 stacks, DataLoader with one worker, the plain update, 1-step returns",
}


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


def measure(
    commands: dict[str, list[str]],
    updates: int,
    rounds: int,
    logs: Path,
    threads: int | None = None,
    clock: str = "seconds",
) -> dict[str, dict[str, Any]]:
    """For each way its rates and their ratios to the first way's; a peer that cannot start is left out with a word.

    Args:
        commands: what starts each way.
        updates: of a slice.
        rounds: slices of each way.
        logs: where the processes' stderr goes.
        threads: of each process; None takes the machine's cores.
        clock: "seconds" on the wall or "cpu_seconds" of the process.
    """
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        ways: dict[str, Way] = {}
        for name, command in commands.items():
            try:
                ways[name] = Way(command, logs / f"{name.replace(' ', '-').replace(',', '')}.log", threads)
            except WayError as error:
                if not name.startswith(tuple(PEERS)):
                    raise
                print(f"{name}: left out: {error}")
                continue
            stack.callback(ways[name].close)
        answers = alternate(ways, updates, rounds)
        about = {name: way.about for name, way in ways.items()}
    rates = {name: [updates / answer[clock] for answer in found] for name, found in answers.items()}
    first = next(iter(rates))
    return {
        name: {
            "updates_per_second": float(np.median(rates[name])),
            "rates": rates[name],
            "ratio": spread(np.divide(rates[first], rates[name])),
            "notes": NOTES.get(name, ""),
            **about[name],
            **{key: value for key, value in answers[name][-1].items() if not key.endswith("seconds")},
        }
        for name in rates
    }


def spread(ratios: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Median, smallest and largest."""
    low, middle, high = np.percentile(ratios, (0, 50, 100))
    return {"median": float(middle), "low": float(low), "high": float(high)}


class Roofline(NamedTuple):
    """What products of square matrices reach: 10^12 operations a second, and the size that reached it, by precision."""

    teraflops: dict[str, float]
    sizes: dict[str, int]


def matrix_roofline(device: str, largest: int) -> Roofline:
    """The roofline of an update, from matrices of `largest` rows, or of fewer where a product would take too long.

    The size is doubled from a small one: a processor without bf16 instructions may be a hundred times slower in bf16.
    """
    torch.set_num_threads(num_cores())
    teraflops, sizes = {}, {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        size = min(SMALLEST_MATRIX, largest)
        while True:
            one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
            seconds = shortest_seconds({name: partial(torch.mm, one, other)}, torch.device(device))[name]
            # Twice the rows are eight times the work.
            if 2 * size > largest or 8 * seconds > LONGEST_PRODUCT_SECONDS:
                break
            size *= 2
        teraflops[name] = 2 * size**3 / seconds / 1e12
        sizes[name] = size
    return Roofline(teraflops, sizes)


def show(ways: dict[str, dict[str, Any]]) -> None:
    """Prints the table."""
    first = next(iter(ways))
    print(f"\n{'':<34} {'updates/s':>10} {first + ' / it':>14}  {'of each round':<16} {'weights':>10}")
    for name, way in ways.items():
        ratio = way["ratio"]
        print(
            f"{name:<34} {way['updates_per_second']:10.2f} {ratio['median']:14.2f}  "
            f"{ratio['low']:.2f} to {ratio['high']:<8.2f} {way['parameters']:>10,}  {how(way)}"
        )


def how(way: Mapping[str, Any]) -> str:
    """The precision that a way of ours has settled on, whether it was compiled, and what it gets out of the machine."""
    if "gflop" not in way:
        return ""
    rate = way["updates_per_second"] * way["gflop"] / 1000
    return f"{way['precision']}{', compiled' if way['compile'] == 'on' else ''}, {rate:.3g} TFLOP/s"


@click.command()
@click.option("--peers", is_flag=True, help="d3rlpy, Tianshou and the usual notebook loop too; installs them once.")
@click.option("--updates", default=60, show_default=True, help="Of one slice; on a GPU take some thousands.")
@click.option("--rounds", default=7, show_default=True, help="Slices of each way; one more is for warming up.")
@click.option("--batch-size", default=128, show_default=True)
@click.option("--transitions", default=20_000, show_default=True, help="Of carracing/mixed, collected once.")
@click.option("--run-length", default=LONG, show_default=True, help="Updates of ours; few are not worth compiling.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--directory", default=ROOT / "data", type=click.Path(path_type=Path), help="Where the data is made.")
def train(
    peers: bool,
    updates: int,
    rounds: int,
    batch_size: int,
    transitions: int,
    run_length: int,
    device: str,
    directory: Path,
) -> None:
    """Updates/s end to end, in turns with a plain loop, our own ceiling and, with --peers, other libraries."""
    store = car_racing_store(directory.resolve(), transitions)
    common = {
        "store": store,
        "batch_size": batch_size,
        "updates": updates,
        "run_length": run_length,
        "device": device,
    }
    ours = OURS if device == "cpu" else {**OURS, **ON_CUDA}
    commands = {name: our_command(way, **common) for name, way in ours.items()}
    if peers:
        commands |= peer_commands(store, batch_size, device)
    found = measure(commands, updates, rounds, directory / "peers")
    show(found)
    roofline = matrix_roofline(device, 2048 if device == "cpu" else 16384)
    print(f"matrix products: {', '.join(f'{way} {rate:.3g} TFLOP/s' for way, rate in roofline.teraflops.items())}")
    machine = describe_machine()
    # A ratio holds on one kind of processor: each keeps its own.
    name = "-".join(re.findall(r"\w+", machine["processor"].lower())) if device == "cpu" else device.partition(":")[0]
    rates = {way: row["updates_per_second"] for way, row in found.items()}
    charts.bars(rates, "updates a second", RESULTS / f"{name}.png", [way for way in rates if way.startswith("offrl")])
    given = f"{' --peers' if peers else ''} --updates {updates} --rounds {rounds}"
    changed = {
        "--batch-size": (batch_size, 128),
        "--transitions": (transitions, 20_000),
        "--run-length": (run_length, LONG),
        "--device": (device, "cpu"),
    }
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
            "matrix_teraflops": roofline.teraflops,
            "matrix_sizes": roofline.sizes,
            "machine": machine,
        },
    )
