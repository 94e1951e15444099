"""Every algorithm of the shelf on a dataset of CarRacing, over training runs: where each loses its score."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

import offrl
from benchmarks import charts
from benchmarks.devices import chosen_device, of_device
from benchmarks.driving import MOST_RUNS, Recipe, Study, Tracks
from benchmarks.laps import means_by_seed, seed_of, show, summary
from benchmarks.machines import Runs, is_of, merged, on_this_machine
from benchmarks.stores import MIXED, ROOT
from offrl.cli.names import ALGORITHMS
from offrl.collection import RECIPES
from offrl.datasets import inspect_dataset
from offrl.runs import describe_machine
from offrl.statistics import t_interval
from offrl.system.json_files import read_json, write_json

RESULTS = ROOT / "benchmarks" / "results" / "carracing"
BASELINE = "bc"
FIRST_EPISODE = 3000
"""Of TUNING_SEEDS; no setting has been chosen on the 1,000 from there on.

What scripts tried was driven on the first 100 of these, too (docs/carracing-tried.md): whatever is taken over from that
needs other tracks here.
"""
HELD_OUT = 0.1
_COUNT = click.IntRange(1)
_DATASETS = [name for name in RECIPES if name.startswith("carracing/")]


def leaderboard_rows(found: Mapping[str, Runs]) -> dict[str, dict[str, Any]]:
    """`summary` of each algorithm, the best mean first, with its paired differences to BC.

    A difference is that of the mean scores of two runs with the same training seed (of a seed's runs on several
    processors, of their means), which saw the same batches and were evaluated on the same tracks; its interval is
    Student's over the seeds.
    """
    rows = {name: summary(runs) for name, runs in found.items()}
    bc = means_by_seed(found.get(BASELINE, {}))
    for name, runs in found.items():
        differences = [mean - bc[seed] for seed, mean in means_by_seed(runs).items() if seed in bc]
        if name != BASELINE and differences:
            rows[name]["minus_bc"] = {**t_interval(differences).to_dict(), "runs": len(differences)}
    return dict(sorted(rows.items(), key=lambda row: -float(row[1]["mean"])))


@click.command()
@click.option("--algorithm", "algorithms", multiple=True, type=click.Choice([*ALGORITHMS]), help="Default: all.")
@click.option("--runs", default=3, show_default=True, type=_COUNT, help="Training runs of each algorithm.")
@click.option("--updates", type=_COUNT, help="Of each run; default: the demo's.")
@click.option("--transitions", type=_COUNT, help="Of the dataset; default: the demo's.")
@click.option("--episodes", default=100, show_default=True, type=_COUNT, help="Of each run.")
@click.option("--dataset", default=MIXED, show_default=True, type=click.Choice(_DATASETS))
@click.option("--device", default="cpu", show_default=True, help="A GPU is shared by one run for each core.")
def leaderboard(
    algorithms: Sequence[str],
    runs: int,
    updates: int | None,
    transitions: int | None,
    episodes: int,
    dataset: str,
    device: str,
) -> None:
    """All algorithms on a dataset of CarRacing, several training runs each (hours; stop it and go on as you like).

    Settings and budget are the example's for all, nothing is tuned; a tenth of the episodes is held out. The result
    is written after every run. Runs that it has from another machine stay in it, and are not made again.
    """
    changes = {name: value for name, value in (("updates", updates), ("transitions", transitions)) if value is not None}
    device = chosen_device(device)
    recipe = Recipe.of_size("demo", replay={"held_out": HELD_OUT}, dataset=dataset, device=device, **changes)
    tracks = Tracks("TUNING_SEEDS", FIRST_EPISODE, episodes)
    all_runs = Study({name: replace(recipe, algorithm=name) for name in ALGORITHMS}, MOST_RUNS, tracks)
    kept = _kept(all_runs, recipe)
    given: dict[str, tuple[Any, Any]] = {
        "runs": (runs, 3),
        "updates": (updates, None),
        "transitions": (transitions, None),
    }
    given |= {"episodes": (episodes, 100), "dataset": (dataset, MIXED), "device": (device, "cpu")}
    words = [f"--{name} {value}" for name, (value, default) in given.items() if value != default]
    write = partial(_write, all_runs, recipe, runs, " ".join(["python -m benchmarks leaderboard", *words]))
    asked = {name: all_runs.recipes[name] for name in algorithms or ALGORITHMS}
    elsewhere = {name: {seed_of(key) for key in made} for name, made in kept.items()}
    Study(asked, runs, tracks).run(after_each=write, elsewhere=elsewhere)
    show(write())


def _path(recipe: Recipe) -> Path:
    of = "" if recipe.dataset == MIXED else f"-{recipe.dataset.rpartition('/')[2]}"
    return RESULTS / f"leaderboard{of}{of_device(recipe.device)}.json"


def _kept(study: Study, recipe: Recipe) -> dict[str, Runs]:
    """The runs that the result has, from whatever machine.

    Raises:
        SystemExit: They are of another recipe or of other tracks, and would be lost.
    """
    path = _path(recipe)
    before: dict[str, Any] = read_json(path) if path.exists() else {"seeds": str(study.judge), "algorithms": {}}
    rows = before["algorithms"]
    same = [name for name, row in rows.items() if name in study.recipes and is_of(row, study.recipes[name])]
    if before["seeds"] != str(study.judge) or len(same) < len(rows):
        sys.exit(f"{path} has runs of another recipe or of other tracks: move it away, and a new one is begun")
    return {name: row["per_run"] for name, row in rows.items()}


def _write(study: Study, recipe: Recipe, planned: int, command: str) -> dict[str, dict[str, Any]]:
    """The result and its picture, of all runs that are there, here or in it; returns its rows."""
    path = _path(recipe)
    rows = leaderboard_rows(merged(on_this_machine(study), _kept(study, recipe)))
    means = {name: [*means_by_seed(row["per_run"]).values()] for name, row in rows.items()}
    charts.runs(means, "mean return of a training run", path.with_suffix(".png"))
    store = offrl.open_replay(recipe.data(), progress=False).store
    write_json(
        path,
        {
            "command": command,
            "dataset": recipe.dataset,
            "dataset_mean": inspect_dataset(store).mean_return.mean,
            **study.to_dict(),
            **recipe.sizes(),
            "runs": max([planned, *(row["seeds"] for row in rows.values())]),
            "planned_algorithms": len(study.recipes),
            "algorithms": {name: {**study.recipes[name].to_dict(), **row} for name, row in rows.items()},
            "machine": describe_machine(),
        },
    )
    return rows
