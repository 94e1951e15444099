"""Where the time of one update goes: the Learner's own update, with clocks at its public boundaries."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import offrl
from benchmarks import charts
from benchmarks.data import apart
from benchmarks.same import checkout
from benchmarks.stores import ROOT, noise_store
from offrl.networks import EncoderFactory
from offrl.replay import FrameStore, Replay
from offrl.runs import describe_machine
from offrl.system.json_files import read_json, write_json
from offrl.system.workers import num_cores
from offrl.training import Learner
from offrl.training._augment import Preparation
from offrl.training.config import Compile, Precision

RESULTS = ROOT / "benchmarks" / "results" / "profile"
PARTS = ("gather", "prepare", "forward", "backward", "optimiser", "targets", "the rest")
ROWS: dict[str, tuple[EncoderFactory, Precision, Compile]] = {
    "NatureEncoder, float32": (offrl.NatureEncoder, "fp32", "off"),
    "NatureEncoder, bf16": (offrl.NatureEncoder, "bf16", "off"),
    "NatureEncoder, bf16, compiled": (offrl.NatureEncoder, "bf16", "on"),
    "CompactEncoder, float32": (offrl.CompactEncoder, "fp32", "off"),
    "CompactEncoder, bf16": (offrl.CompactEncoder, "bf16", "off"),
    "CompactEncoder, bf16, compiled": (offrl.CompactEncoder, "bf16", "on"),
}


Rows = dict[str, dict[str, float]]
"""Row -> part -> milliseconds."""


class Clock:
    """Seconds of each part of the update in progress; on a GPU it waits at every boundary."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    def now(self) -> float:
        """The time, all work done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def add(self, part: str, seconds: float) -> None:
        """Counts seconds for a part."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time counted for `part`."""

        def timed(*arguments: Any, **options: Any) -> Any:
            start = self.now()
            result = function(*arguments, **options)
            self.add(part, self.now() - start)
            return result

        return timed


@contextmanager
def clocked(clock: Clock, algorithm: offrl.Algorithm, *, is_compiled: bool) -> Iterator[None]:
    """Within it a Learner's update is timed part by part; compiled, preparation is part of the forward pass."""
    started = 0.0

    def before(*_: Any) -> None:
        nonlocal started
        started = clock.now()

    def after(*_: Any) -> None:
        clock.add("optimiser", clock.now() - started)

    hooks = (register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after))
    patches: list[AbstractContextManager[object]] = [
        patch.object(torch.Tensor, "backward", clock.around("backward", torch.Tensor.backward)),
        patch.object(torch, "_foreach_lerp_", clock.around("targets", torch._foreach_lerp_)),
    ]
    if is_compiled:
        compiler = torch.compile
        patches.append(
            patch.object(torch, "compile", lambda *given, **how: clock.around("forward", compiler(*given, **how)))
        )
    else:
        patches += [
            patch.object(algorithm, "loss", clock.around("forward", algorithm.loss)),
            patch.object(Preparation, "__call__", clock.around("prepare", Preparation.__call__)),
        ]
    try:
        with ExitStack() as stack:
            for each in patches:
                stack.enter_context(each)
            yield
    finally:
        for hook in hooks:
            hook.remove()


def seconds_of_parts(row: str, store: Path, batch_size: int, updates: int, device: str) -> dict[str, float]:
    """Mean milliseconds of each part over the faster half of the updates; the others were disturbed."""
    torch.set_num_threads(num_cores())
    encoder, precision, compiled = ROWS[row]
    replay = Replay(FrameStore.open(store, "mmap"), n_step=3, discount=0.99, tier="mmap").to(torch.device(device))
    algorithm = offrl.DiscreteBCQ(replay.spec, encoder=encoder)
    config = offrl.LearnerConfig(precision=precision, compile=compiled, updates_per_graph=0)
    clock = Clock(torch.device(device))
    found = []
    with clocked(clock, algorithm, is_compiled=compiled == "on"):
        learner = Learner(algorithm, config, total_updates=updates, device=device)  # takes the loss as it is now
        for step in range(updates):
            clock.seconds = {}
            start = clock.now()
            batch = replay.gather(replay.indices(step, batch_size))
            clock.add("gather", clock.now() - start)
            learner.update(batch)
            total = clock.now() - start
            clock.add("the rest", total - sum(clock.seconds.values()))
            found.append((total, clock.seconds))
    faster = sorted(found[updates // 5 :], key=lambda pair: pair[0])[: max(1, updates * 2 // 5)]
    return {part: 1000 * float(np.mean([seconds.get(part, 0.0) for _, seconds in faster])) for part in PARTS}


@click.command()
@click.option("--updates", default=60, show_default=True)
@click.option("--batch-size", default=128, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--before", metavar="REVISION", help="Also that revision's update, by its own command, in turns.")
@click.option(
    "--rounds", default=1, show_default=True, type=click.IntRange(1), help="The fastest one of each row counts."
)
def profile(updates: int, batch_size: int, device: str, before: str | None, rounds: int) -> None:
    """Milliseconds of each part of one update, for each network and precision."""
    options = ["--updates", str(updates), "--batch-size", str(batch_size), "--device", device]
    now: list[Rows] = []
    then: list[Rows] = []
    with tempfile.TemporaryDirectory() as folder:
        store = noise_store(Path(folder), 10_000)
        for _ in range(rounds):
            if before is not None:
                then.append(rows_of(before, options))
            now.append({row: apart(seconds_of_parts, row, store, batch_size, updates, device) for row in ROWS})
    found = fastest(now)
    show(found)
    given = [*options, *(["--before", before] if before else []), *(["--rounds", str(rounds)] if rounds > 1 else [])]
    charts.stacked(found, "milliseconds of one update", RESULTS / "profile.png")
    write_json(
        RESULTS / "results.json",
        {
            "command": " ".join(["python -m benchmarks profile", *given]),
            "batch_size": batch_size,
            "threads": num_cores(),
            "device": device,
            "rows": found,
            **({} if before is None else {"before": {"revision": before, "rows": fastest(then)}}),
            "machine": describe_machine(),
        },
    )


def fastest(rounds: Sequence[Rows]) -> Rows:
    """Of each row the round in which it took least: the others were disturbed."""
    return {row: min((each[row] for each in rounds), key=lambda parts: sum(parts.values())) for row in rounds[0]}


def rows_of(revision: str, options: Sequence[str]) -> Rows:
    """What the command says in a checkout of a revision, with its rows and parts."""
    with tempfile.TemporaryDirectory() as folder, checkout(revision, Path(folder)) as tree:
        command = [sys.executable, "-m", "benchmarks", "profile", *options]
        subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, check=True)
        rows: Rows = read_json(tree / "benchmarks" / "results" / "profile" / "results.json")["rows"]
    return rows


def show(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Prints the table."""
    print(f"{'ms':<32}" + "".join(f"{part:>11}" for part in (*PARTS, "in all")))
    for row, parts in rows.items():
        print(f"{row:<32}" + "".join(f"{value:11.2f}" for value in (*parts.values(), sum(parts.values()))))
