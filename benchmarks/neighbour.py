"""Training beside a busy process, and two runs side by side: what is left of the rate of a run that is alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.alternate import Way, alternate
from benchmarks.stores import ROOT, car_racing_store
from benchmarks.train import our_command, spread
from offrl.runs import describe_machine
from offrl.system.json_files import write_json
from offrl.system.workers import num_cores

RESULTS = ROOT / "benchmarks" / "results" / "neighbour.json"
_RUN_LENGTH = 1000  # so long that threads are chosen by measuring, so short that nothing is compiled
ALONE = "alone"
BEGUN_BESIDE = "begun beside a busy process"
BEGUN_BEFORE = "a busy process comes later"
ALL_THREADS = "all threads, begun beside a busy process"
TOGETHER = "two runs of one thread each, together"


@click.command()
@click.option("--updates", default=20, show_default=True, help="Of one slice.")
@click.option("--rounds", default=4, show_default=True, help="Slices of each way; one more is for warming up.")
@click.option("--transitions", default=20_000, show_default=True, help="Of carracing/mixed, collected once.")
@click.option("--directory", default=ROOT / "data", type=click.Path(path_type=Path), help="Where the data is made.")
def neighbour(updates: int, rounds: int, transitions: int, directory: Path) -> None:
    """Updates/s alone, beside a busy process, and of two runs side by side. Nothing else may run meanwhile."""
    store = car_racing_store(directory.resolve(), transitions)
    logs = directory / "peers"
    logs.mkdir(parents=True, exist_ok=True)
    command = our_command("offrl", store=store, updates=updates, run_length=_RUN_LENGTH)
    fixed = our_command("all-threads", store=store, updates=updates, run_length=_RUN_LENGTH)

    def start(stack: ExitStack, name: str, words: Sequence[str], threads: int | None = None) -> Way:
        way = Way(words, logs / f"{name.replace(' ', '-')}.log", threads)
        stack.callback(way.close)
        return way

    rates: dict[str, list[float]] = {}

    def measure(ways: dict[str, Way]) -> None:
        for name, answers in alternate(ways, updates, rounds).items():
            rates[name] = [updates / answer["seconds"] for answer in answers]

    with ExitStack() as stack:
        first = start(stack, ALONE, command)
        measure({ALONE: first})
        with ExitStack() as beside:
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            beside.callback(busy.wait)
            beside.callback(busy.kill)
            ways = {BEGUN_BEFORE: first, BEGUN_BESIDE: start(stack, BEGUN_BESIDE, command)}
            measure({**ways, ALL_THREADS: start(stack, ALL_THREADS, fixed)})
        pair = [start(stack, f"together {number}", command, 1) for number in range(2)]
        rates[TOGETHER] = together(pair, updates, rounds)
    quiet = median(rates[ALONE])
    rows: dict[str, dict[str, Any]] = {
        name: {"updates_per_second": median(found), "rates": found, "share": spread([rate / quiet for rate in found])}
        for name, found in rates.items()
    }
    for name, row in rows.items():
        print(f"{name:<60} {row['updates_per_second']:7.2f} updates/s  {row['share']['median']:.2f} of alone")
    options = {"--updates": (updates, 20), "--rounds": (rounds, 4), "--transitions": (transitions, 20_000)}
    given = "".join(f" {name} {value}" for name, (value, default) in options.items() if value != default)
    write_json(
        RESULTS,
        {
            "command": f"python -m benchmarks neighbour{given}",
            "rows": rows,
            "cores": num_cores(),
            "machine": describe_machine(),
        },
    )


def together(pair: Sequence[Way], updates: int, rounds: int) -> list[float]:
    """Rates of both at the same time, added up; a first round is for warming up and not counted."""
    rates = []
    with ThreadPoolExecutor(len(pair)) as pool:
        for number in range(rounds + 1):
            answers = [*pool.map(lambda way: way.run(updates), pair)]
            rate = sum(updates / answer["seconds"] for answer in answers)
            if number > 0:
                rates.append(rate)
                print(f"round {number}: {TOGETHER:<34} {rate:8.2f} updates/s", flush=True)
    return rates
