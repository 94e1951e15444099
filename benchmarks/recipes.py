"""Recipes for CarRacing on data like the demo's, each trained several times and driven on tuning tracks."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

import offrl
from benchmarks.driving import ROOT, example, summary
from benchmarks.scoring.comparison import welch
from offrl.cli.names import algorithm_class
from offrl.collection import RECIPES as DATASETS
from offrl.envs import TUNING_SEEDS, car_racing
from offrl.runs import checkpoints, describe_machine
from offrl.system.json_files import read_json, write_json
from offrl.system.side_by_side import side_by_side
from offrl.system.workers import num_cores

RESULTS = ROOT / "benchmarks" / "results" / "carracing" / "recipes.json"
TRACKS = TUNING_SEEDS[6000:6060]
FIRST = "as it was"


@dataclass(frozen=True)
class Recipe:
    """What differs from the example's demo.

    Attributes:
        why: In words, for the table.
        transitions: Of carracing/mixed.
        updates: Of the run.
        replay: Settings of the replay.
        learner: Of the update.
        algorithm: By name.
        settings: Of the algorithm.
        batch_size: Of an update.
    """

    why: str
    transitions: int = 60_000
    updates: int = 4_000
    replay: Mapping[str, Any] = field(default_factory=dict)
    learner: Mapping[str, Any] = field(default_factory=dict)
    algorithm: str = "bcq"
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 128


_LONGER = {"discount": 0.985}
TRIED = {
    FIRST: Recipe("discount 0.97", replay={"discount": 0.97}),
    "discount 0.985": Recipe("a missed tile is punished late", replay=_LONGER),
    "200,000 transitions": Recipe("2.5 passes over the data in place of 8.5", 200_000, replay=_LONGER),
    "200,000 and 8,000 updates": Recipe("more of both", 200_000, 8_000, replay=_LONGER),
    "mean of two heads": Recipe("less noise in the values", 200_000, replay=_LONGER, settings={"ensemble": "mean:2"}),
    "least of two heads": Recipe("careful values", 200_000, replay=_LONGER, settings={"ensemble": "min:2"}),
    "brightness": Recipe("augmentation by 20 gray levels", 200_000, replay=_LONGER, learner={"augment_brightness": 20}),
    "longer averages": Recipe(
        "averaged weights over 2,000 updates", 200_000, replay=_LONGER, learner={"average_decay": 0.9995}
    ),
    "threshold 0.1": Recipe("more of the actions are allowed", 200_000, replay=_LONGER, settings={"threshold": 0.1}),
    "threshold 0.5": Recipe("fewer are allowed", 200_000, replay=_LONGER, settings={"threshold": 0.5}),
}


@click.command()
@click.option("--recipe", "names", multiple=True, type=click.Choice([*TRIED]), help="Default: all.")
@click.option("--runs", default=2, show_default=True, type=click.IntRange(1), help="Training runs of each.")
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / "data" / "recipes", help="Kept: goes on there.")
def recipes(names: Sequence[str], runs: int, work: Path) -> None:
    """Trains recipes, a run on each core at a time, seed by seed (hours; stop it and go on as you like).

    The result has all runs that are there, of these recipes and others, and is written after each.
    """
    work = work.resolve()
    chosen = [*(names or TRIED)]
    for transitions in {TRIED[name].transitions for name in chosen}:
        DATASETS["carracing/mixed"].collect(data_of(work, transitions), transitions=transitions)
        offrl.open_replay(data_of(work, transitions))  # ingested once, before two would
    jobs = {
        f"{name}, seed {seed}": [sys.executable, "-m", "benchmarks.recipes", json.dumps([str(work), name, seed])]
        for seed in range(runs)
        for name in chosen
        if evaluation(work, name, seed) is None
    }
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for ended in side_by_side(jobs, at_once=num_cores(), environment=environment):
        if ended.exit_code != 0:
            sys.exit(f"{ended.name} failed; the same command goes on with the others")
        _, name, seed = json.loads(jobs[ended.name][-1])
        print(f"{ended.name}: {evaluation(work, name, seed)['mean']:.1f}", flush=True)  # type: ignore[index]
        write_results(work)
    show(write_results(work))


def data_of(work: Path, transitions: int) -> Path:
    """Where the data of that size lie."""
    return work / f"data-{transitions}"


def run_directory(work: Path, name: str, seed: int) -> Path:
    """Where a run lies."""
    return work / "runs" / f"{name.replace(' ', '-').replace(',', '')}-{seed}"


def evaluation(work: Path, name: str, seed: int) -> dict[str, Any] | None:
    """What a run scored; None where it was not driven yet."""
    path = run_directory(work, name, seed) / "tuning.json"
    return read_json(path) if path.exists() else None


def train_and_drive(work: Path, name: str, seed: int) -> None:
    """One run, on one thread, from its newest checkpoint where it was interrupted."""
    recipe, base = TRIED[name], example()
    run, cls = run_directory(work, name, seed), algorithm_class(recipe.algorithm)
    settings = {**base.REPLAY, **recipe.replay, "include": tuple(sorted(cls.needs))}
    replay = offrl.open_replay(data_of(work, recipe.transitions), seed=seed, progress=False, **settings)
    config = None if not recipe.settings else cls.config_class()(**recipe.settings)
    made = checkpoints(run / "checkpoints")
    if not made or made[-1].name != f"step-{recipe.updates:09d}":
        offrl.fit(
            cls(replay.spec, config, seed=seed),
            replay,
            offrl.FitConfig(updates=recipe.updates, batch_size=recipe.batch_size, checkpoint_period=1000),
            # Nothing is settled by measuring beside another run.
            learner=replace(base.LEARNER, **{"precision": "fp32", "compile": "off", "threads": 1, **recipe.learner}),
            run=run,
            resume=(run / "config.json").exists(),
            device="cpu",
            loggers=[],
            notes={"environment": car_racing.ENV_ID},
        )
    for older in checkpoints(run / "checkpoints")[:-1]:
        shutil.rmtree(older)
    found = offrl.evaluate(
        offrl.load(run), partial(car_racing.make, hud=replay.spec.hud), TRACKS, workers=1, progress=False
    )
    write_json(run / "tuning.json", found.to_dict())


def write_results(work: Path) -> dict[str, Any]:
    """recipes.json, of all runs that are there."""
    rows: dict[str, Any] = {}
    for name, recipe in TRIED.items():
        seeds = range(100)
        found = {seed: each for seed in seeds if (each := evaluation(work, name, seed)) is not None}
        if found:
            rows[name] = {"why": recipe.why, "transitions": recipe.transitions, "updates": recipe.updates}
            rows[name] |= {key: value for key, value in summary(found).items() if key != "per_run"}
            rows[name]["means"] = [each["mean"] for each in found.values()]
    first = rows.get(FIRST)
    for name, row in rows.items():
        if first is not None and name != FIRST:
            row["minus_as_it_was"] = welch(row["means"], first["means"])._asdict()
    result = {
        "command": "python -m benchmarks recipes",
        "tracks": "TUNING_SEEDS[6000:6060]",
        "threads_a_run": 1,
        "precision": "fp32",
        "recipes": rows,
        "machine": describe_machine(),
    }
    write_json(RESULTS, result)
    return result


def show(result: Mapping[str, Any]) -> None:
    """The table, the best first."""
    for name, row in sorted(result["recipes"].items(), key=lambda row: -float(row[1]["mean"])):
        laps = f"{row['laps_with_every_tile']} of {row['episodes']} laps"
        print(
            f"{name:28} {row['mean']:7.1f} over {row['runs']} runs, {row['lowest']:.1f} to {row['highest']:.1f}, {laps}"
        )


if __name__ == "__main__":
    directory, name, number = json.loads(sys.argv[1])
    train_and_drive(Path(directory), name, number)
