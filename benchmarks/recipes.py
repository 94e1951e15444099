"""Recipes for CarRacing beside the example's, each trained several times and driven on tuning tracks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks.driving import HeldOut, Recipe, Study, Tracks, show, summary
from benchmarks.scoring.comparison import welch
from benchmarks.stores import ROOT
from offrl.runs import describe_machine
from offrl.system.json_files import read_json, write_json

RESULTS = ROOT / "benchmarks" / "results" / "carracing" / "recipes.json"
HELD_OUT = RESULTS.with_name("recipes-held-out.json")
TRACKS = Tracks("TUNING_SEEDS", 6000, 60)
THRESHOLDS = (0.1, 0.5, 0.7, 0.99)
"""Of BCQ's policy, in place of 0.3: at 0.99 only the imitator's likeliest action is allowed, whatever its q."""
FIRST = "as it was"
_MOST_RUNS = 100


class Tried(NamedTuple):
    """A recipe, and what is hoped for."""

    why: str
    recipe: Recipe


# All of it in numbers: the example may take over what is found here, and these would mean something else.
_REPLAY = {"n_step": 10, "discount": 0.97, "reward_scale": 0.1}
_LEARNER = {"learning_rate": 5e-4, "schedule": "cosine", "polyak": 0.01, "average_decay": 0.999}
_FIRST = Recipe("bcq", 60_000, 4_000, 128, "nature", _REPLAY, _LEARNER)
_MORE = replace(_FIRST, transitions=200_000)
_COMPACT = replace(_MORE, encoder="compact", updates=10_000)
_FASTER = replace(_FIRST, learner={**_LEARNER, "learning_rate": 1e-3})
_SMALLER = replace(_FIRST, batch_size=64, updates=8_000)
_SMALLEST = replace(_MORE, batch_size=32, updates=16_000)
_CRR = replace(_SMALLER, algorithm="crr", transitions=120_000)
_ONE_STEP = replace(_SMALLER, replay={**_REPLAY, "n_step": 1})
_THREE_STEP = replace(_SMALLER, replay={**_REPLAY, "n_step": 3, "discount": 0.99})
_GOOD = replace(_SMALLER, transitions=120_000, replay={**_REPLAY, "sampling": "softmax-returns:0.3"})
TRIED = {
    FIRST: Tried("discount 0.97, 60,000 transitions, 4,000 updates", _FIRST),
    "discount 0.985": Tried("a missed tile is punished late", replace(_FIRST, replay={**_REPLAY, "discount": 0.985})),
    "200,000 transitions": Tried("2.5 passes over the data in place of 8.5", _MORE),
    "learning rate 0.001": Tried("learns faster", _FASTER),
    "learning rate 0.001, 200,000": Tried("learns faster, on more data", replace(_FASTER, transitions=200_000)),
    "batches of 64": Tried("twice the updates on as many transitions", _SMALLER),
    "batches of 64, 120,000": Tried(
        "twice the updates, on as much data as a demo can collect", replace(_SMALLER, transitions=120_000)
    ),
    "batches of 64, 200,000": Tried("twice the updates, on more data", replace(_SMALLER, transitions=200_000)),
    "batches of 32, 200,000": Tried("four times the updates, on more data", _SMALLEST),
    "one-step returns": Tried("no reward of the drivers' later actions, in batches of 64", _ONE_STEP),
    "one-step returns, discount 0.99": Tried(
        "and sees three times as far", replace(_ONE_STEP, replay={**_ONE_STEP.replay, "discount": 0.99})
    ),
    "three-step returns, discount 0.99": Tried("learns it sooner, in batches of 64", _THREE_STEP),
    "three-step returns, discount 0.99, 12,000 updates": Tried(
        "half as many updates again", replace(_THREE_STEP, updates=12_000)
    ),
    "three-step returns, discount 0.995": Tried(
        "sees twice as far", replace(_THREE_STEP, replay={**_THREE_STEP.replay, "discount": 0.995})
    ),
    "three-step returns, discount 0.99, 120,000": Tried(
        "and on as much data as a demo can collect", replace(_THREE_STEP, transitions=120_000)
    ),
    "five-step returns, discount 0.99, 120,000": Tried(
        "between three steps and ten",
        replace(_THREE_STEP, transitions=120_000, replay={**_THREE_STEP.replay, "n_step": 5}),
    ),
    "CRR, binary": Tried(
        "imitates what its q finds better than average, in batches of 64 on 120,000",
        replace(_CRR, settings={"weighting": "binary"}),
    ),
    "CRR, exponential": Tried(
        "weights by the advantage, beta 0.2, in batches of 64 on 120,000", replace(_CRR, settings={"beta": 0.2})
    ),
    "CRR, exponential, discount 0.99": Tried(
        "sees three times as far", replace(_CRR, settings={"beta": 0.2}, replay={**_REPLAY, "discount": 0.99})
    ),
    "good laps more often": Tried("batches of 64 on 120,000, drawn by return, softmax-returns:0.3", _GOOD),
    "good laps more often, discount 0.985": Tried(
        "and a missed tile is punished late", replace(_GOOD, replay={**_GOOD.replay, "discount": 0.985})
    ),
    "compact": Tried("a network 2.5 times as fast, and 10,000 updates", replace(_COMPACT, transitions=60_000)),
    "compact, 200,000": Tried("a network 2.5 times as fast, 10,000 updates, more data", _COMPACT),
}


@click.command()
@click.option("--recipe", "names", multiple=True, type=click.Choice([*TRIED]), help="Default: all.")
@click.option("--runs", default=2, show_default=True, type=click.IntRange(1), help="Training runs of each.")
@click.option(
    "--threshold",
    type=click.Choice([f"{each:g}" for each in THRESHOLDS]),
    help="Drive BCQ's runs with another one than 0.3.",
)
@click.option("--held-out", is_flag=True, help="After half the updates, read on other data in place of driving.")
def recipes(names: Sequence[str], runs: int, threshold: str | None, held_out: bool) -> None:
    """Trains recipes, a run on each core at a time, seed by seed (hours; stop it and go on as you like).

    The result has all runs that are there, of these recipes and others, with those that it had before of the same
    recipes, and is written after each.
    """
    if threshold is not None and held_out:
        raise click.UsageError("--threshold says how runs drive, which --held-out runs do not")
    if threshold is not None:
        names = [name for name in names or TRIED if TRIED[name].recipe.algorithm == "bcq"]
        if not names:
            raise click.UsageError("--threshold is for recipes of BCQ: the others' policies have none")
    write = partial(_write, held_out=held_out)
    judge = HeldOut() if held_out else replace(TRACKS, threshold=None if threshold is None else float(threshold))
    study = _study(names or [*TRIED], runs, judge)
    study.run(after_each=write)
    rows = write()
    if held_out:
        show_held_out(rows)
    else:
        show(rows if threshold is None else recipe_rows(_on_this_machine(study)))


def shorter(recipe: Recipe) -> Recipe:
    """Half the updates: what sorts recipes before they are driven."""
    return replace(recipe, updates=recipe.updates // 2)


def _study(names: Iterable[str], runs: int, judge: Tracks | HeldOut) -> Study:
    chosen = {name: TRIED[name].recipe for name in names}
    if isinstance(judge, HeldOut):
        chosen = {name: shorter(recipe) for name, recipe in chosen.items()}
    return Study(chosen, runs, judge)


def _write(*, held_out: bool) -> dict[str, dict[str, Any]]:
    """recipes.json or recipes-held-out.json, of all runs that are there; returns its rows."""
    study = _study(TRIED, _MOST_RUNS, HeldOut() if held_out else TRACKS)
    rows = held_out_rows(study.evaluations()) if held_out else _driven_rows(study)
    command = f"python -m benchmarks recipes{' --held-out' if held_out else ''} --runs {most_runs(rows)}"
    result = {"command": command, **study.to_dict(), "recipes": rows, "machine": describe_machine()}
    write_json(HELD_OUT if held_out else RESULTS, result)
    return rows


def _driven_rows(study: Study) -> dict[str, dict[str, Any]]:
    earlier = read_json(RESULTS)["recipes"] if RESULTS.exists() else {}
    rows = recipe_rows(with_earlier(_on_this_machine(study), earlier))
    for threshold in THRESHOLDS:
        other = _study(TRIED, _MOST_RUNS, replace(TRACKS, threshold=threshold))
        driven = with_earlier(_on_this_machine(other), earlier, f"{threshold:g}")
        add_thresholds(rows, f"{threshold:g}", driven)
    return rows


def _on_this_machine(study: Study) -> dict[str, dict[str, Any]]:
    """Name -> training seed and processor -> evaluation: in bf16 another processor makes another run of a seed."""
    processor = describe_machine()["processor"]
    return {
        name: {f"{seed}, {processor}": run for seed, run in runs.items()} for name, runs in study.evaluations().items()
    }


def with_earlier(
    found: Mapping[str, Mapping[str, Any]], earlier: Mapping[str, Mapping[str, Any]], threshold: str | None = None
) -> dict[str, dict[str, Any]]:
    """Runs, and those that the earlier rows have beside them: of other machines, or no longer kept on this one.

    A search goes on over many machines. A recipe that has changed since begins anew.
    """
    runs: dict[str, dict[str, Any]] = {}
    for name, tried in TRIED.items():
        row = earlier.get(name, {})
        driven = row.get("per_run", {}) if threshold is None else row.get("thresholds", {}).get(threshold, {})
        known = {**(driven if _states(row, asdict(tried.recipe)) else {}), **found.get(name, {})}
        if known:
            runs[name] = dict(sorted(known.items()))
    return runs


def _states(row: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether all settings are in the row, whatever else is."""
    return all(
        _states(row.get(name, {}), value) if isinstance(value, Mapping) else row.get(name) == value
        for name, value in settings.items()
    )


