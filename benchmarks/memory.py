"""What 200 resets of CarRacing leave behind in memory."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import click
import gymnasium
import numpy as np

from offrl.runs import describe_machine
from offrl.system.json_files import write_json

RESULTS = Path(__file__).parent / "results" / "memory.json"
NAMES = ("offrl.envs:offrl/CarRacing-v3", "CarRacing-v3")
_WARM_UP = 20  # resets after which caches are full


def resident_mib() -> float:
    """This process's resident memory (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("VmRSS"))
    return int(kib) / 1024


def growth(name: str, resets: int) -> tuple[float, float]:
    """(MiB before, MiB grown by) `resets` resets with some steps after each, in a process of its own."""
    env = gymnasium.make(name, disable_env_checker=True).unwrapped

    def play(seeds: range) -> float:
        for seed in seeds:
            env.reset(seed=seed)
            for _ in range(20):
                env.step(np.array([0.1, 0.5, 0.0], dtype=np.float32))
        return resident_mib()

    before = play(range(_WARM_UP))
    return before, play(range(_WARM_UP, _WARM_UP + resets)) - before


@click.command()
@click.option("--resets", default=200, show_default=True)
def memory(resets: int) -> None:
    """Resident memory before and after many resets, ours and Gymnasium's, each in a process of its own."""
    rows = {}
    for name in NAMES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            before, grown = pool.apply(growth, (name, resets))
        rows[name] = {"before_mib": before, "grown_mib": grown}
        print(f"{name:<32} {before:6.1f} MiB, {grown:+.2f} MiB after {resets} resets")
    write_json(
        RESULTS,
        {
            "command": f"python -m benchmarks memory --resets {resets}",
            "resets": resets,
            "rows": rows,
            "machine": describe_machine(),
        },
    )
