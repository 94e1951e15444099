"""Training runs of several machines in one result: one seed's runs on two processors drift apart, and both are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.driving import Recipe, Study
from benchmarks.laps import seed_of
from offrl.runs import describe_machine
from offrl.training import LearnerConfig

Runs = Mapping[str, Mapping[str, Any]]
"""Training seed, processor and precision, such as "0, AMD EPYC (family 26, model 2), bf16" -> evaluation."""


def on_this_machine(study: Study) -> dict[str, dict[str, Any]]:
    """Name -> `Runs`: those of a study."""
    machine, given = describe_machine(), study.to_dict()
    how = f"{machine['processor' if given['device'] == 'cpu' else 'gpu']}, {given['precision']}"
    return {name: {f"{seed}, {how}": run for seed, run in runs.items()} for name, runs in study.evaluations().items()}


def merged(here: Mapping[str, Runs], elsewhere: Mapping[str, Runs]) -> dict[str, dict[str, Any]]:
    """The runs of both, in the order of their seeds; of a run that both have, the one from here."""
    both = {name: {**elsewhere.get(name, {}), **here.get(name, {})} for name in {**elsewhere, **here}}
    return {name: dict(sorted(runs.items(), key=lambda run: seed_of(run[0]))) for name, runs in both.items() if runs}


def is_of(row: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a row of a result, `Recipe.to_dict` and `benchmarks.laps.summary`, is of today's recipe.

    The row's precision is that of its machine, and settings that the learner did not have then are the defaults.
    """
    stated = recipe.to_dict()
    learner = {**stated.pop("learner"), "precision": None}
    kept = {**{name: asdict(LearnerConfig())[name] for name in learner}, **row.get("learner", {}), "precision": None}
    left_out = {"dataset": None, "device": None, "revision": None}  # where they are the usual ones
    return kept == learner and all(row.get(name) == value for name, value in {**left_out, **stated}.items())


def processors(rows: Iterable[Mapping[str, Any]]) -> str:
    """Which have trained the runs of some rows, `benchmarks.laps.summary`, in words."""
    runs = Counter(key.partition(", ")[2] for row in rows for key in row["per_run"])
    return "runs by " + " and ".join(f"{processor} ({count})" for processor, count in sorted(runs.items()))
