"""Whether bf16 costs the demo points: its training runs in both precisions, driven on the same tracks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from benchmarks.demo_runs import SCORED
from benchmarks.driving import Recipe, Study, fast_precision
from benchmarks.laps import show, summary
from benchmarks.stores import ROOT
from offrl.runs import describe_machine
from offrl.statistics import t_interval
from offrl.system.json_files import write_json

RESULTS = ROOT / "benchmarks" / "results" / "precision_runs.json"


def recipes() -> dict[str, Recipe]:
    """The demo's, in both precisions; the one that it trains in here has the runs of `demo-runs`."""
    return {
        precision: Recipe.of_size("demo", learner={} if precision == fast_precision() else {"precision": precision})
        for precision in ("fp32", "bf16")
    }


def compare(evaluations: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """bf16 minus float32 over the training seeds that both have, on the same tracks, and each one's summary."""
    fp32, bf16 = evaluations["fp32"], evaluations["bf16"]
    seeds = sorted(fp32.keys() & bf16.keys())
    differences = [bf16[seed]["mean"] - fp32[seed]["mean"] for seed in seeds]
    return {
        "differences": dict(zip(map(str, seeds), differences, strict=True)),
        "score_difference": t_interval(differences)._asdict(),
        "precisions": {name: summary(found) for name, found in evaluations.items()},
    }


@click.command("precision-runs")
@click.option("--runs", default=5, show_default=True, type=click.IntRange(2), help="In each precision.")
def precision_runs(runs: int) -> None:
    """The demo's training runs in float32 and in bf16, each on 100 tracks (hours; stop it and go on as you like)."""
    study = Study(recipes(), runs, SCORED)
    study.run(after_each=lambda: None)
    found = compare(study.evaluations())
    show(found["precisions"])
    difference = found["score_difference"]
    print(f"bf16 minus float32 {difference['mean']:+.1f}, {difference['low']:+.1f} to {difference['high']:+.1f}")
    recipe = study.recipes["bf16"].sizes()
    write_json(
        RESULTS,
        {
            "command": f"python -m benchmarks precision-runs --runs {runs}",
            **recipe,
            "seeds": str(SCORED),
            **found,
            "machine": describe_machine(),
        },
    )
