"""In under a minute: has a ratio of ours to the plain way fallen? For CI."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import gymnasium

from benchmarks import charts
from benchmarks.data import batch_commands
from benchmarks.speed import drive, random_actions
from benchmarks.stores import noise_store
from benchmarks.train import measure, our_command, spread
from offrl.runs import describe_machine
from offrl.system.json_files import write_json

RECORD = Path(__file__).parent / "results" / "quick.json"
TOLERANCE = 0.2
TRANSITIONS = 3000
Ratios = dict[str, dict[str, float]]


def training(store: Path, updates: int = 5, rounds: int = 6) -> Ratios:
    """`offrl.fit` beside the plain eager loop, in processor time of one thread: what else runs here does not count.

    The run says that it will be short, so that nothing is compiled.
    """
    common = {"store": store, "updates": updates, "run_length": 500}
    commands = {
        "plain": our_command("plain", **common),
        "training, float32": our_command("offrl", **common, precision="fp32"),
        "training, precision auto": our_command("offrl", **common),
    }
    found = measure(commands, updates, rounds, store.parent, threads=1, clock="cpu_seconds")
    # measure's ratio is plain's rate over the way's own: turned round.
    return {
        name: {"median": 1 / way["ratio"]["median"], "low": 1 / way["ratio"]["high"], "high": 1 / way["ratio"]["low"]}
        for name, way in found.items()
        if name != "plain"
    }


def gathering(store: Path, batches: int = 20, rounds: int = 12) -> Ratios:
    """Our gather beside plain numpy, a fancy index for each of a stack's frames."""
    found = measure(batch_commands(store, "mmap"), batches, rounds, store.parent, threads=1, clock="cpu_seconds")
    return {"gather": found["stack of fancy indices"]["ratio"]}


def environment(store: Path, steps: int = 60, rounds: int = 8) -> Ratios:
    """Our CarRacing beside Gymnasium's: the same track, the same actions."""
    names = ("offrl.envs:offrl/CarRacing-v3", "CarRacing-v3")
    made = [gymnasium.make(name, disable_env_checker=True).unwrapped for name in names]
    ratios = []
    for number in range(rounds):
        actions = random_actions(number, steps)
        seconds = [0.0, 0.0]
        for way in (0, 1) if number % 2 else (1, 0):
            seconds[way] = drive(made[way], actions, seed=0)[1]
        ratios.append(seconds[1] / seconds[0])
    return {"CarRacing": spread(ratios)}


MEASUREMENTS: tuple[Callable[[Path], Ratios], ...] = (training, gathering, environment)


def fallen(found: Ratios, recorded: Ratios) -> dict[str, str]:
    """What fell by more than the tolerance, and a line about it."""
    return {
        name: f"{name}: {ratio['median']:.2f} times the plain way, {1 - ratio['median'] / before:.0%} less than the "
        f"{before:.2f} on record"
        for name, ratio in found.items()
        if name in recorded and ratio["median"] < (1 - TOLERANCE) * (before := recorded[name]["median"])
    }


@click.command()
@click.option("--record", is_flag=True, help="Keeps today's ratios as those to compare with.")
def quick(record: bool) -> None:
    """Ratios of ours to the plain way; exits with 1 where one fell by more than 20 % against the record."""
    machine = describe_machine()
    kept: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {"processors": {}}
    if not record and not kept["processors"]:
        sys.exit("nothing is on record: python -m benchmarks quick --record")
    processor = machine["processor"]
    recorded: Ratios = {} if record else kept["processors"].get(processor, {})
    if not record and not recorded:  # a ratio holds on its kind of processor only
        print(f"nothing is on record for {processor}: today's ratios are only shown")
    ratios: Ratios = {}
    complaints: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        store = noise_store(Path(folder), TRANSITIONS)
        for measurement in MEASUREMENTS:
            found = measurement(store)
            if fallen(found, recorded):  # a busy machine may be to blame: once more
                again = measurement(store)
                found = {name: max(found[name], again[name], key=lambda ratio: ratio["median"]) for name in found}
            complaints += fallen(found, recorded).values()
            ratios |= found
    print()
    for name, ratio in ratios.items():
        before = f", {recorded[name]['median']:.2f} on record" if name in recorded else ""
        print(f"{name:<26} {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}){before}")
    if record:
        medians = {name: ratio["median"] for name, ratio in ratios.items()}
        charts.bars(medians, f"times the plain way, on {processor}", RECORD.with_suffix(".png"), list(medians))
        processors = {**kept["processors"], processor: ratios}
        write_json(
            RECORD, {"command": "python -m benchmarks quick --record", "processors": processors, "machine": machine}
        )
    complaints += [f"{name}: on record, and not measured any more" for name in recorded if name not in ratios]
    if complaints:
        sys.exit("; ".join(complaints) + " (measured twice)")
