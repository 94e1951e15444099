"""Training runs on carracing/mixed with the example's settings, evaluated: what `demo-runs` and `leaderboard` share."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import offrl
from offrl.cli.names import algorithm_class
from offrl.collection import RECIPES
from offrl.envs import SCORE_SEEDS, TUNING_SEEDS, car_racing
from offrl.runs import checkpoints
from offrl.statistics import t_interval
from offrl.system.json_files import read_json, write_json
from offrl.system.side_by_side import side_by_side
from offrl.system.workers import num_cores

ROOT = Path(__file__).parent.parent
_SEEDS = {"SCORE_SEEDS": SCORE_SEEDS, "TUNING_SEEDS": TUNING_SEEDS}
_NEARLY = 1000 - 1000 / 250 * 3 - 100
"""About what a lap scores that misses three of 250 tiles and drives on to the time limit."""


@cache
def example() -> Any:
    """examples/carracing_bcq.py, which has the recipe."""
    spec = importlib.util.spec_from_file_location("carracing_bcq", ROOT / "examples" / "carracing_bcq.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["carracing_bcq"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Plan:
    """What all runs of a table share.

    Attributes:
        transitions: of the dataset.
        updates: of each run.
        discount: of the replay; its other settings are the example's.
        seeds: which of the environment's seeds they are evaluated on, "SCORE_SEEDS" or "TUNING_SEEDS".
        first_episode: where in these.
        episodes: how many.
        held_out: share of the episodes that nothing is trained on.
    """

    transitions: int
    updates: int
    discount: float
    seeds: str
    first_episode: int
    episodes: int
    held_out: float = 0.0

    @property
    def tracks(self) -> range:
        """The seeds of the episodes."""
        return _SEEDS[self.seeds][self.first_episode :][: self.episodes]

    def evaluation(self, work: Path, algorithm: str, seed: int) -> dict[str, Any] | None:
        """What a run scored, None where it has not been evaluated on these tracks yet."""
        path = self.evaluation_path(work, algorithm, seed)
        found = read_json(path) if path.exists() else None
        played = [row["seed"] for row in found["per_episode"]] if found else []
        return found if played == [*self.tracks] else None

    def evaluation_path(self, work: Path, algorithm: str, seed: int) -> Path:
        """Where it is kept, in the directory of the run."""
        name = "tuning.json" if self.seeds == "TUNING_SEEDS" else "evaluation.json"
        return run_directory(work, algorithm, seed, self.discount) / name

    def to_dict(self) -> dict[str, Any]:
        """For the JSON of a result."""
        last = self.first_episode + self.episodes
        tracks = f"{self.seeds}[{self.first_episode or ''}:{last}]"
        sizes = {name: asdict(self)[name] for name in ("discount", "transitions", "updates", "held_out")}
        return {"seeds": tracks, **sizes, "threads_a_run": 1, "precision": "fp32"}


def run_directory(work: Path, algorithm: str, seed: int, discount: float) -> Path:
    """Where a run lies; what is imitated does not depend on the discount."""
    name = algorithm if algorithm == "bc" else f"{algorithm}-{discount:g}"
    return work / f"{name}-{seed}"


def run_all(plan: Plan, work: Path, algorithms: Sequence[str], num_runs: int, after_each: Callable[[], Any]) -> None:
    """Trains and evaluates what is not done yet, a run on each core at a time; seed by seed.

    When time is up, what has been done is a table of fewer seeds and not of fewer algorithms.
    """
    RECIPES["carracing/mixed"].collect(work / "data", transitions=plan.transitions)
    offrl.open_replay(work / "data")  # ingested once, before two would
    jobs = [(algorithm, seed) for seed in range(num_runs) for algorithm in algorithms]
    commands = {
        f"{algorithm}, seed {seed}": [
            *(sys.executable, "-m", "benchmarks.driving"),
            json.dumps([str(work), algorithm, seed, asdict(plan)]),
        ]
        for algorithm, seed in jobs
        if plan.evaluation(work, algorithm, seed) is None
    }
    if len(commands) < len(jobs):
        print(f"{len(jobs) - len(commands)} of {len(jobs)} runs are there already", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for ended in side_by_side(commands, at_once=num_cores(), environment=environment):
        if ended.exit_code != 0:
            sys.exit(f"{ended.name} failed; the same command goes on with the others")
        print(f"{ended.name}: done", flush=True)
        after_each()


def train_and_evaluate(work: Path, algorithm: str, seed: int, plan: Plan) -> None:
    """One run, on one thread, from its newest checkpoint where it was interrupted."""
    recipe = example()
    run, cls = run_directory(work, algorithm, seed, plan.discount), algorithm_class(algorithm)
    settings = {**recipe.REPLAY, "discount": plan.discount, "held_out": plan.held_out}
    include = tuple(sorted(cls.needs))
    replay = offrl.open_replay(work / "data", seed=seed, include=include, progress=False, **settings)
    made = checkpoints(run / "checkpoints")
    if not made or made[-1].name != f"step-{plan.updates:09d}":
        offrl.fit(
            cls(replay.spec, seed=seed),
            replay,
            offrl.FitConfig(updates=plan.updates, checkpoint_period=max(500, plan.updates // 10)),
            # Nothing is settled by measuring beside another run.
            learner=replace(recipe.LEARNER, precision="fp32", compile="off", threads=1),
            run=run,
            resume=(run / "config.json").exists(),
            device="cpu",
            loggers=[],
            notes={"environment": car_racing.ENV_ID},
        )
    for older in checkpoints(run / "checkpoints")[:-1]:  # tens of runs would fill a disk with them
        shutil.rmtree(older)
    make_env = partial(car_racing.make, hud=replay.spec.hud)
    found = offrl.evaluate(offrl.load(run), make_env, plan.tracks, workers=1, progress=False)
    write_json(plan.evaluation_path(work, algorithm, seed), found.to_dict())


def evaluations(plan: Plan, work: Path, algorithms: Sequence[str], num_runs: int) -> dict[str, dict[int, Any]]:
    """What is there, algorithm -> training seed -> evaluation; algorithms without any are left out."""
    found = {
        algorithm: {
            seed: evaluation
            for seed in range(num_runs)
            if (evaluation := plan.evaluation(work, algorithm, seed)) is not None
        }
        for algorithm in algorithms
    }
    return {algorithm: each for algorithm, each in found.items() if each}


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


if __name__ == "__main__":
    directory, name, number, common = json.loads(sys.argv[1])
    train_and_evaluate(Path(directory), name, number, Plan(**common))
