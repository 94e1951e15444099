"""How well what offline estimators say of policies agrees with what the policies are worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.judging.candidates import HELD_OUT, SEEDS, TASKS, TRAINING_DISCOUNT, Candidate, Task
from benchmarks.judging.playing import (
    algorithm_of,
    encoder_of,
    play_all,
    policies_of,
    prepared,
    replay_of,
    run_directory,
    truth,
)
from benchmarks.scoring.ranking import Values, binomial_interval, chosen_over_best, ranks, regret, spearman_interval
from benchmarks.stores import ROOT
from offrl import selection as offline
from offrl.ope import ESTIMATORS, OpeConfig, estimate_each, fit_q, read, tabulate_each
from offrl.ope.fitting import default_learner, steps_ahead
from offrl.policies import TorchPolicy
from offrl.replay import Replay
from offrl.runs import describe_machine
from offrl.selection import CRITERIA, FittingConfig
from offrl.statistics import t_interval
from offrl.system.json_files import read_json, write_json
from offrl.system.workers import num_cores

RESULTS = ROOT / "benchmarks" / "results" / "ope"
PARTS = ("first", "second")
REFITS = 3
TOGETHER = ("fqe", "agreement")
"""Whose ranks together were the best of all pairs on CartPole's first set: what a policy is worth, and its support."""
WITHOUT_VALUES = ("bc",)
EXACT = "(the true discounted values)"
"""What no estimate can rank better than, where candidates are ranked by their plain returns."""
STATISTICS = "all statistics"
_ELSEWHERE = ("fqe", "soft_opc")


@click.command()
@click.option("--task", "tasks", multiple=True, type=click.Choice([*TASKS]), help="Default: all.")
@click.option("--set", "parts", multiple=True, type=click.Choice(PARTS), help="Of candidates; default: both.")
@click.option("--processes", default=num_cores(), show_default=True, type=click.IntRange(1), help="At a time.")
@click.option("--work", default=ROOT / "data" / "ope", type=click.Path(path_type=Path), help="Kept: goes on there.")
def ope(tasks: Sequence[str], parts: Sequence[str], processes: int, work: Path) -> None:
    """Trains the candidates, plays them for their true values, and compares what estimators say of them."""
    torch.set_num_threads(1)  # as the candidates are trained, so that costs compare
    for name, part in product(tasks or TASKS, parts or PARTS):
        task, directory = prepared(work, name)
        candidates = [*task.candidates(part)]
        play_all(name, part, directory, candidates, processes)
        said = _estimates(task, part, directory, candidates)
        result = {
            "command": f"python -m benchmarks ope --task {name} --set {part}",
            "set": part,
            **compare(directory, candidates, said),
            **_about(name, task, directory, candidates, said),
            "machine": describe_machine(),
        }
        write_json(RESULTS / f"{name}-{part}.json", result)
        show(result)


