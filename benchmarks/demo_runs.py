"""The demo's recipe over several training runs: a score is over these as well as over episodes."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

import offrl
from offrl.collection import RECIPES
from offrl.envs import SCORE_SEEDS, TUNING_SEEDS, car_racing
from offrl.runs import checkpoints, describe_machine
from offrl.statistics import t_interval
from offrl.system.json_files import write_json
from offrl.system.side_by_side import side_by_side
from offrl.system.workers import num_cores

ROOT = Path(__file__).parent.parent
_ALGORITHMS = {"bcq": offrl.DiscreteBCQ, "bc": offrl.BC}
_NEARLY = 1000 - 1000 / 250 * 3 - 100
"""About what a lap scores that misses three of 250 tiles and drives on to the time limit."""


def example() -> Any:
    """examples/carracing_bcq.py, which has the recipe."""
    spec = importlib.util.spec_from_file_location("carracing_bcq", ROOT / "examples" / "carracing_bcq.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["carracing_bcq"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run_all(work: Path, algorithms: Sequence[str], num_runs: int, discount: float | None, *, tuning: bool) -> None:
    """Trains and evaluates what is not done yet, a run on each core at a time."""
    size = example().SIZES["demo"]
    RECIPES["carracing/mixed"].collect(work / "data", transitions=size.transitions)
    offrl.open_replay(work / "data")  # ingested once, before two would
    jobs = [(algorithm, seed) for algorithm in algorithms for seed in range(num_runs)]
    mode = "tuning" if tuning else "score"
    commands = {
        f"{algorithm}, seed {seed}": [
            *(sys.executable, "-m", "benchmarks.demo_runs", str(work), algorithm, str(seed)),
            *(str(discount or "recipe"), mode),
        ]
        for algorithm, seed in jobs
    }
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for ended in side_by_side(commands, at_once=num_cores(), environment=environment):
        if ended.exit_code != 0:
            sys.exit(f"{ended.name} failed")
        print(f"{ended.name}: done", flush=True)


def train_and_evaluate(work: Path, algorithm: str, seed: int, discount: float | None, *, tuning: bool) -> None:
    """One run, on one thread; what is there already is not made again."""
    recipe = example()
    settings = {**recipe.REPLAY, **({} if discount is None else {"discount": discount})}
    run = run_directory(work, algorithm, seed, settings["discount"])
    replay = offrl.open_replay(work / "data", seed=seed, progress=False, **settings)
    made = checkpoints(run / "checkpoints")
    updates = recipe.SIZES["demo"].updates
    if not made or made[-1].name != f"step-{updates:09d}":
        offrl.fit(
            _ALGORITHMS[algorithm](replay.spec, seed=seed),
            replay,
            offrl.FitConfig(updates=updates, checkpoint_period=500),
            # Nothing is settled by measuring beside another run.
            learner=replace(recipe.LEARNER, precision="fp32", compile="off"),
            run=run,
            resume=bool(made),
            device="cpu",
            loggers=[],
            notes={"environment": car_racing.ENV_ID},
        )
    target = run / ("tuning.json" if tuning else "evaluation.json")
    if not target.exists():
        seeds = TUNING_SEEDS[1000:1030] if tuning else SCORE_SEEDS[:100]
        make_env = partial(car_racing.make, hud=replay.spec.hud)
        write_json(target, offrl.evaluate(offrl.load(run), make_env, seeds, workers=1, progress=False).to_dict())


def run_directory(work: Path, algorithm: str, seed: int, discount: float) -> Path:
    """Where a run lies; what is imitated does not depend on the discount."""
    name = algorithm if algorithm == "bc" else f"{algorithm}-{discount:g}"
    return work / f"{name}-{seed}"


def summary(evaluations: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Of the evaluations by training seed: the mean of the runs' means, its t interval, and where scores are lost."""
    means = [found["mean"] for found in evaluations.values()]
    interval = t_interval(means)
    episodes = [row for found in evaluations.values() for row in found["per_episode"]]
    finished = [row for row in episodes if row["finished"]]
    missed = [row for row in episodes if not row["finished"] and row["score"] >= _NEARLY]
    return {
        "runs": len(means),
        "mean": interval.mean,
        "t_interval_95": None if interval.low is None else [interval.low, interval.high],
        "lowest": min(means),
        "highest": max(means),
        "episodes": len(episodes),
        "laps_with_every_tile": len(finished),
        "laps_that_miss_one_to_three_tiles": len(missed),
        "others": len(episodes) - len(finished) - len(missed),
        "steps_of_finished_laps": sum(row["length"] for row in finished) / max(len(finished), 1),
        "per_run": {
            str(seed): {name: found[name] for name in ("mean", "finished", "mean_length", "per_episode")}
            for seed, found in evaluations.items()
        },
    }


def write_results(
    work: Path, algorithms: Sequence[str], num_runs: int, discount: float | None, command: str, *, tuning: bool
) -> None:
    """benchmarks/results/demo/runs.json, or with tuning seeds tuning-DISCOUNT.json."""
    recipe = example()
    chosen = recipe.REPLAY["discount"] if discount is None else discount

    def evaluations(algorithm: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for seed in range(num_runs):
            path = run_directory(work, algorithm, seed, chosen) / ("tuning.json" if tuning else "evaluation.json")
            if path.exists():
                yield seed, json.loads(path.read_text(encoding="utf-8"))

    found = {algorithm: summary(dict(evaluations(algorithm))) for algorithm in algorithms}
    for algorithm, each in found.items():
        print(
            f"{algorithm}: {each['mean']:.1f} over {each['runs']} runs, {each['lowest']:.1f} to {each['highest']:.1f}"
        )
    name = f"tuning-{chosen:g}.json" if tuning else "runs.json"
    write_json(
        ROOT / "benchmarks" / "results" / "demo" / name,
        {
            "command": command,
            "seeds": "TUNING_SEEDS[1000:1030]" if tuning else "SCORE_SEEDS[:100]",
            "discount": chosen,
            "transitions": recipe.SIZES["demo"].transitions,
            "updates": recipe.SIZES["demo"].updates,
            "threads_a_run": 1,
            "precision": "fp32",
            "algorithms": found,
            "machine": describe_machine(),
        },
    )


@click.command()
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1), help="Training runs of each algorithm.")
@click.option("--algorithm", "algorithms", multiple=True, type=click.Choice(list(_ALGORITHMS)), help="Default: all.")
@click.option("--discount", type=float, help="Default: the example's.")
@click.option("--tuning", is_flag=True, help="Play on seeds for tuning, to compare settings.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/demo-runs"), show_default=True)
def demo_runs(runs: int, algorithms: tuple[str, ...], discount: float | None, tuning: bool, work: Path) -> None:
    """The demo's recipe, BCQ and BC, over RUNS training runs each (hours; stop it and go on as you like)."""
    chosen = algorithms or tuple(_ALGORITHMS)
    words = [f"--runs {runs}", *(f"--algorithm {name}" for name in algorithms)]
    words += [f"--discount {discount:g}"] if discount is not None else []
    words += ["--tuning"] if tuning else []
    run_all(work.absolute(), chosen, runs, discount, tuning=tuning)
    command = f"python -m benchmarks demo-runs {' '.join(words)}"
    write_results(work.absolute(), chosen, runs, discount, command, tuning=tuning)


if __name__ == "__main__":
    directory, name, number, gamma, kind = sys.argv[1:]
    train_and_evaluate(
        Path(directory), name, int(number), None if gamma == "recipe" else float(gamma), tuning=kind == "tuning"
    )
