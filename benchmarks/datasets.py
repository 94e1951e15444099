"""The standard datasets, collected small: what is in each, as the documentation's cards show it."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import click
import numpy as np

import offrl
from offrl.collection import RECIPES
from offrl.datasets import inspect_dataset, sample_stacks
from offrl.report import plots
from offrl.runs import describe_machine
from offrl.system.json_files import write_json

RESULTS = Path(__file__).parent / "results" / "datasets"
_GOOD = 900  # a lap without a missed tile, in time


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--transitions", default=60_000, show_default=True)
def datasets(names: tuple[str, ...], transitions: int) -> None:
    """Collects each standard dataset (or those of NAMES), and keeps its card: figures and pictures."""
    for name in names or RECIPES:
        recipe = RECIPES[name]
        print(f"\n{name}: {recipe.description}")
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            recipe.collect(Path(folder), transitions=transitions)
            seconds = time.perf_counter() - start
            store = offrl.open_replay(folder).store
            summary = inspect_dataset(store)
            target = RESULTS / name.replace("/", "-")
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            plots.plot_returns(summary.returns, target / "returns.png")
            plots.plot_action_coverage(summary.action_counts, summary.action_names, target / "actions.png")
            observations, actions = sample_stacks(store, 3, seed=0)
            plots.plot_stacks(observations, [summary.action_names[a] for a in actions], target / "samples.png")
            print(summary.to_text())
        returns = np.asarray(summary.returns)
        only = f" {' '.join(names)}" if names else ""
        write_json(
            target / "card.json",
            {
                "command": f"python -m benchmarks datasets{only} --transitions {transitions}",
                "name": name,
                "description": recipe.description,
                "seconds": seconds,
                "transitions": summary.num_transitions,
                "episodes": summary.num_episodes,
                "mean": summary.mean_return._asdict(),
                "median": float(np.median(returns)),
                "share_over_900": float(np.mean(returns > _GOOD)),
                "returns": returns.tolist(),
                "terminated": summary.num_terminated,
                "truncated": summary.num_truncated,
                "machine": describe_machine(),
            },
        )
