"""Recipes for CarRacing beside the example's, each trained several times and driven on tuning tracks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks.devices import chosen_device, of_device
from benchmarks.driving import MOST_RUNS, NO_FULL_BRAKE, Recipe, Study, Tracks
from benchmarks.laps import means_by_seed, seed_of, show, summary
from benchmarks.machines import is_of, merged, on_this_machine
from benchmarks.scoring.comparison import welch
from benchmarks.stores import ROOT
from offrl.runs import describe_machine
from offrl.system.json_files import read_json, write_json

RESULTS = ROOT / "benchmarks" / "results" / "carracing" / "recipes.json"
TRACKS = Tracks("TUNING_SEEDS", 6000, 60)
THRESHOLDS = {f"{each:g}": replace(TRACKS, threshold=each) for each in (0.1, 0.5, 0.7, 0.99)}
"""Of BCQ's policy, in place of 0.3: at 0.99 only the imitator's likeliest action is allowed, whatever its q."""
WITHOUT_FULL_BRAKE = "without full brake"
CRITIC_WEIGHTED = {
    "critic-weighted": replace(TRACKS, critic_beta=1.0),
    "critic-weighted, beta 0.3": replace(TRACKS, critic_beta=0.3),
}
"""CRR's policy times exp(q / beta): see its setting of that name, which training does not depend on."""
OTHERWISE = {**THRESHOLDS, WITHOUT_FULL_BRAKE: replace(TRACKS, without_full_brake=True), **CRITIC_WEIGHTED}
"""Other ways in which a run that was trained drives the same tracks."""
ONLY_OF = {**dict.fromkeys(THRESHOLDS, "bcq"), **dict.fromkeys(CRITIC_WEIGHTED, "crr")}
"""Whose runs can drive so, where not all can."""
FIRST = "as it was"


class Tried(NamedTuple):
    """A recipe, and what is hoped for."""

    why: str
    recipe: Recipe


