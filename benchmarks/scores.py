"""Algorithms on the five kinds of datasets, over training seeds: the table by which a library is believed."""

from __future__ import annotations

import json
import os
import subprocess
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
from benchmarks.devices import chosen_device, of_device
from benchmarks.peers.environments import CHECKS, PeerError, python_of
from benchmarks.scoring import peers as peer_scores
from benchmarks.scoring.aggregate import BASELINE, BETTER, OVER_ALL, aggregates, pooled
from benchmarks.scoring.cells import BATCH_SIZE, LEARNER, REPLAY, SEEDS, Cell, dataset, make_env
from benchmarks.scoring.peers import SETTINGS
from benchmarks.scoring.statistics import Scores
from benchmarks.stores import ROOT
from offrl import open_replay
from offrl.cli.names import ALGORITHMS
from offrl.collection import KINDS, Kind, collect_protocol
from offrl.datasets.coverage import References, measure
from offrl.runs import describe_machine
from offrl.shards import Manifest
from offrl.statistics import t_interval
from offrl.system.json_files import read_json, write_json
from offrl.system.side_by_side import side_by_side
from offrl.system.workers import num_cores

RESULTS = ROOT / "benchmarks" / "results" / "scores"
SHELF = "bc,dqn,qr-dqn,bcq,cql,qr-cql,iql,crr,rem"
TOLERANCE = 1e-6
_NORMALISED = "interquartile mean (0: random, 1: the best online policy)"


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
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1), help="Training seeds of each cell.")
@click.option("--updates", default=20_000, show_default=True, type=click.IntRange(1), help="Of each run.")
@click.option("--transitions", default=100_000, show_default=True, type=click.IntRange(1), help="Of each dataset.")
@click.option("--peers", is_flag=True, help="d3rlpy and Tianshou too, with our settings.")
@click.option("--peers-defaults", is_flag=True, help="The same and with each library's own defaults.")
@click.option("--device", default="cpu", show_default=True, help="Of our runs: a GPU is shared by one for each core.")
@click.option("--check-with-rliable", is_flag=True, help="Compare the aggregates with that package's.")
@click.option("--work", default=ROOT / "data" / "scores", type=click.Path(path_type=Path), help="Kept: goes on there.")
def scores(
    environments: Sequence[str],
    kinds: Sequence[Kind],
    algorithms: Sequence[str],
    runs: int,
    updates: int,
    transitions: int,
    peers: bool,
    peers_defaults: bool,
    device: str,
    check_with_rliable: bool,
    work: Path,
) -> None:
    """Trains algorithms x datasets x seeds, a process on each core, and evaluates them. Goes on where it was stopped.

    The budget and the settings are the same in every cell, and nothing is tuned.
    """
    work = work.resolve() / f"{transitions}"
    device = chosen_device(device)
    if peers or peers_defaults:  # what cannot be compared says so before anything is made
        try:
            peer_scores.prepare(environments)
        except PeerError as error:
            sys.exit(f"--peers: {error}")
    for environment, kind in product(environments, kinds):
        directory = dataset(work, environment, kind)
        collect_protocol(partial(make_env, environment), kind, directory.parent, transitions=transitions)
        open_replay(directory, progress=False)  # ingested once, before two would
    # Seed by seed: what has been done when time is up is a table of fewer seeds, and not of fewer datasets.
    cells = [
        Cell(environment, kind, algorithm, seed, updates, device)
        for seed in range(runs)
        for environment, kind, algorithm in product(environments, kinds, algorithms)
    ]
    others: list[peer_scores.PeerCell] = []
    if peers or peers_defaults:
        others = peer_scores.peer_cells(
            environments, kinds, algorithms, runs, updates, SETTINGS if peers_defaults else SETTINGS[:1]
        )
    everything: list[Cell | peer_scores.PeerCell] = [*cells, *others]
    todo = {cell.name: cell.command(work) for cell in everything if cell.score(work) is None}
    environment_variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    count = len(everything)
    with tqdm(total=count, initial=count - len(todo), unit="run", disable=None) as bar:
        for ended in side_by_side(todo, at_once=num_cores(), environment=environment_variables):
            if ended.exit_code != 0:
                sys.exit(f"{ended.name} failed; the same command goes on with the others")
            bar.update()
    for environment in environments:
        mine = [cell for cell in cells if cell.environment == environment]
        theirs = [cell for cell in others if cell.environment == environment]
        write_results(work, environment, kinds, algorithms, mine, theirs, transitions, check_with_rliable)
    write_over_all(check_with_rliable)