def _estimates(task: Task, part: str, work: Path, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """What is said of each candidate, by estimator and criterion; kept."""
    path = work / f"estimates-{part}.json"
    replay = replay_of(work, task, discount=task.discount)
    asked = {
        "updates": task.updates,
        "refits": REFITS,
        "discount": task.discount,
        "data": replay.fingerprint,
        "candidates": [each.name for each in candidates],
    }
    kept = read_json(path) if path.exists() else {}
    if {name: kept.get(name) for name in asked} != asked:
        kept = {**asked, "seconds": {}}
    how = {"estimators_asked": [*ESTIMATORS], "history": OpeConfig.history, "precision": task.precision}
    if {name: kept.get(name) for name in how} != how:  # the statistics do not depend on it
        kept = {**kept, **how, "seconds": {k: v for k, v in kept["seconds"].items() if k == STATISTICS}}
    policies = policies_of(work, candidates)
    stages: dict[str, Callable[[], dict[str, Any]]] = {
        "one fit of fqe for all": lambda: _fit(policies, replay, task),
        "all estimators": lambda: _judged(policies, replay, task),
        STATISTICS: lambda: {"criteria": _criteria(task, work, candidates)},
    }
    for stage, action in stages.items():
        if stage in kept["seconds"]:
            continue
        start = time.perf_counter()
        found = action()
        kept = {**kept, **found, "seconds": {**kept["seconds"], stage: time.perf_counter() - start}}
        write_json(path, kept)
    return kept


def _fit(policies: Mapping[str, TorchPolicy], replay: Replay, task: Task) -> dict[str, Any]:
    """Point estimates of all candidates by one fit: what they do, the fit, and reading it. Only its time is kept."""
    held_out = replay.held_out()
    assert held_out is not None
    asked = [tabulate_each(policies, part) for part in (replay, held_out)]
    learner = default_learner(steps_ahead(replay), task.updates, precision=task.precision)
    model = fit_q(asked[0], replay, task.updates, learner=learner, device="cpu", **encoder_of(task))
    read(model, held_out, [*asked[1].values()])
    return {}


def _judged(policies: Mapping[str, TorchPolicy], replay: Replay, task: Task) -> dict[str, Any]:
    config = OpeConfig(updates=task.updates, refits=REFITS, precision=task.precision)
    found = [*estimate_each(policies, replay, config, device="cpu", **encoder_of(task)).values()]
    return {
        "estimators": {name: [each[name].to_dict() for each in found] for name in ESTIMATORS},
        "support": [each.support for each in found],
        "behaviour": found[0].behaviour_source,
    }


def fitting_updates(task: Task) -> int:
    """Of each model of `offrl select`: its default, but for pixels that take their time."""
    return min(task.updates, 5_000)


def _criteria(task: Task, work: Path, candidates: Sequence[Candidate]) -> dict[str, list[float | None]]:
    """What `offrl select` ranks by; None where the criterion reads values and the algorithm learns none."""
    replay = replay_of(work, task, **{"discount": TRAINING_DISCOUNT, **task.replay}).held_out()  # of their values
    fitting = FittingConfig(updates=fitting_updates(task), device="cpu", **encoder_of(task))
    scale = task.replay.get("reward_scale", 1.0)
    found: dict[str, list[float | None]] = {}
    for with_values in (False, True):
        # FQE is among the estimators; what is success or not, no task here has.
        criteria = [
            each for each in CRITERIA.values() if each.needs_values == with_values and each.name not in _ELSEWHERE
        ]
        chosen = [each for each in candidates if not with_values or each.algorithm not in WITHOUT_VALUES]
        policies = policies_of(work, chosen)
        ranked = offline.rank(
            [
                offline.Candidate(each.name, partial(algorithm_of, policy), [policy.threshold], scale)
                for each, policy in zip(chosen, policies.values(), strict=True)
            ],
            replay,
            criteria,
            fitting=fitting,
        )
        statistics = {each.name: each.statistics for each in ranked.policies}
        for criterion in criteria:
            found[criterion.name] = [statistics.get(each.name, {}).get(criterion.name) for each in candidates]
    return found


def compare(work: Path, candidates: Sequence[Candidate], said: Mapping[str, Any]) -> dict[str, Any]:
    """How each estimator and criterion ranks the candidates, and how often intervals hold."""
    played = [found for each in candidates if (found := truth(work, each)) is not None]
    plain = np.array([np.mean(each["returns"]) for each in played])
    discounted = np.array([np.mean(each["discounted"]) for each in played])
    errors = [np.std(each["discounted"], ddof=1) / len(each["discounted"]) ** 0.5 for each in played]
    rows: dict[str, Any] = {}
    for name, estimates in said["estimators"].items():
        values = np.array([_number(each["value"]["mean"]) for each in estimates])
        # Long episodes that differ in plain returns can be worth the same discounted, which is what is estimated.
        rows[name] = {**_ranking(values, plain), "spearman_of_discounted": _ranking(values, discounted)["spearman"]}
        bounds = [each["value"]["interval_95"] for each in estimates]
        holds = [
            None if ends is None else bool(ends[0] <= true <= ends[1])
            for ends, true in zip(bounds, discounted, strict=True)
        ]
        given = [each for each in holds if each is not None]
        usable = [not each["remark"] for each in estimates]
        trusted = [held for held, is_usable in zip(holds, usable, strict=True) if is_usable and held is not None]
        rows[name] |= {
            "mean_absolute_error": float(np.nanmean(np.abs(values - discounted)))
            if np.isfinite(values).any()
            else None,
            "intervals": len(given),
            "intervals_that_hold": sum(given),
            "coverage_interval_95": binomial_interval(sum(given), len(given)) if given else None,
            "without_a_remark": sum(usable),
            "intervals_without_a_remark": len(trusted),
            "that_hold_without_a_remark": sum(trusted),
        }
    said_by = {
        name: np.array([_number(each["value"]["mean"]) for each in said["estimators"][name]]) for name in ESTIMATORS
    }
    for name, numbers in said["criteria"].items():
        sign = 1 if CRITERIA[name].more_is_better else -1
        said_by[name] = sign * np.array([_number(each) for each in numbers])
        rows[name] = _ranking(said_by[name], plain)
    rows[" and ".join(TOGETHER)] = _ranking(np.sum([ranks(said_by[name]) for name in TOGETHER], axis=0), plain)
    rows[EXACT] = _ranking(discounted, plain)
    return {
        "candidates": [
            {
                "name": each.name,
                "return": float(plain[number]),
                "discounted_return": float(discounted[number]),
                "standard_error": float(errors[number]),
                "estimates": {
                    name: {part: said["estimators"][name][number][part] for part in ("value", "remark")}
                    for name in ESTIMATORS
                },
            }
            for number, each in enumerate(candidates)
        ],
        "rankings": rows,
    }


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _ranking(values: Values, plain: Values) -> dict[str, Any]:
    """Of the candidates that there is a number of; None where these are fewer than three, or all equally good."""
    known = np.isfinite(values)
    if known.sum() < 3 or np.ptp(plain[known]) == 0:
        return {"candidates": int(known.sum()), "spearman": None}
    values, plain = values[known], plain[known]
    better = plain >= np.median(plain)
    rho, upper = spearman_interval(values, plain), spearman_interval(values[better], plain[better])
    return {
        "candidates": int(known.sum()),
        "spearman": _or_none(rho.value),
        "spearman_interval_95": [_or_none(rho.low), _or_none(rho.high)],
        "spearman_among_the_better_half": _or_none(upper.value),
        "regret_at_1": regret(values, plain, 1),
        "regret_at_3": regret(values, plain, 3),
        "chosen_over_best": chosen_over_best(values, plain),
    }


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _about(
    name: str, task: Task, work: Path, candidates: Sequence[Candidate], said: Mapping[str, Any]
) -> dict[str, Any]:
    store = replay_of(work, task).store
    returns = store.episode_returns()
    runs = dict.fromkeys(run_directory(work, each.algorithm, each.seed) for each in candidates)
    seconds = [read_json(run / "seconds.json")["seconds"] for run in runs]
    return {
        "task": name,
        "transitions": len(store),
        "episodes": len(returns),
        "held_out": HELD_OUT,
        "data_mean_return": float(returns.mean()),
        "discount": task.discount,
        "updates": task.updates,
        "refits": REFITS,
        "precision": task.precision,
        "history": OpeConfig.history,
        "episodes_played": task.episodes,
        "values_are_of_episodes_of": task.endless,
        "seeds": [SEEDS[0], SEEDS[task.episodes - 1]],
        "behaviour_probabilities": said["behaviour"],
        "seconds": said["seconds"],
        "threads": 1,
        "seconds_of_training_a_run": t_interval(seconds).mean,
    }


def show(result: Mapping[str, Any]) -> None:
    """The table."""
    better = np.mean([each["return"] > result["data_mean_return"] for each in result["candidates"]])
    print(f"\n{result['command']}: {len(result['candidates'])} candidates, {better:.0%} better than the data")
    print(
        f"{'':14} {'rho':>6} {'better half':>12} {'regret@1':>9} {'@3':>6} {'chosen/best':>12} {'intervals hold':>15}"
    )
    for name, row in result["rankings"].items():
        if row["spearman"] is None:
            print(f"{name:14} no ranking")
            continue
        upper = row["spearman_among_the_better_half"]
        held = f"{row['intervals_that_hold']} of {row['intervals']}" if "intervals" in row else ""
        print(
            f"{name:14} {row['spearman']:6.2f} {_number(upper):12.2f} {row['regret_at_1']:9.2f} "
            f"{row['regret_at_3']:6.2f} {row['chosen_over_best']:12.2f} {held:>15}"
        )