# All of it in numbers: the example may take over what is found here, and these would mean something else.
_REPLAY = {"n_step": 10, "discount": 0.97, "reward_scale": 0.1, "legal_actions": None}
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
_CONFINED = replace(_THREE_STEP, replay={**_THREE_STEP.replay, "legal_actions": [*NO_FULL_BRAKE]})
_CONFINED_CRR = replace(_CONFINED, algorithm="crr")
_CONFINED_GOOD = replace(_CONFINED, replay={**_CONFINED.replay, "sampling": "softmax-returns:0.3"})
_GOOD = replace(_SMALLER, transitions=120_000, replay={**_REPLAY, "sampling": "softmax-returns:0.3"})
TRIED_BY: dict[str, dict[str, Tried]] = {
    "Returns and discount": {
        FIRST: Tried("ten-step returns, discount 0.97, 60,000 transitions, 4,000 updates of batches of 128", _FIRST),
        "discount 0.985": Tried(
            "a missed tile is punished late", replace(_FIRST, replay={**_REPLAY, "discount": 0.985})
        ),
        "one-step returns": Tried("no reward of the drivers' later actions, in batches of 64", _ONE_STEP),
        "one-step returns, discount 0.99": Tried(
            "and sees three times as far", replace(_ONE_STEP, replay={**_ONE_STEP.replay, "discount": 0.99})
        ),
        "three-step returns, discount 0.99": Tried("short returns that see far, in batches of 64", _THREE_STEP),
        "three-step returns, discount 0.995": Tried(
            "sees twice as far", replace(_THREE_STEP, replay={**_THREE_STEP.replay, "discount": 0.995})
        ),
        "five-step returns, discount 0.99, 120,000": Tried(
            "between three steps and ten",
            replace(_THREE_STEP, transitions=120_000, replay={**_THREE_STEP.replay, "n_step": 5}),
        ),
    },
    "Data, batches, updates and learning rate": {
        "200,000 transitions": Tried("2.5 passes over the data in place of 8.5", _MORE),
        "learning rate 0.001": Tried("learns faster", _FASTER),
        "learning rate 0.001, 200,000": Tried("learns faster, on more data", replace(_FASTER, transitions=200_000)),
        "batches of 64": Tried("twice the updates on as many transitions", _SMALLER),
        "batches of 64, 120,000": Tried(
            "twice the updates, on as much data as a demo can collect", replace(_SMALLER, transitions=120_000)
        ),
        "batches of 64, 200,000": Tried("twice the updates, on more data", replace(_SMALLER, transitions=200_000)),
        "batches of 32, 200,000": Tried("four times the updates, on more data", _SMALLEST),
        "three-step returns, discount 0.99, 12,000 updates": Tried(
            "half as many updates again", replace(_THREE_STEP, updates=12_000)
        ),
        "three-step returns, discount 0.99, 120,000": Tried(
            "and on as much data as a demo can collect", replace(_THREE_STEP, transitions=120_000)
        ),
    },
    "Full brake, which only the noise in the data does": {
        "three-step returns, discount 0.99, no full brake": Tried(
            "neither learns from it nor takes it",
            replace(_THREE_STEP, replay={**_THREE_STEP.replay, "actions": [*NO_FULL_BRAKE]}),
        ),
        "never full brake": Tried(
            "three-step returns, discount 0.99; learns from full brake, but never takes it", _CONFINED
        ),
        "never full brake, mean of 5": Tried(
            "and an ensemble of five q heads", replace(_CONFINED, settings={"ensemble": "mean:5"})
        ),
        "never full brake, least of 2": Tried(
            "and the lower of two q heads", replace(_CONFINED, settings={"ensemble": "min:2"})
        ),
        "never full brake, brightness": Tried(
            "and pictures up to 20 gray levels brighter or darker, shifted by up to 1 pixel",
            replace(_CONFINED, learner={**_LEARNER, "augment_brightness": 20, "augment_shift": 1}),
        ),
        "never full brake, 120,000, 16,000 updates": Tried(
            "and twice the data and the updates", replace(_CONFINED, transitions=120_000, updates=16_000)
        ),
    },
    "Other data": {
        "bolder drivers": Tried(
            "`carracing/bold`, whose best laps are faster; three-step returns, discount 0.99",
            replace(_THREE_STEP, dataset="carracing/bold"),
        ),
    },
    "Other algorithms, sampling and networks": {
        "never full brake, quantile BCQ": Tried(
            "three-step returns, discount 0.99", replace(_CONFINED, algorithm="qr-bcq")
        ),
        "never full brake, IQL": Tried(
            "three-step returns, discount 0.99; imitates what is better than expected",
            replace(_CONFINED, algorithm="iql"),
        ),
        "never full brake, CQL": Tried(
            "three-step returns, discount 0.99; the penalty weighs 0.1, as rewards are a tenth",
            replace(_CONFINED, algorithm="cql", settings={"weight": 0.1}),
        ),
        "never full brake, CRR": Tried(
            "three-step returns, discount 0.99; imitates, with soft weights, what its q finds better than average",
            _CONFINED_CRR,
        ),
        "never full brake, CRR, beta 0.3": Tried(
            "with weights that differ more", replace(_CONFINED_CRR, settings={"beta": 0.3})
        ),
        "never full brake, CRR, 180,000": Tried(
            "on more data than a demo collects", replace(_CONFINED_CRR, transitions=180_000)
        ),
        "never full brake, CRR, 180,000, 16,000 updates": Tried(
            "and twice the updates", replace(_CONFINED_CRR, transitions=180_000, updates=16_000)
        ),
        "never full brake, CRR, 300,000, 50,000 updates": Tried(
            "on the data and the updates of `make demo ARGS=--full`",
            replace(_CONFINED_CRR, transitions=300_000, updates=50_000),
        ),
        "never full brake, CRR, 600,000, 50,000 updates": Tried(
            "and on twice the data", replace(_CONFINED_CRR, transitions=600_000, updates=50_000)
        ),
        "never full brake, residual": Tried(
            "`ResidualEncoder`; three-step returns, discount 0.99", replace(_CONFINED, encoder="residual")
        ),
        "never full brake, CRR, residual": Tried(
            "and imitates what its q finds better than average", replace(_CONFINED_CRR, encoder="residual")
        ),
        "never full brake, CRR, residual, 5,000 updates": Tried(
            "in which it and BC take as long as BCQ and BC with `NatureEncoder` and 8,000",
            replace(_CONFINED_CRR, encoder="residual", updates=5_000),
        ),
        "never full brake, CRR, residual, 120,000": Tried(
            "on twice the data, with no more updates",
            replace(_CONFINED_CRR, encoder="residual", transitions=120_000),
        ),
        "never full brake, CRR, residual, 300,000, 16,000 updates": Tried(
            "on five times the data, with twice the updates",
            replace(_CONFINED_CRR, encoder="residual", transitions=300_000, updates=16_000),
        ),
        "never full brake, CRR, residual, 300,000, 50,000 updates": Tried(
            "on the data and the updates of `make demo ARGS=--full`",
            replace(_CONFINED_CRR, encoder="residual", transitions=300_000, updates=50_000),
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
        "never full brake, good laps more often": Tried(
            "three-step returns, discount 0.99, drawn by return, softmax-returns:0.3", _CONFINED_GOOD
        ),
        "never full brake, good laps more often, 120,000": Tried(
            "and on as much data as a demo can collect", replace(_CONFINED_GOOD, transitions=120_000)
        ),
        "good laps more often": Tried("batches of 64 on 120,000, drawn by return, softmax-returns:0.3", _GOOD),
        "good laps more often, discount 0.985": Tried(
            "and a missed tile is punished late", replace(_GOOD, replay={**_GOOD.replay, "discount": 0.985})
        ),
        "compact": Tried("a network 2.5 times as fast, and 10,000 updates", replace(_COMPACT, transitions=60_000)),
        "compact, 200,000": Tried("a network 2.5 times as fast, 10,000 updates, more data", _COMPACT),
    },
}
TRIED = {name: tried for recipes in TRIED_BY.values() for name, tried in recipes.items()}


@click.command()
@click.option("--recipe", "names", multiple=True, type=click.Choice([*TRIED]), help="Default: all.")
@click.option("--runs", default=2, show_default=True, type=click.IntRange(1), help="Training runs of each.")
@click.option("--otherwise", type=click.Choice([*OTHERWISE]), help="Drive the runs so; a number is BCQ's threshold.")
@click.option("--device", default="cpu", show_default=True, help="A GPU is shared by one run for each core.")
def recipes(names: Sequence[str], runs: int, otherwise: str | None, device: str) -> None:
    """Trains recipes, a run on each core at a time, seed by seed (hours; stop it and go on as you like).

    The result has all runs that are there, of these recipes and others, and is written after each. Driven runs of
    the same recipes that it has from another machine stay in it.
    """
    if otherwise in ONLY_OF:
        names = [name for name in names or TRIED if TRIED[name].recipe.algorithm == ONLY_OF[otherwise]]
        if not names:
            raise click.UsageError(f"--otherwise {otherwise} is for recipes of {ONLY_OF[otherwise].upper()}")
    device = chosen_device(device)
    write = partial(_write, device)
    study = _study(names or [*TRIED], runs, TRACKS if otherwise is None else OTHERWISE[otherwise], device)
    study.run(after_each=write)
    rows = write()
    show(rows if otherwise is None else recipe_rows(on_this_machine(study)))


def _study(names: Iterable[str], runs: int, tracks: Tracks, device: str) -> Study:
    return Study({name: replace(TRIED[name].recipe, device=device) for name in names}, runs, tracks)


def _write(device: str) -> dict[str, dict[str, Any]]:
    """recipes.json, of all runs that are there; returns its rows."""
    study = _study(TRIED, MOST_RUNS, TRACKS, device)
    rows = _rows(study, device)
    command = f"python -m benchmarks recipes --runs {most_runs(rows)}"
    command += f" --device {device}" if device != "cpu" else ""
    result = {"command": command, **study.to_dict(), "recipes": rows, "machine": describe_machine()}
    write_json(_path(device), result)
    return rows


def _path(device: str) -> Path:
    return RESULTS.with_stem(f"{RESULTS.stem}{of_device(device)}")


def _rows(study: Study, device: str) -> dict[str, dict[str, Any]]:
    """Of the runs on this machine, and of those that the result has from others: a search goes on over many."""
    kept = _path(device)
    here, earlier = on_this_machine(study), read_json(kept) if kept.exists() else {}
    before = still_tried(earlier["recipes"]) if earlier.get("seeds") == str(study.judge) else {}
    rows = recipe_rows(merged(here, {name: row["per_run"] for name, row in before.items()}))
    for otherwise, tracks in OTHERWISE.items():
        other = _study(TRIED, MOST_RUNS, tracks, device)
        driven = {
            name: {  # what an earlier run of that name scored says nothing of the one that lies here
                key: run
                for key, run in row.get("otherwise", {}).get(otherwise, {}).items()
                if key not in here.get(name, {})
            }
            for name, row in before.items()
        }
        add_otherwise(rows, otherwise, merged(on_this_machine(other), driven))
    return rows


def still_tried(rows: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows whose recipe is today's of that name."""
    return {name: row for name, row in rows.items() if name in TRIED and is_of(row, TRIED[name].recipe)}


def add_otherwise(
    rows: Mapping[str, dict[str, Any]], otherwise: str, found: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> None:
    """Puts what runs score otherwise into the rows, where they have driven as they were trained, too."""
    for name, runs in found.items():
        own = rows[name]["per_run"] if name in rows else {}
        beside = {seed: run for seed, run in summary(runs)["per_run"].items() if seed in own}
        if beside:
            rows[name].setdefault("otherwise", {})[otherwise] = beside


def most_runs(rows: Mapping[str, Mapping[str, Any]]) -> int:
    """The command with as many makes all that is there, and the rest."""
    counts = [1 + max(map(seed_of, row["per_run"])) for row in rows.values()]
    return max(counts, default=1)


def recipe_rows(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """`summary` of each recipe, and its difference to the first by Welch's test: the runs share nothing but tracks."""
    rows: dict[str, dict[str, Any]] = {}
    for name in filter(found.__contains__, TRIED):  # in its order
        runs = found[name]
        rows[name] = {"why": TRIED[name].why, **TRIED[name].recipe.to_dict(), **summary(runs)}
        if name != FIRST and FIRST in found:
            mine, first = ([*means_by_seed(each).values()] for each in (runs, found[FIRST]))
            rows[name]["minus_as_it_was"] = welch(mine, first)._asdict()
    return rows
