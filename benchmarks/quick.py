"""In under a minute: has a ratio of ours to the plain way fallen? For CI."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import gymnasium

from benchmarks.data import BATCH_SIZE, fancy_index_gather, noise_store
from benchmarks.speed import drive, random_actions
from benchmarks.train import measure, our_command, spread
from offrl.files import write_json
from offrl.replay.replay import Replay
from offrl.replay.store import FrameStore
from offrl.runs import describe_machine

RECORD = Path(__file__).parent / "results" / "quick.json"
TOLERANCE = 0.2
TRANSITIONS = 3000
HERE_ONLY = "training, precision auto"
"""Whether bf16 is fast is the processor's affair, so this is compared with a record from the same one only."""

Ratios = dict[str, dict[str, float]]


def training(store: Path, updates: int = 5, rounds: int = 6) -> Ratios:
    """The Learner in `offrl.fit` beside the plain eager loop, uncompiled: a CI run is too short for that to pay."""
    common = {"store": store, "updates": updates, "run_length": 1000}
    commands = {
        "plain": our_command("plain", **common),
        "training, float32": our_command("offrl", **common, precision="fp32"),
        HERE_ONLY: our_command("offrl", **common),
    }
    found = measure(commands, updates, rounds, store.parent)
    # measure's ratio is plain's rate over the way's own: turned round.
    return {
        name: {"median": 1 / way["ratio"]["median"], "low": 1 / way["ratio"]["high"], "high": 1 / way["ratio"]["low"]}
        for name, way in found.items()
        if name != "plain"
    }


def gathering(store: Path, batches: int = 10, rounds: int = 12) -> Ratios:
    """Our gather beside plain numpy's fancy index."""
    frames = FrameStore.open(store, "mmap")
    replay = Replay(frames, n_step=10, discount=0.97)
    ways: tuple[Callable[[Any], object], ...] = (
        replay.gather,
        lambda rows: fancy_index_gather(frames, rows, 10),
    )
    ratios = []
    for number in range(rounds + 1):
        seconds = [0.0, 0.0]
        for step in range(batches):
            rows = replay.indices(number * batches + step, BATCH_SIZE)
            for way in (0, 1) if step % 2 else (1, 0):
                start = time.perf_counter()
                ways[way](rows)
                seconds[way] += time.perf_counter() - start
        ratios.append(seconds[1] / seconds[0])
    return {"gather": spread(ratios[1:])}  # the first round pays for pages that are not in memory yet


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


def comparable(record: dict[str, Any], processor: str) -> Ratios:
    """The recorded ratios that hold on this processor."""
    same = record["machine"]["processor"] == processor
    return {name: ratio for name, ratio in record["ratios"].items() if same or name != HERE_ONLY}


@click.command()
@click.option("--record", is_flag=True, help="Keeps today's ratios as those to compare with.")
def quick(record: bool) -> None:
    """Ratios of ours to the plain way; exits with 1 where one fell by more than 20 % against the record."""
    machine = describe_machine()
    recorded: Ratios = {}
    if not record:
        if not RECORD.is_file():
            sys.exit("nothing is on record: python -m benchmarks quick --record")
        recorded = comparable(json.loads(RECORD.read_text(encoding="utf-8")), machine["processor"])
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
        command = "python -m benchmarks quick --record"
        write_json(RECORD, {"command": command, "ratios": ratios, "machine": machine})
    if complaints:
        sys.exit("; ".join(complaints) + " (measured twice)")