def write_results(
    work: Path,
    environment: str,
    kinds: Sequence[str],
    algorithms: Sequence[str],
    cells: Sequence[Cell],
    others: Sequence[peer_scores.PeerCell],
    transitions: int,
    check_with_rliable: bool,
) -> None:
    """Of what is there of an environment: a result and a picture, with other libraries' in a file of its own.

    The data of an environment is another one on each machine that makes it, and so each result is of one.
    """
    tasks = [(environment, kind) for kind in kinds]
    found = {cell: cell.score(work) for cell in cells}
    table: dict[str, dict[str, Any]] = {}
    normalised: dict[str, Scores] = {}
    for algorithm in algorithms:
        rows: list[list[float]] = []
        row: dict[str, Any] = {}
        for environment, kind in tasks:
            means = [
                score["score"]
                for cell, score in found.items()
                if score is not None and cell[:3] == (environment, kind, algorithm)
            ]
            low, high = references(work, environment, kind)
            row[f"{environment}/{kind}"] = {**t_interval(means).to_dict(), "runs": means}
            rows.append([(mean - low) / (high - low) for mean in means])
        table[algorithm] = {"cells": row, "cpu_seconds_per_run": _seconds(found, algorithm)}
        normalised[algorithm] = np.array(rows)
    for algorithm, found_of_all in aggregates(normalised).items():
        table[algorithm] |= found_of_all
    show(table)
    compared = peer_scores.compare(work, cells, others)
    peer_scores.show(compared)
    checked = rliable_check(normalised, table) if check_with_rliable else None
    name = f"{environment.replace('/', '-')}{of_device(cells[0].device)}{'-peers' if others else ''}"
    if others:
        lines = {
            f"{each.library} {each.algorithm}, {each.dataset.rpartition('/')[2]}": each.difference
            for each in peer_scores.cellwise(compared)
            if each.settings == SETTINGS[0]
        }
        bars = {name: (each["mean"], each["low"], each["high"]) for name, each in lines.items()}
        charts.intervals(bars, "mean return: ours minus another's", RESULTS / f"{name}.png", line=0.0)
    else:
        bars = {algorithm: tuple(row["interquartile_mean"].values()) for algorithm, row in table.items()}
        charts.intervals(bars, _NORMALISED, RESULTS / f"{name}.png")
    first = cells[0]
    runs = 1 + max(cell.seed for cell in cells)
    given = f" --environment {environment}"
    given += f" --kinds {','.join(kinds)}" if [*kinds] != [*KINDS] else ""
    given += f" --algorithms {','.join(algorithms)}" if ",".join(algorithms) != SHELF else ""
    options = {"--runs": (runs, 5), "--updates": (first.updates, 20_000), "--transitions": (transitions, 100_000)}
    given += "".join(f" {name} {value}" for name, (value, default) in options.items() if value != default)
    columns = {cell.settings for cell in others}
    given += " --peers-defaults" if "defaults" in columns else " --peers" if columns else ""
    given += f" --device {first.device}" if first.device != "cpu" else ""
    given += " --check-with-rliable" if check_with_rliable else ""
    write_json(
        RESULTS / f"{name}.json",
        {
            "command": f"python -m benchmarks scores{given}",
            "environment": environment,
            "transitions": transitions,
            "updates": first.updates,
            "runs": runs,
            "batch_size": BATCH_SIZE,
            "replay": REPLAY,
            "learner": LEARNER,
            "device": first.device,
            "evaluation_seeds": [SEEDS[0], SEEDS[-1]],
            "datasets": {f"{e}/{k}": measures(work, e, k) for e, k in tasks},
            "algorithms": table,
            **({"peers": compared} if others else {}),
            **({"rliable": checked} if checked is not None else {}),
            "machine": describe_machine(),
        },
    )