def add_thresholds(
    rows: Mapping[str, dict[str, Any]], threshold: str, found: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> None:
    """Puts what runs score with another threshold into the rows, where they have driven with their own too."""
    for name, runs in found.items():
        own = rows[name]["per_run"] if name in rows else {}
        beside = {seed: run for seed, run in summary(runs)["per_run"].items() if seed in own}
        if beside:
            rows[name].setdefault("thresholds", {})[threshold] = beside


def most_runs(rows: Mapping[str, Mapping[str, Any]]) -> int:
    """Of the recipe that has most: the command with as many makes all that is there, and the rest."""
    return max((int(row["runs"]) for row in rows.values()), default=1)


def held_out_rows(found: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Means over the runs of each recipe."""
    rows: dict[str, dict[str, Any]] = {}
    for name, runs in found.items():
        means: dict[str, float | None] = {}
        for figure in next(iter(runs.values())):
            known = [run[figure] for run in runs.values() if run[figure] is not None]
            means[figure] = float(np.mean(known)) if known else None
        rows[name] = {"why": TRIED[name].why, **shorter(TRIED[name].recipe).to_dict(), "runs": len(runs), **means}
    return rows


def show_held_out(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the table, the least loss first."""
    for name, row in sorted(rows.items(), key=lambda row: float(row[1]["imitation_loss"])):
        seconds = row["training_cpu_seconds"]
        cost = "" if seconds is None else f", {seconds:.0f} seconds of one core"
        figures = f"{row['imitation_loss']:.3f} nats, {row['imitation_accuracy']:.1%} foretold"
        print(f"{name:28} {figures}{cost}, {row['runs']} runs")


def recipe_rows(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """`summary` of each recipe, and its difference to the first by Welch's test: the runs share nothing but tracks."""
    rows: dict[str, dict[str, Any]] = {}
    for name, runs in found.items():
        rows[name] = {"why": TRIED[name].why, **TRIED[name].recipe.to_dict(), **summary(runs)}
        if name != FIRST and FIRST in found:
            means, first = ([run["mean"] for run in each.values()] for each in (runs, found[FIRST]))
            rows[name]["minus_as_it_was"] = welch(means, first)._asdict()
    return rows
