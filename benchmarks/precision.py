"""Whether bf16 costs accuracy: the same runs in both precisions, their losses and their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import offrl
from benchmarks import charts
from benchmarks.stores import ROOT, car_racing_store
from offrl import envs
from offrl.collection import collect
from offrl.envs import SCORE_SEEDS, CartPoleMixture, EnvFactory, car_racing
from offrl.replay import FrameStore, Replay
from offrl.runs import describe_machine
from offrl.statistics import Interval, t_interval
from offrl.system.json_files import write_json
from offrl.system.workers import num_cores
from offrl.training.config import Precision

RESULTS = ROOT / "benchmarks" / "results" / "precision.json"
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
LOSSES = range(150, 200)  # the updates whose mean losses are compared: past the first steps, before runs diverge


@dataclass(frozen=True)
class Task:
    """What is learnt, from which data, and for how long."""

    make_env: EnvFactory
    open_replay: Callable[[int], Replay]
    learner: offrl.LearnerConfig
    updates: int
    runs: int


def cart_pole(directory: Path, updates: int, runs: int) -> Task:
    """CartPole, as `python -m benchmarks cartpole` learns it."""
    make_env = partial(envs.make, "CartPole-v1")
    data = directory / "cartpole"
    if not (data / "manifest.json").is_file():
        collect(make_env, CartPoleMixture(), data, transitions=20_000, workers=1)
    return Task(
        make_env,
        lambda seed: offrl.open_replay(data, n_step=5, discount=0.99, reward_scale=0.1, seed=seed, progress=False),
        offrl.LearnerConfig(learning_rate=1e-3, schedule="cosine", average_decay=0.999),
        updates,
        runs,
    )


def small_car_racing(directory: Path, transitions: int, updates: int, runs: int) -> Task:
    """CarRacing with the settings of `make demo`, on less data and with fewer updates."""
    store = FrameStore.open(car_racing_store(directory, transitions))
    return Task(
        partial(envs.make, car_racing.ENV_ID),
        lambda seed: Replay(store, n_step=10, discount=0.97, reward_scale=0.1, seed=seed),
        offrl.LearnerConfig(learning_rate=5e-4, schedule="cosine", polyak=0.01, average_decay=0.999),
        updates,
        runs,
    )


class _Losses:
    """A logger that keeps the mean loss of the updates `LOSSES`; the run logs every len(LOSSES)."""

    def __init__(self) -> None:
        self.mean = np.nan

    def log(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        if step == LOSSES.stop:
            self.mean = metrics["loss"]

    def close(self) -> None:
        """Nothing is open."""


def run(task: Task, precision: Precision, seed: int, episodes: int) -> dict[str, Any]:
    """One run from the start that `seed` gives, and its score on the same episodes for all."""
    replay = task.open_replay(seed)
    algorithm = offrl.DiscreteBCQ(replay.spec, seed=seed)
    losses = _Losses()
    learner = offrl.fit(
        algorithm,
        replay,
        offrl.FitConfig(updates=task.updates, log_period=len(LOSSES)),
        learner=replace(task.learner, precision=precision),
        loggers=[losses],
        device="cpu",
    )
    evaluation = offrl.evaluate(offrl.TorchPolicy(learner.snapshot()), task.make_env, SCORE_SEEDS[:episodes])
    return {"seed": seed, "loss": losses.mean, "mean": evaluation.mean.mean, "scores": list(evaluation.scores)}


def compare(runs: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """bf16 beside fp32: the largest difference of two losses, and the mean difference of two runs' mean returns."""
    pairs = list(zip(*(runs[precision] for precision in PRECISIONS), strict=True))
    return {
        "loss_difference": max(abs(other["loss"] / one["loss"] - 1) for one, other in pairs),
        "score_difference": t_interval([other["mean"] - one["mean"] for one, other in pairs])._asdict(),
        "runs": runs,
    }


@click.command()
@click.option("--cart-pole-updates", default=3_000, show_default=True)
@click.option("--cart-pole-runs", default=10, show_default=True, help="With each precision; seeds 0, 1, ...")
@click.option("--car-racing-updates", default=1_500, show_default=True)
@click.option("--car-racing-runs", default=3, show_default=True, help="With each precision; seeds 0, 1, ...")
@click.option("--episodes", default=20, show_default=True, help="Of each run's evaluation.")
@click.option("--transitions", default=20_000, show_default=True, help="Of carracing/mixed, collected once.")
@click.option("--directory", default=ROOT / "data", type=click.Path(path_type=Path), help="Where the data is made.")
def precision(
    cart_pole_updates: int,
    cart_pole_runs: int,
    car_racing_updates: int,
    car_racing_runs: int,
    episodes: int,
    transitions: int,
    directory: Path,
) -> None:
    """Losses and scores of the same runs in float32 and in bf16."""
    torch.set_num_threads(num_cores())
    directory = directory.resolve()
    tasks = {
        "CartPole": cart_pole(directory, cart_pole_updates, cart_pole_runs),
        "CarRacing, small": small_car_racing(directory, transitions, car_racing_updates, car_racing_runs),
    }
    found = {}
    for name, task in tasks.items():
        found[name] = compare(
            {precision: [run(task, precision, seed, episodes) for seed in range(task.runs)] for precision in PRECISIONS}
        )
        for way, results in found[name]["runs"].items():
            print(f"{name}, {way}: {', '.join(format(result['mean'], '.1f') for result in results)}")
        difference = found[name]["score_difference"]
        print(
            f"{name}: bf16 minus float32 {difference['mean']:+.1f}, "
            f"{Interval(**difference).bounds(task.runs, 'run', '+.1f')}; losses differ by "
            f"{found[name]['loss_difference']:.2%} at most"
        )
    means = {
        f"{name}, {way}": float(np.mean([result["mean"] for result in results]))
        for name, task in found.items()
        for way, results in task["runs"].items()
    }
    charts.bars(means, "mean return", RESULTS.with_suffix(".png"), [name for name in means if name.endswith("bf16")])
    write_json(
        RESULTS,
        {
            "command": f"python -m benchmarks precision --cart-pole-updates {cart_pole_updates} "
            f"--cart-pole-runs {cart_pole_runs} --car-racing-updates {car_racing_updates} "
            f"--car-racing-runs {car_racing_runs} --episodes {episodes} --transitions {transitions}",
            "tasks": found,
            "machine": describe_machine(),
        },
    )
