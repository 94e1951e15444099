"""Does a process that trains, evaluates and saves for hours stay as it was? Its memory, open files and threads."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import torch

import offrl
from offrl import envs
from offrl.collection import collect
from offrl.envs import TUNING_SEEDS, CartPoleMixture
from offrl.runs import describe_machine
from offrl.system.json_files import write_json

RESULTS = Path(__file__).parent / "results" / "soak.json"
TOLERANCE = 0.02
_WARM_UP = 0.1
_FEWEST = 20  # rounds, however slow the machine is
_MIB = 2**20
_SHOWN = 200  # samples in the results, evenly spaced


class Sample(NamedTuple):
    """What a process holds after a round.

    Attributes:
        seconds: Since the first round began.
        memory: Its resident memory in bytes, after malloc has returned what is free.
        untrimmed: The same before that.
        descriptors: Its open files, sockets and pipes.
        threads: Its threads, those of C code included.
    """

    seconds: float
    memory: int
    untrimmed: int
    descriptors: int
    threads: int


class Verdict(NamedTuple):
    """What the samples after the first tenth of the time say.

    Attributes:
        growth: How much the memory of the last tenth is above that of the tenth after the first, both medians.
        untrimmed_growth: The same with the freed memory that malloc keeps; shown, and not judged.
        descriptors: The fewest and the most.
        threads: Likewise.
        is_flat: Whether the memory stayed within `TOLERANCE`, and the others stayed what they were.
    """

    growth: float
    untrimmed_growth: float
    descriptors: tuple[int, int]
    threads: tuple[int, int]
    is_flat: bool


def judge(samples: Sequence[Sample]) -> Verdict:
    """Looks at what came after the first tenth of the time.

    Raises:
        ValueError: That are fewer than ten samples.
    """
    end = samples[-1].seconds
    later = [each for each in samples if each.seconds > _WARM_UP * end]
    if len(later) < 10:
        raise ValueError(f"{len(later)} rounds after the first tenth of the time; take more minutes")
    size = len(later) // 10
    growth, untrimmed_growth = (
        statistics.median(getattr(each, name) for each in later[-size:])
        / statistics.median(getattr(each, name) for each in later[:size])
        - 1
        for name in ("memory", "untrimmed")
    )
    descriptors, threads = (
        (min(found), max(found)) for found in zip(*((each.descriptors, each.threads) for each in later), strict=True)
    )
    is_flat = growth <= TOLERANCE and descriptors[0] == descriptors[1] and threads[0] == threads[1]
    return Verdict(growth, untrimmed_growth, descriptors, threads, is_flat)


def sample(start: float) -> Sample:
    """What this process holds now, without the freed memory that malloc keeps.

    Training keeps freed memory in malloc's pool on purpose (`offrl.system.memory`), up to what its largest moment
    needed, and how that is cut up changes for hours: in it, a leak would not be seen.
    """
    gc.collect()
    untrimmed = _resident()
    with suppress(AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)
    own = Path("/proc/self")
    # The directory that is listed here is open itself.
    descriptors = len([*(own / "fd").iterdir()]) - 1
    return Sample(time.monotonic() - start, _resident(), untrimmed, descriptors, int(_status()["Threads"]))


def _status() -> dict[str, str]:
    return dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())


def _resident() -> int:
    return int(_status()["VmRSS"].split()[0]) * 1024


@click.command()
@click.option("--minutes", default=120.0, show_default=True, type=click.FloatRange(min=0, min_open=True))
def soak(minutes: float) -> None:
    """Trains, resumes, evaluates and saves in a loop in this process; memory flat, nothing left open. Linux only."""
    torch.set_num_threads(1)
    make_env = partial(envs.make, "CartPole-v1")
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder:
        collect(make_env, CartPoleMixture(), Path(folder, "data"), transitions=2_000, workers=1, progress=False)
        start, shown = time.monotonic(), 0.0
        while len(samples) < _FEWEST or samples[-1].seconds < 60 * minutes:
            _round(Path(folder), len(samples), make_env)
            samples.append(sample(start))
            if samples[-1].seconds >= shown:
                shown += max(60 * minutes / 20, 10)
                print(_line(len(samples), samples[-1]), flush=True)
    verdict = judge(samples)
    print(_line(len(samples), samples[-1]))
    write_json(
        RESULTS,
        {
            "command": f"python -m benchmarks soak --minutes {minutes:g}",
            "minutes": minutes,
            "rounds": len(samples),
            "growth_of_memory": verdict.growth,
            "growth_untrimmed": verdict.untrimmed_growth,
            "descriptors": verdict.descriptors,
            "threads": verdict.threads,
            "python_threads": threading.active_count(),
            "flat": verdict.is_flat,
            "samples": [each._asdict() for each in samples[:: max(len(samples) // _SHOWN, 1)]],
            "machine": describe_machine(),
        },
    )
    print(
        f"after the first tenth of the time: memory {verdict.growth:+.2%}, {_range(verdict.descriptors)} open files, "
        f"{_range(verdict.threads)} threads: {'flat' if verdict.is_flat else 'not flat'}"
    )
    sys.exit(not verdict.is_flat)


def _round(folder: Path, number: int, make_env: envs.EnvFactory) -> None:
    """A run of 40 updates that is resumed in its middle, and three episodes with what it has learnt."""
    with tempfile.TemporaryDirectory(dir=folder) as run:
        for updates in (20, 40):
            replay = offrl.open_replay(folder / "data", n_step=5, progress=False)
            config = offrl.FitConfig(updates=updates, batch_size=32, log_period=10, checkpoint_period=10)
            algorithm = offrl.DiscreteBCQ(replay.spec, seed=number)
            learner = offrl.fit(algorithm, replay, config, run=run, resume=updates == 40, loggers=(), device="cpu")
    policy = offrl.TorchPolicy(learner.snapshot())
    offrl.evaluate(policy, make_env, TUNING_SEEDS[:3], workers=0, progress=False)


def _line(rounds: int, found: Sample) -> str:
    return (
        f"{found.seconds:7.0f} s  {rounds:6,} rounds  {found.memory / _MIB:7.1f} MiB  "
        f"{found.descriptors} open files  {found.threads} threads"
    )


def _range(ends: tuple[int, int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
