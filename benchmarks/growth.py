"""What growth costs: more data, a larger batch, more actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmarks import charts
from benchmarks.batches import forget_pages, read_all
from benchmarks.stores import ROOT, noise_store
from benchmarks.train import LONG, measure, our_command
from offrl.runs import describe_machine
from offrl.system.json_files import write_json
from offrl.system.workers import num_cores

RESULTS = ROOT / "benchmarks" / "results" / "growth"
BATCH_SIZES = (32, 64, 128, 256, 512)
NUM_ACTIONS = (5, 25, 100, 400)


def cost(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Updates/s, milliseconds of an update and memory, of each way."""
    return {
        name: {
            "updates_per_second": way["updates_per_second"],
            "milliseconds": 1000 / way["updates_per_second"],
            "memory_mib": way["memory_mib"],
        }
        for name, way in found.items()
    }


def draw(axes: dict[str, tuple[str, dict[str, dict[str, float]]]], path: Path) -> Path:
    """Time above, memory below, a column for each of the three."""
    rows = []
    for key, unit in (("milliseconds", "ms an update"), ("memory_mib", "MiB of memory")):
        rows.append(
            {
                title: (label, unit, {float(x): y[key] for x, y in points.items()})
                for title, (label, points) in axes.items()
            }
        )
    return charts.curves(rows, path)


@click.command()
@click.option("--sizes", default="10000,100000,1000000", show_default=True, help="Transitions; 9.2 kB each on disk.")
@click.option("--updates", default=50, show_default=True, help="Of one slice.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--run-length", default=LONG, show_default=True, help="Updates of ours; few are not worth compiling.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--directory", default=ROOT / "data", type=click.Path(path_type=Path), help="Where the stores are made.")
def growth(sizes: str, updates: int, rounds: int, run_length: int, device: str, directory: Path) -> None:
    """Time and memory of an update against the data's size, the batch's size and the number of actions.

    The data's files are read once before, as in a run that has seen them; then the smallest and the largest are
    measured again with nothing of them in memory.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    common = {"updates": updates, "run_length": run_length, "device": device}
    stores = {size: noise_store(directory, int(size)) for size in sizes.split(",")}
    from_disk = {size: our_command("offrl", store=store, **common) for size, store in stores.items()}
    commands: dict[str, dict[str, list[str]]] = {
        "transitions": from_disk,
        "transitions_not_in_memory": {size: from_disk[size] for size in (min(stores, key=int), max(stores, key=int))},
        "batch_size": {str(size): our_command("ceiling", batch_size=size, **common) for size in BATCH_SIZES},
        "actions": {str(count): our_command("ceiling", actions=count, **common) for count in NUM_ACTIONS},
    }
    found = {}
    for axis, ways in commands.items():
        print(f"\n{axis.replace('_', ' ')}")
        for store in stores.values():
            if axis == "transitions":
                read_all(store)
            elif axis == "transitions_not_in_memory":
                forget_pages(store)
        found[axis] = cost(measure(ways, updates, rounds, directory / "peers"))
        for name, row in found[axis].items():
            print(f"{int(name):>10,} {row['milliseconds']:8.1f} ms an update, {row['memory_mib']:7,.0f} MiB")
    draw(
        {
            "data from disk": ("transitions", found["transitions"]),
            "batch": ("transitions in a batch", found["batch_size"]),
            "actions": ("actions", found["actions"]),
        },
        RESULTS / "growth.png",
    )
    changed = f" --run-length {run_length}" if run_length != LONG else ""
    changed += f" --device {device}" if device != "cpu" else ""
    write_json(
        RESULTS / "results.json",
        {
            "command": f"python -m benchmarks growth --sizes {sizes} --updates {updates} --rounds {rounds}{changed}",
            "threads": num_cores(),
            "device": device,
            **found,
            "machine": describe_machine(),
        },
    )
