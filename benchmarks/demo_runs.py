"""The example's recipe over several training runs: a score is over these as well as over episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.devices import chosen_device, of_device
from benchmarks.driving import Recipe, Study, Tracks
from benchmarks.laps import show, summary
from benchmarks.machines import is_of, merged, on_this_machine
from benchmarks.stores import ROOT
from offrl.runs import describe_machine
from offrl.system.json_files import read_json, write_json

RESULTS = ROOT / "benchmarks" / "results"
ALGORITHMS = ("bcq", "bc")
TUNING = Tracks("TUNING_SEEDS", 1000, 30)
SCORED = Tracks("SCORE_SEEDS", 0, 100)
_RUNS = {"demo": 5, "full": 3}


def study(size: str, algorithms: Sequence[str], runs: int | None, tracks: Tracks, device: str = "cpu") -> Study:
    """The example's runs of that size."""
    recipes = {name: Recipe.of_size(size, algorithm=name, device=device) for name in algorithms}
    return Study(recipes, runs or _RUNS[size], tracks)


@click.command()
@click.option("--full", "size", flag_value="full", help="The example's full size in place of the demo's.")
@click.option("--runs", type=click.IntRange(1), help="Training runs of each algorithm; 5, or 3 with --full.")
@click.option("--algorithm", "algorithms", multiple=True, type=click.Choice(ALGORITHMS), help="Default: both.")
@click.option("--tuning", is_flag=True, help="Drive on seeds for tuning, by which `ship` chooses.")
@click.option("--device", default="cpu", show_default=True, help="A GPU is shared by one run for each core.")
def demo_runs(size: str | None, runs: int | None, algorithms: tuple[str, ...], tuning: bool, device: str) -> None:
    """The example's recipe, BCQ and BC, over several training runs (hours; stop it and go on as you like)."""
    size, device = size or "demo", chosen_device(device)
    what = study(size, algorithms or ALGORITHMS, runs, TUNING if tuning else SCORED, device)
    words = ["--full"] if size == "full" else []
    words += [f"--runs {what.runs}", *(f"--algorithm {name}" for name in algorithms)]
    words += ["--tuning"] if tuning else []
    words += [f"--device {device}"] if device != "cpu" else []
    target = RESULTS / size / f"{'tuning' if tuning else 'runs'}{of_device(device)}.json"
    write = partial(_write, target, what, f"python -m benchmarks demo-runs {' '.join(words)}")
    what.run(after_each=write)
    show(write())


def recipe_of(name: str, what: Study) -> Recipe:
    """That of an algorithm, which the study need not have."""
    return replace(next(iter(what.recipes.values())), algorithm=name)


def _write(target: Path, what: Study, command: str) -> dict[str, dict[str, Any]]:
    """The result, of the runs that are there and of those that it has from other machines; returns its rows."""
    shared = {**next(iter(what.recipes.values())).sizes(), **what.to_dict()}
    earlier = read_json(target) if target.exists() else {}
    before = earlier["algorithms"] if earlier.get("seeds") == shared["seeds"] else {}
    recipes = {name: recipe_of(name, what) for name in {**before, **what.recipes}}
    kept = {name: row["per_run"] for name, row in before.items() if is_of(row, recipes[name])}
    runs = merged(on_this_machine(what), kept)
    rows = {name: {**recipes[name].to_dict(), **summary(each)} for name, each in runs.items()}
    write_json(target, {"command": command, **shared, "algorithms": rows, "machine": describe_machine()})
    return rows
