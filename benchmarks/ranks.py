"""Several processes through torchrun: are the losses those of one, how fast are they, and what do signals leave?"""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from offrl.replay import Sampler
from offrl.runs import checkpoints, describe_machine
from offrl.system.json_files import write_json
from offrl.system.ranks import Ranks

RESULTS = Path(__file__).parent / "results" / "ranks.json"
TASKS = {
    "vectors": ("CartPole-v1", 5_000, ["--set", "batch_size=256"]),
    "pixels": ("CarRacing-v3", 2_000, ["--encoder", "compact", "--set", "batch_size=128"]),
}
COUNTS = (1, 2, 4)
ORDER_COUNTS = (1, 2, 4, 8)
_SECONDS_TO_END = 60


def torchrun(count: int, restarts: int = 0) -> list[str]:
    """The start of a command of so many processes; after it stands what `offrl train` takes.

    The two dashes keep torchrun from taking our --run for its --run-path.
    """
    options = ["--standalone", "--nproc-per-node", str(count), "--max-restarts", str(restarts)]
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", "--", "offrl", "train"]


def is_order_equal(updates: int = 1_000, batch_size: int = 64) -> bool:
    """Whether 1, 2, 4 and 8 ranks together draw the samples that one process draws, in their order."""
    sampler = Sampler(1_000_000, seed=0)
    for step in range(updates):
        whole = sampler.indices(step, batch_size)
        for count in ORDER_COUNTS:
            parts = [sampler.indices(step, batch_size)[Ranks(rank, count).rows(batch_size)] for rank in range(count)]
            if not np.array_equal(np.concatenate(parts), whole):
                return False
    return True


def column(run: Path, table: str, name: str) -> list[float]:
    """A column of one of a run's tables."""
    with (run / table).open(newline="", encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def updates_per_second(run: Path) -> float:
    """The median over a run's rows, but for the first, which pays for the start."""
    return statistics.median(column(run, "timings.csv", "updates_per_second")[1:])


def largest_difference(run: Path, other: Path) -> float:
    """Of the losses in two runs' rows, as a share of the other's."""
    ours, theirs = (np.array(column(each, "metrics.csv", "loss")) for each in (run, other))
    return float(np.max(np.abs(ours - theirs) / np.abs(theirs)))


def run(command: list[str], threads: int) -> None:
    """Runs a command, with so many threads a process."""
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, capture_output=True)


def measure(data: Path, folder: Path, options: list[str], cores: int) -> dict[str, Any]:
    """The rates of each way, and how far the losses of several ranks are from those of one process."""
    alone = [sys.executable, "-m", "offrl", "train"]
    ways: dict[str, dict[str, float]] = {}

    def add(way: str, processes: int, threads: int, command: list[str], runs: list[Path]) -> None:
        run(command, threads)
        rates = [updates_per_second(each) for each in runs]
        ways[way] = {"processes": processes, "threads": threads, "updates_per_second": sum(rates)}
        print(f"  {way:<28} {sum(rates):7.1f} updates/s", flush=True)

    one = folder / "one"
    add("one process", 1, cores, [*alone, str(data), *options, "--run", str(one)], [one])
    differences = {}
    for count in COUNTS:
        target = folder / f"{count}-ranks"
        add(
            f"one run on {count} ranks",
            count,
            1,
            [*torchrun(count), str(data), *options, "--run", str(target)],
            [target],
        )
        differences[str(count)] = largest_difference(target, one)
    several = [*torchrun(cores), str(data), *options, "--set", "seed={rank}", "--run", str(folder / "seed-{rank}")]
    seeds = [folder / f"seed-{rank}" for rank in range(cores)]
    add(f"{cores} runs, one a process", cores, 1, several, seeds)
    return {"ways": ways, "largest_loss_difference": differences}


def stop_by_signal(data: Path, target: Path, options: list[str], wait: float) -> dict[str, Any]:
    """Sends torchrun a SIGTERM in the middle of a run of two ranks: after its first row of metrics."""
    shutil.rmtree(target, ignore_errors=True)
    command = [*torchrun(2), str(data), *options, "--run", str(target)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (target / "metrics.csv").exists() or not column(target, "metrics.csv", "step"):
            if process.poll() is not None:
                raise click.ClickException(f"torchrun ended with {process.returncode} before it was told to")
            time.sleep(0.02)
        time.sleep(wait)
        start = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.wait(_SECONDS_TO_END)
        seconds = time.perf_counter() - start
    finally:
        process.kill()
    found = checkpoints(target / "checkpoints")
    step = int(found[-1].name[-9:])
    # The rows of the table reach as far as the checkpoint, and not beyond.
    rows = column(target, "metrics.csv", "step")
    return {"seconds": seconds, "step": step, "saved": step - 10 < rows[-1] <= step}


@click.command()
@click.option("--updates", default=300, show_default=True, help="Of each run.")
@click.option("--signals", default=50, show_default=True, help="Times that torchrun is sent a SIGTERM.")
def ranks(updates: int, signals: int) -> None:
    """Losses and rates of 1, 2 and 4 processes with the same global batch, and runs that a signal ends."""
    cores = len(os.sched_getaffinity(0))
    fixed = ["--set", "precision=fp32", "--set", "compile=off", "--device", "cpu", "--quiet"]
    rhythm = ["--set", "log_period=30", "--set", "checkpoint_period=1000000"]
    result: dict[str, Any] = {"command": f"python -m benchmarks ranks --updates {updates} --signals {signals}"}
    result["load_average_before"] = os.getloadavg()[0]  # the rates of a busy machine say little
    result["order_of_samples"] = {"ranks": list(ORDER_COUNTS), "equal": is_order_equal()}
    tasks = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for task, (environment, transitions, options) in TASKS.items():
            print(f"{task}: {environment}", flush=True)
            data = folder / task
            collect = [sys.executable, "-m", "offrl", "collect", environment, str(data), "--quiet"]
            run([*collect, "--transitions", str(transitions)], 1)
            given = [*options, *fixed, *rhythm, "--updates", str(updates)]
            tasks[task] = {"environment": environment, **measure(data, folder / f"{task}-runs", given, cores)}
        endless = ["--updates", "1000000", "--set", "log_period=10", "--set", "checkpoint_period=40", *fixed]
        wait = random.Random(0)
        stopped = []
        for number in range(signals):
            stopped.append(stop_by_signal(folder / "vectors", folder / "stopped", endless, wait.uniform(0, 0.5)))
            print(f"signal {number + 1}: {stopped[-1]}", flush=True)
    result["tasks"] = tasks
    if stopped:
        result["signals"] = {
            "sent": len(stopped),
            "saved": sum(each["saved"] for each in stopped),
            "longest_seconds": max(each["seconds"] for each in stopped),
        }
    write_json(RESULTS, {**result, "machine": describe_machine()})
