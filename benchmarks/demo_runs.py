"""The example's recipe over several training runs: a score is over these as well as over episodes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.driving import ROOT, Plan, evaluations, example, run_all, summary
from offrl.runs import describe_machine
from offrl.system.json_files import write_json

RESULTS = ROOT / "benchmarks" / "results"
_ALGORITHMS = ("bcq", "bc")
_RUNS = {"demo": 5, "full": 3}


def plan(size: str, discount: float | None, *, tuning: bool) -> Plan:
    """The example's size of that name."""
    recipe = example()
    return Plan(
        transitions=recipe.SIZES[size].transitions,
        updates=recipe.SIZES[size].updates,
        discount=recipe.REPLAY["discount"] if discount is None else discount,
        seeds="TUNING_SEEDS" if tuning else "SCORE_SEEDS",
        first_episode=1000 if tuning else 0,
        episodes=30 if tuning else 100,
    )


@click.command()
@click.option("--full", "size", flag_value="full", help="The example's full size in place of the demo's.")
@click.option("--runs", type=click.IntRange(1), help="Training runs of each algorithm; 5, or 3 with --full.")
@click.option("--algorithm", "algorithms", multiple=True, type=click.Choice(_ALGORITHMS), help="Default: both.")
@click.option("--discount", type=float, help="Default: the example's.")
@click.option("--tuning", is_flag=True, help="Play on seeds for tuning, to compare settings.")
@click.option("--work", type=click.Path(path_type=Path), help="Default: runs/demo-runs or runs/full-runs.")
def demo_runs(
    size: str | None,
    runs: int | None,
    algorithms: tuple[str, ...],
    discount: float | None,
    tuning: bool,
    work: Path | None,
) -> None:
    """The example's recipe, BCQ and BC, over several training runs (hours; stop it and go on as you like)."""
    size = size or "demo"
    runs = runs or _RUNS[size]
    words = ["--full"] if size == "full" else []
    words += [f"--runs {runs}", *(f"--algorithm {name}" for name in algorithms)]
    words += [f"--discount {discount:g}"] if discount is not None else []
    words += ["--tuning"] if tuning else []
    what = plan(size, discount, tuning=tuning)
    name = f"tuning-{what.discount:g}.json" if tuning else "runs.json"
    target = RESULTS / size / name
    work = (work or Path("runs") / f"{size}-runs").absolute()
    chosen = algorithms or _ALGORITHMS
    write = partial(_write, target, what, work, chosen, runs, f"python -m benchmarks demo-runs {' '.join(words)}")
    run_all(what, work, chosen, runs, after_each=write)
    for name, row in write().items():
        print(f"{name}: {row['mean']:.1f} over {row['runs']} runs, {row['lowest']:.1f} to {row['highest']:.1f}")


def _write(
    target: Path, what: Plan, work: Path, algorithms: tuple[str, ...], runs: int, command: str
) -> dict[str, dict[str, Any]]:
    """The result, of the runs that are there; returns its rows."""
    rows = {name: summary(each) for name, each in evaluations(what, work, algorithms, runs).items()}
    write_json(target, {"command": command, **what.to_dict(), "algorithms": rows, "machine": describe_machine()})
    return rows
