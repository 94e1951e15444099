"""What is gained by choosing a run's checkpoint by statistics on held-out episodes, in place of taking the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.judging.candidates import HELD_OUT, RUN_SEEDS, RUNS, SEEDS, TASKS, TRAINING_DISCOUNT, Candidate, Task
from benchmarks.judging.playing import algorithm_of, encoder_of, play_all, policy_of, prepared, replay_of, truth
from benchmarks.ope import TOGETHER
from benchmarks.scoring.ranking import ranks
from benchmarks.stores import ROOT
from offrl import selection
from offrl.runs import describe_machine
from offrl.selection import CRITERIA, FittingConfig
from offrl.statistics import t_interval
from offrl.system.json_files import write_json
from offrl.system.workers import num_cores

RESULTS = ROOT / "benchmarks" / "results" / "selection"
BEST = "(the truly best)"
_CRITERIA = [each for each in CRITERIA.values() if each.name != "soft_opc"]
"""But for what needs rewards of success or not."""


@click.command()
@click.option("--task", "tasks", multiple=True, type=click.Choice([*TASKS]), help="Default: all.")
@click.option("--processes", default=num_cores(), show_default=True, type=click.IntRange(1), help="At a time.")
@click.option("--work", default=ROOT / "data" / "ope", type=click.Path(path_type=Path), help="Kept: goes on there.")
def select(tasks: Sequence[str], processes: int, work: Path) -> None:
    """Trains BCQ with five seeds, chooses a checkpoint of each run by each statistic, and plays all of them."""
    torch.set_num_threads(1)
    for name in tasks or TASKS:
        task, directory = prepared(work, name)
        candidates = [*task.candidates(RUNS)]
        play_all(name, RUNS, directory, candidates, processes)
        played = {each: truth(directory, each) for each in candidates}
        returns = {each: float(np.mean(found["returns"])) for each, found in played.items() if found is not None}
        assert len(returns) == len(candidates)
        result = {
            "command": f"python -m benchmarks select --task {name}",
            "task": name,
            "runs": len(RUN_SEEDS),
            "updates": task.ages[-1],
            "checkpoints": len(candidates) // len(RUN_SEEDS),
            "episodes_played": task.episodes,
            "seeds": [SEEDS[0], SEEDS[task.episodes - 1]],
            "held_out": HELD_OUT,
            "fqe_updates": task.updates,  # as many as its discount asks for
            **gains(returns, statistics(task, directory, candidates)),
            "machine": describe_machine(),
        }
        write_json(RESULTS / f"{name}.json", result)
        show(result)


def statistics(task: Task, work: Path, candidates: Sequence[Candidate]) -> dict[str, list[float]]:
    """Of each candidate, by name: the more the better."""
    replay = replay_of(work, task, **{"discount": TRAINING_DISCOUNT, **task.replay}).held_out()
    scale = task.replay.get("reward_scale", 1.0)
    ranking = selection.rank(
        [
            selection.Candidate(each.name, partial(algorithm_of, policy_of(work, each)), reward_scale=scale)
            for each in candidates
        ],
        replay,
        _CRITERIA,
        fitting=FittingConfig(discount=task.discount, device="cpu", **encoder_of(task)),
    )
    ranked = {each.name: each for each in ranking.policies}
    return {
        criterion.name: [
            (1 if criterion.more_is_better else -1) * ranked[each.name].statistics[criterion.name]
            for each in candidates
        ]
        for criterion in _CRITERIA
    }


def gains(returns: Mapping[Candidate, float], said: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """What each statistic's choices are worth beside the last checkpoints, run by run.

    Args:
        returns: The true mean return of each candidate.
        said: Of each statistic, a number for each candidate in that order; the largest of a run's is chosen.
    """
    candidates, true = [*returns], np.array([*returns.values()])
    runs = [
        [number for number, each in enumerate(candidates) if each.seed == seed]
        for seed in dict.fromkeys(each.seed for each in candidates)
    ]
    values = {name: np.nan_to_num(np.asarray(each, np.float64), nan=-np.inf) for name, each in said.items()}
    if {*TOGETHER} <= values.keys():
        together = np.empty(len(candidates))
        for mine in runs:  # as `offrl select RUN` ranks them
            together[mine] = np.sum([ranks(values[name][mine]) for name in TOGETHER], axis=0)
        values[" and ".join(TOGETHER)] = together
    last = true[[max(mine, key=lambda number: candidates[number].step) for mine in runs]]
    rows: dict[str, Any] = {}
    for name, each in {**values, BEST: true}.items():
        # Of equals the later one is taken.
        chosen = [max((each[number], candidates[number].step, number) for number in mine)[2] for mine in runs]
        gained = (true[chosen] - last).tolist()
        rows[name] = {**t_interval(gained).to_dict(), "runs": gained, "steps": [candidates[n].step for n in chosen]}
    return {
        "last": {**t_interval(last.tolist()).to_dict(), "runs": last.tolist()},
        "gains": rows,
        "candidates": [{"seed": each.seed, "step": each.step, "return": value} for each, value in returns.items()],
    }


def show(result: Mapping[str, Any]) -> None:
    """The table."""
    print(f"\n{result['task']}: the last checkpoints return {result['last']['mean']:.1f}; gained by choosing:")
    for name, row in result["gains"].items():
        low, high = row["interval_95"] or (float("nan"),) * 2
        print(f"{name:22} {row['mean']:+8.1f}  ({low:+.1f} to {high:+.1f})")
