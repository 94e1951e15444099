"""Seconds from the start of a process to its first update, with and without what torch keeps of compiling."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.alternate import Way
from benchmarks.driving import example
from benchmarks.stores import ROOT, car_racing_store
from benchmarks.train import our_command
from offrl.runs import describe_machine
from offrl.system.json_files import write_json
from offrl.system.workers import num_cores

RESULTS = ROOT / "benchmarks" / "results" / "first_update.json"
COLD = "for the first time"
WARM = "again, with what torch keeps of compiling"


@click.command("first-update")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="With a warm cache.")
@click.option("--transitions", default=60_000, show_default=True, help="Of carracing/mixed, collected once.")
def first_update(rounds: int, transitions: int) -> None:
    """Seconds from the start of the demo's training on ingested data to its first update, imports included.

    What `auto` settles is measured before that update: precision, threads, and whether compiling repays itself. Nothing
    else may run meanwhile.
    """
    size, batch_size = example().SIZES["demo"], example().BATCH_SIZE
    store = car_racing_store(ROOT / "data", transitions)
    command = our_command("example", store=store, updates=1, run_length=size.updates, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as cache:
        log = Path(cache) / "log.txt"
        rows = {COLD: row_of([started(command, log, cache)])}
        rows[WARM] = row_of([started(command, log, cache) for _ in range(rounds)])
    for name, row in rows.items():
        print(f"{name:<30} {row['seconds']:6.1f} s, {row['settled']}")
    given = "" if rounds == 3 else f" --rounds {rounds}"
    given += "" if transitions == 60_000 else f" --transitions {transitions}"
    write_json(
        RESULTS,
        {
            "command": f"python -m benchmarks first-update{given}",
            "rows": rows,
            "updates": size.updates,
            "batch_size": batch_size,
            "cores": num_cores(),
            "machine": describe_machine(),
        },
    )


def started(command: Sequence[str], log: Path, cache: str) -> dict[str, Any]:
    """Starts a way, lets it make one update, and ends it."""
    start = time.perf_counter()
    way = Way(command, log, environment={"TORCHINDUCTOR_CACHE_DIR": cache})
    try:
        answer = way.run(1)
        return {**answer, "seconds": time.perf_counter() - start}
    finally:
        way.close()


def row_of(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of the seconds, all of them, and what the last one settled."""
    seconds = [answer["seconds"] for answer in answers]
    settled = {name: answers[-1][name] for name in ("precision", "threads", "compile")}
    return {"seconds": median(seconds), "each": seconds, "settled": settled}
