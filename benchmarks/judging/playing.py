"""Trains runs of candidates and plays each of them for its true value, a process of one thread for each run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import offrl
from benchmarks.children import ending_quietly
from benchmarks.judging.candidates import ENDLESS_EPISODES, HELD_OUT, SEEDS, TASKS, TRAINING_DISCOUNT, Candidate, Task
from benchmarks.stores import ROOT
from offrl.cli.names import ENCODERS, algorithm_class, load_class
from offrl.system.json_files import read_json, write_json
from offrl.system.side_by_side import side_by_side


class Discounting(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Scores an episode by its discounted return, and keeps its plain return beside.

    Args:
        env: What is played.
        discount: Of each step.
        returns: Seed -> plain return, filled as episodes go on.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], discount: float, returns: dict[int, float]) -> None:
        super().__init__(env)
        self._discount, self._returns = discount, returns

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        if seed is not None:
            self._seed, self._factor = seed, 1.0
            self._returns[seed] = 0.0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step, whose reward is worth less the later it comes."""
        observation, reward, terminated, truncated, info = super().step(action)
        self._returns[self._seed] += float(reward)
        worth = self._factor * float(reward)
        self._factor *= self._discount
        return observation, worth, terminated, truncated, info


def prepared(work: Path, name: str) -> tuple[Task, Path]:
    """A task and its directory, with its data collected."""
    task, directory = TASKS[name], work.resolve() / name
    directory.mkdir(parents=True, exist_ok=True)
    task.collect(directory)
    replay_of(directory, task)  # ingested once, before two would
    return task, directory


def run_directory(work: Path, algorithm: str, seed: int) -> Path:
    """Where a run of candidates lies."""
    return work / "runs" / f"{algorithm}-{seed}"


def replay_of(work: Path, task: Task, **settings: Any) -> Any:
    """The task's data, its held-out episodes apart."""
    return offrl.open_replay(task.data(work), progress=False, held_out=HELD_OUT, **settings)


def train(work: Path, task: Task, candidates: Sequence[Candidate]) -> Path:
    """Trains the run whose checkpoints the candidates are, from its newest checkpoint where it was interrupted."""
    algorithm, seed, steps = candidates[0].algorithm, candidates[0].seed, [each.step for each in candidates]
    kind = algorithm_class(algorithm)
    needs = tuple(sorted(kind.needs))
    replay = replay_of(work, task, seed=seed, include=needs, **{"discount": TRAINING_DISCOUNT, **task.replay})
    run = run_directory(work, algorithm, seed)
    offrl.fit(
        kind(replay.spec, seed=seed, **encoder_of(task)),
        replay,
        offrl.FitConfig(updates=max(steps), batch_size=128, checkpoint_period=int(np.gcd.reduce(steps))),
        # Nothing is chosen by measuring beside another run.
        learner=offrl.LearnerConfig(**{"precision": "fp32", "compile": "off", "threads": 1, **task.learner}),
        run=run,
        resume=(run / "config.json").exists(),
        loggers=[],
        device="cpu",
    )
    return run


def policy_of(work: Path, candidate: Candidate) -> offrl.TorchPolicy:
    """A candidate's policy."""
    run = run_directory(work, candidate.algorithm, candidate.seed)
    checkpoint = run / "checkpoints" / f"step-{candidate.step:09d}"
    policy = offrl.load(checkpoint, threshold=candidate.threshold, device="cpu")
    assert isinstance(policy, offrl.TorchPolicy)
    return policy


def policies_of(work: Path, candidates: Sequence[Candidate]) -> dict[str, offrl.TorchPolicy]:
    """The candidates' policies by name; those of a checkpoint with different thresholds share its networks."""
    loaded: dict[tuple[str, int, int], offrl.TorchPolicy] = {}
    found = {}
    for each in candidates:
        key = (each.algorithm, each.seed, each.step)
        if key not in loaded:
            loaded[key] = policy_of(work, each._replace(threshold=None))
        own = loaded[key]
        found[each.name] = own if each.threshold is None else own.with_threshold(each.threshold)
    return found


def algorithm_of(policy: offrl.TorchPolicy) -> offrl.Algorithm:
    """A policy's algorithm."""
    return policy.algorithm


def encoder_of(task: Task) -> dict[str, Any]:
    """The argument `encoder` of what is trained on a task; empty for the default."""
    return {} if task.encoder is None else {"encoder": load_class(task.encoder, ENCODERS, "encoder")}


def play(task: Task, policy: Callable[..., Any], episodes: int, longest: int | None = None) -> dict[str, Any]:
    """Plain and discounted returns of the first episodes of `SEEDS`."""
    returns: dict[int, float] = {}
    seeds = SEEDS[:episodes]

    def make_env() -> Discounting:
        return Discounting(task.make_env(longest), task.discount, returns)

    found = offrl.evaluate(policy, make_env, seeds, workers=0, progress=False)
    return {"returns": [returns[seed] for seed in seeds], "discounted": [*found.scores]}


def truth(work: Path, candidate: Candidate) -> dict[str, Any] | None:
    """What playing said of a candidate; None where it was not played."""
    path = work / "truth" / f"{candidate.name}.json"
    return read_json(path) if path.exists() else None


def true_values(work: Path, task: Task, candidate: Candidate) -> dict[str, Any]:
    """Plays a candidate, where that was not done before."""
    found = truth(work, candidate) or {}
    asked = {"discount": task.discount, "endless": task.endless}
    if {name: found.get(name) for name in asked} == asked and len(found["returns"]) == task.episodes:
        return found
    policy = policy_of(work, candidate)
    found = {**candidate._asdict(), **asked, **play(task, policy, task.episodes)}
    if task.endless is not None:
        found["discounted"] = play(task, policy, ENDLESS_EPISODES, task.endless)["discounted"]
    (work / "truth").mkdir(exist_ok=True)
    write_json(work / "truth" / f"{candidate.name}.json", found)
    return found


def play_all(name: str, part: str, work: Path, candidates: Sequence[Candidate], processes: int) -> None:
    """Trains and plays candidates, a run in each of some processes; goes on where it was stopped.

    Raises:
        SystemExit: One failed.
    """
    runs = dict.fromkeys((each.algorithm, each.seed) for each in candidates)  # each knows what is left to do
    commands = {
        f"{algorithm} {seed}": [
            *(sys.executable, "-m", "benchmarks.judging.playing"),
            *(str(work), name, part, algorithm, str(seed)),
        ]
        for algorithm, seed in runs
    }
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for ended in side_by_side(commands, at_once=processes, environment=environment):
        if ended.exit_code != 0:
            sys.exit(f"{ended.name} failed; the same command goes on with the others")
        print(f"{ended.name}: played", flush=True)


def main(work: Path, name: str, part: str, algorithm: str, seed: str) -> None:
    """Trains and plays all candidates of one run."""
    task = TASKS[name]
    mine = [each for each in task.candidates(part) if (each.algorithm, each.seed) == (algorithm, int(seed))]
    timed = run_directory(work, algorithm, int(seed)) / "seconds.json"
    if not timed.exists():
        start = time.perf_counter()
        train(work, task, mine)
        write_json(timed, {"seconds": time.perf_counter() - start})
    for candidate in mine:
        true_values(work, task, candidate)


if __name__ == "__main__":
    with ending_quietly():
        main(Path(sys.argv[1]), *sys.argv[2:])
