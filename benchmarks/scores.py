"""Algorithms on the five kinds of datasets, over training seeds: the table by which a library is believed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from benchmarks import charts
from benchmarks.scoring.cells import BATCH_SIZE, LEARNER, REPLAY, SEEDS, Cell, dataset
from benchmarks.scoring.statistics import Scores, estimate, interquartile_mean, probability_of_improvement
from benchmarks.stores import ROOT
from offrl import envs, open_replay
from offrl.cli.names import ALGORITHMS
from offrl.collection import KINDS, collect_protocol
from offrl.runs import describe_machine
from offrl.shards import Manifest
from offrl.statistics import t_interval
from offrl.system.json_files import write_json
from offrl.system.side_by_side import side_by_side
from offrl.system.workers import num_cores

RESULTS = ROOT / "benchmarks" / "results" / "scores"
SHELF = "bc,dqn,qr-dqn,bcq,cql,iql,crr,rem"
BASELINE = "bc"


def _names(allowed: Sequence[str]) -> Any:
    def split(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(value.split(",")))
        if unknown := [name for name in names if name not in allowed]:
            raise click.BadParameter(f"{', '.join(unknown)}; one or several of {','.join(allowed)}")
        return names

    return split


@click.command()
@click.option("--environment", "environments", multiple=True, default=["CartPole-v1"], show_default=True)
@click.option("--kinds", default=",".join(KINDS), callback=_names([*KINDS]), show_default=True)
@click.option("--algorithms", default=SHELF, callback=_names([*ALGORITHMS]), show_default=True)
@click.option("--runs", default=5, show_default=True, help="Training seeds of each cell.")
@click.option("--updates", default=20_000, show_default=True, help="Of each run, the same for all.")
@click.option("--transitions", default=100_000, show_default=True, help="Of each dataset.")
@click.option("--work", default=ROOT / "data" / "scores", type=click.Path(path_type=Path), help="Kept: goes on there.")
def scores(
    environments: Sequence[str],
    kinds: Sequence[str],
    algorithms: Sequence[str],
    runs: int,
    updates: int,
    transitions: int,
    work: Path,
) -> None:
    """Trains algorithms x datasets x seeds, a process on each core, and evaluates them. Goes on where it was stopped.

    The budget and the settings are the same in every cell, and nothing is tuned.
    """
    work = work.resolve() / f"{transitions}"
    for environment, kind in product(environments, kinds):
        directory = dataset(work, environment, kind)
        collect_protocol(partial(envs.make, environment), kind, directory.parent, transitions=transitions)
        open_replay(directory, progress=False)  # ingested once, before two would
    # Seed by seed: what has been done when time is up is a table of fewer seeds, and not of fewer datasets.
    cells = [
        Cell(environment, kind, algorithm, seed, updates)
        for seed in range(runs)
        for environment, kind, algorithm in product(environments, kinds, algorithms)
    ]
    todo = {"/".join(map(str, cell[:4])): cell.command(work) for cell in cells if cell.score(work) is None}
    environment_variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with tqdm(total=len(cells), initial=len(cells) - len(todo), unit="run", disable=None) as bar:
        for ended in side_by_side(todo, at_once=num_cores(), environment=environment_variables):
            if ended.exit_code != 0:
                sys.exit(f"{ended.name} failed; the same command goes on with the others")
            bar.update()
    write_results(work, environments, kinds, algorithms, cells, transitions)


def write_results(
    work: Path,
    environments: Sequence[str],
    kinds: Sequence[str],
    algorithms: Sequence[str],
    cells: Sequence[Cell],
    transitions: int,
) -> None:
    """results.json, of what is there, and a picture."""
    tasks = [*product(environments, kinds)]
    found = {cell: cell.score(work) for cell in cells}
    table: dict[str, dict[str, Any]] = {}
    normalised: dict[str, Scores] = {}
    for algorithm in algorithms:
        rows, row = [], {}
        for environment, kind in tasks:
            means = [
                score["score"]
                for cell, score in found.items()
                if score is not None and cell[:3] == (environment, kind, algorithm)
            ]
            low, high = references(work, environment, kind)
            row[f"{environment}/{kind}"] = {**t_interval(means).to_dict(), "runs": means}
            rows.append([(mean - low) / (high - low) for mean in means])
        table[algorithm] = {"cells": row, "seconds_per_run": _seconds(found, algorithm)}
        normalised[algorithm] = np.array(rows)
    for algorithm, values in normalised.items():
        table[algorithm]["interquartile_mean"] = estimate(interquartile_mean, values)._asdict()
        if BASELINE in normalised and algorithm != BASELINE:
            better = estimate(probability_of_improvement, values, normalised[BASELINE])
            table[algorithm]["probability_of_improvement_over_bc"] = better._asdict()
    show(table)
    means = {algorithm: row["interquartile_mean"]["value"] for algorithm, row in table.items()}
    charts.bars(means, "interquartile mean (0: random, 1: the best online policy)", RESULTS / "results.png", [])
    first = cells[0]
    runs = 1 + max(cell.seed for cell in cells)
    given = "".join(f" --environment {name}" for name in environments)
    given += f" --kinds {','.join(kinds)}" if [*kinds] != [*KINDS] else ""
    given += f" --algorithms {','.join(algorithms)}" if ",".join(algorithms) != SHELF else ""
    options = {"--runs": (runs, 5), "--updates": (first.updates, 20_000), "--transitions": (transitions, 100_000)}
    given += "".join(f" {name} {value}" for name, (value, default) in options.items() if value != default)
    write_json(
        RESULTS / "results.json",
        {
            "command": f"python -m benchmarks scores{given}",
            "transitions": transitions,
            "updates": first.updates,
            "runs": runs,
            "batch_size": BATCH_SIZE,
            "replay": REPLAY,
            "learner": LEARNER,
            "evaluation_seeds": [SEEDS[0], SEEDS[-1]],
            "datasets": {f"{e}/{k}": measures(work, e, k) for e, k in tasks},
            "algorithms": table,
            "machine": describe_machine(),
        },
    )


def references(work: Path, environment: str, kind: str) -> tuple[float, float]:
    """The mean returns of random actions and of the best online policy, between which scores are normalised."""
    protocol = Manifest.load(dataset(work, environment, kind)).protocol or {}
    return float(protocol["random_return"]), float(protocol["best_return"])


def measures(work: Path, environment: str, kind: str) -> dict[str, Any]:
    """Of a dataset: its mean return, and what scores are normalised by."""
    from offrl.datasets import inspect_dataset

    low, high = references(work, environment, kind)
    store = open_replay(dataset(work, environment, kind), progress=False).store
    return {"mean_return": inspect_dataset(store).mean_return.mean, "random_return": low, "best_return": high}


def show(table: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the table: mean over runs of each cell, then the interquartile mean."""
    names = [*next(iter(table.values()))["cells"]]
    print(f"{'':<8}" + "".join(f"{name.split('-')[0]}/{name.split('/')[-1]:<8}".rjust(18) for name in names) + "   IQM")
    for algorithm, row in table.items():
        cells = "".join(f"{row['cells'][name]['mean']:18.1f}" for name in names)
        print(f"{algorithm:<8}{cells}   {row['interquartile_mean']['value']:.2f}")


def _seconds(found: Mapping[Cell, Mapping[str, Any] | None], algorithm: str) -> float:
    seconds = [score["training_seconds"] for cell, score in found.items() if score and cell.algorithm == algorithm]
    return float(np.median(seconds))