def write_over_all(check_with_rliable: bool) -> None:
    """The aggregates over all environments that have a result of offrl's own runs on a CPU, where several have."""
    results = [read_json(path) for path in sorted(RESULTS.glob("*.json")) if path.stem != OVER_ALL]
    results = [found for found in results if "peers" not in found and found["device"] == "cpu"]
    sizes = {name: results[0][name] for name in ("transitions", "updates")} if results else {}
    results = [found for found in results if {name: found[name] for name in sizes} == sizes]
    if len(results) < 2:
        return
    scores = pooled(results)
    rows = aggregates(scores)
    bars = {name: tuple(row["interquartile_mean"].values()) for name, row in rows.items()}
    charts.intervals(bars, _NORMALISED, RESULTS / f"{OVER_ALL}.png")
    write_json(
        RESULTS / f"{OVER_ALL}.json",
        {
            "environments": [found["environment"] for found in results],
            **sizes,
            "runs": min(found["runs"] for found in results),
            "algorithms": rows,
            **({"rliable": rliable_check(scores, rows)} if check_with_rliable else {}),
        },
    )


def rliable_check(normalised: Mapping[str, Scores], table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Rliable's version, and by how much its aggregates of the same scores differ from ours at most.

    Raises:
        SystemExit: By more than rounding explains, or it cannot be installed.
    """
    asked = {"scores": {name: values.tolist() for name, values in normalised.items()}, "baseline": BASELINE}
    try:
        python = python_of("rliable")
    except PeerError as error:
        sys.exit(f"rliable: {error}")
    command = [str(python), str(ROOT / "benchmarks" / "peers" / CHECKS["rliable"].script)]
    ended = subprocess.run(command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(ended.stdout)
    differences = [
        abs(theirs - table[name][ours]["value"])
        for measure, ours in (("interquartile_mean",) * 2, ("probability_of_improvement", BETTER))
        for name, theirs in found[measure].items()
    ]
    largest = max(differences)
    print(f"rliable {found['version']}: {len(differences)} aggregates, the largest difference {largest:.1e}")
    if largest > TOLERANCE:
        sys.exit(f"rliable's aggregates differ by {largest:g}")
    return {"version": found["version"], "aggregates": len(differences), "largest_difference": largest}


def references(work: Path, environment: str, kind: str) -> tuple[float, float]:
    """The mean returns of random actions and of the best online policy, between which scores are normalised."""
    protocol = Manifest.load(dataset(work, environment, kind)).protocol or {}
    low, high = float(protocol["random_return"]), float(protocol["best_return"])
    if not high > low:
        sys.exit(
            f"{environment}: the best online policy returns {high:g}, random actions {low:g}: scores between them mean "
            "nothing; collect with more --transitions, from which the online learner learns"
        )
    return low, high


def measures(work: Path, environment: str, kind: str) -> dict[str, Any]:
    """Of a dataset: its mean return, its TQ and SACo, and what scores are normalised by."""
    low, high = references(work, environment, kind)
    directory = dataset(work, environment, kind)
    store = open_replay(directory, progress=False).store
    covered = measure(store, References.of_directory(directory))
    mean = float(store.episode_returns().mean())
    return {"mean_return": mean, "tq": covered.tq, "saco": covered.saco, "random_return": low, "best_return": high}


def show(table: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the table: mean over runs of each cell, then the interquartile mean."""
    names = [*next(iter(table.values()))["cells"]]
    print(f"{'':<8}" + "".join(f"{name.split('-')[0]}/{name.split('/')[-1]:<8}".rjust(18) for name in names) + "   IQM")
    for algorithm, row in table.items():
        cells = "".join(f"{row['cells'][name]['mean']:18.1f}" for name in names)
        print(f"{algorithm:<8}{cells}   {row['interquartile_mean']['value']:.2f}")


def _seconds(found: Mapping[Cell, Mapping[str, Any] | None], algorithm: str) -> float | None:
    return peer_scores.median_seconds(score for cell, score in found.items() if score and cell.algorithm == algorithm)
