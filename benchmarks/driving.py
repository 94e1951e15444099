"""Training runs on CarRacing's datasets, driven on tracks: what `demo-runs`, `leaderboard` and `recipes` share."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import offrl
from benchmarks.children import ending_quietly
from benchmarks.revisions import revision_of
from benchmarks.stores import MIXED, ROOT, car_racing_shards
from offrl.cli.names import ENCODERS, algorithm_class, load_class
from offrl.envs import SCORE_SEEDS, TUNING_SEEDS, car_racing
from offrl.hub import load_algorithm
from offrl.runs import checkpoints, latest_checkpoint
from offrl.system.json_files import read_json, write_json
from offrl.system.side_by_side import side_by_side
from offrl.system.workers import num_cores

WORK = ROOT / "data" / "driving"
MOST_RUNS = 100
"""Of a recipe: a result that keeps all runs that there are looks for so many."""
NO_FULL_BRAKE = tuple(np.flatnonzero(car_racing.ACTION_TABLE[:, 2] < 1).tolist())
"""The actions that do not brake fully."""
_SEEDS = {"SCORE_SEEDS": SCORE_SEEDS, "TUNING_SEEDS": TUNING_SEEDS}


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


def fast_precision(device: str = "cpu") -> str:
    """What `precision="auto"` comes to for these networks: no run settles it by measuring beside another."""
    if device != "cpu":
        return "bf16"
    capabilities_of = getattr(torch.cpu, "get_capabilities", dict)  # older versions of torch do not say
    capabilities: Mapping[str, Any] = capabilities_of()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


@dataclass(frozen=True)
class Recipe:
    """How a run is trained; what `replay` and `learner` leave out is the example's.

    Attributes:
        algorithm: By name.
        transitions: Of the dataset.
        updates: Of the run.
        batch_size: Of an update.
        encoder: By name.
        replay: Settings of the replay.
        learner: Of the update.
        settings: Of the algorithm.
        dataset: One of `offrl.collection.RECIPES`.
        device: That trains; a GPU is shared by one run for each core.
    """

    algorithm: str = "bcq"
    transitions: int = 60_000
    updates: int = 8_000
    batch_size: int = 64
    encoder: str = "nature"
    replay: Mapping[str, Any] = field(default_factory=dict)
    learner: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = MIXED
    device: str = "cpu"

    @classmethod
    def of_size(cls, size: str, **changes: Any) -> Recipe:
        """The example's of that size, but for some changes."""
        sizes = example().SIZES[size]
        given = {"transitions": sizes.transitions, "updates": sizes.updates, "batch_size": example().BATCH_SIZE}
        return cls(**{**given, **changes})

    def replay_settings(self) -> dict[str, Any]:
        """All settings of the replay; None takes one of the example's away."""
        given = {**example().REPLAY, **self.replay}
        return {name: value for name, value in given.items() if value is not None}

    def learner_config(self) -> offrl.LearnerConfig:
        """One thread, and nothing that is settled by measuring."""
        fixed = {"precision": fast_precision(self.device), "compile": "off", "threads": 1}
        config: offrl.LearnerConfig = replace(example().LEARNER, **{**fixed, **self.learner})
        return config

    def to_dict(self) -> dict[str, Any]:
        """For the JSON of a result: everything that a run depends on beside its seed."""
        given = asdict(self) | {"replay": self.replay_settings(), "learner": asdict(self.learner_config())}
        usual = {"dataset": MIXED, "device": "cpu"}  # left out: runs of before these could be chosen are the same ones
        return {name: value for name, value in given.items() if usual.get(name) != value} | revision_of(self.algorithm)

    def data(self) -> Path:
        """The dataset."""
        return car_racing_shards(ROOT / "data", self.transitions, dataset=self.dataset)

    def sizes(self) -> dict[str, Any]:
        """What the pages say of a table's runs."""
        given = self.replay_settings()
        return {
            "transitions": self.transitions,
            "updates": self.updates,
            "batch_size": self.batch_size,
            "n_step": given["n_step"],
            "discount": given["discount"],
            "held_out": given.get("held_out", 0.0),
        }

    @property
    def digest(self) -> str:
        """Tells runs apart that were trained differently, whatever they are called."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Tracks:
    """What runs are driven on.

    Attributes:
        seeds: "SCORE_SEEDS" or "TUNING_SEEDS".
        first: Where in these.
        count: How many.
        threshold: Of the policy that drives, in place of its own.
        without_full_brake: Whether it drives without the actions that brake fully, whatever it was trained with.
        critic_beta: Weights CRR's policy by its critic with this beta, whatever it was trained with; None does not.
    """

    seeds: str
    first: int
    count: int
    threshold: float | None = None
    without_full_brake: bool = False
    critic_beta: float | None = None

    def __str__(self) -> str:
        return f"{self.seeds}[{self.first or ''}:{self.first + self.count}]"

    @property
    def range(self) -> range:
        """The seeds of the episodes."""
        return _SEEDS[self.seeds][self.first :][: self.count]

    @property
    def file_name(self) -> str:
        """What a run's score is kept as."""
        how = "" if self.threshold is None else f"-threshold-{self.threshold:g}"
        how += "-without-full-brake" if self.without_full_brake else ""
        if self.critic_beta is not None:
            how += "-critic-weighted" + ("" if self.critic_beta == 1 else f"-beta-{self.critic_beta:g}")
        return f"{self.seeds.lower()}-{self.first}-{self.count}{how}.json"

    def judge(self, run: Path, spec: offrl.TaskSpec) -> dict[str, Any]:
        """Drives the run's policy."""
        make_env = partial(car_racing.make, hud=spec.hud or "visible")
        algorithm = load_algorithm(latest_checkpoint(run / "checkpoints"), device="cpu")
        if self.without_full_brake:
            algorithm.spec = replace(algorithm.spec, legal_actions=NO_FULL_BRAKE)
        if self.critic_beta is not None:
            algorithm.config = replace(algorithm.config, critic_weighted=True, beta=self.critic_beta)
        policy = offrl.TorchPolicy(algorithm, threshold=self.threshold)
        found: dict[str, Any] = offrl.evaluate(policy, make_env, self.range, workers=1, progress=False).to_dict()
        return found


@dataclass(frozen=True)
class Run:
    """One training of a recipe, kept where every study finds it."""

    work: Path
    recipe: Recipe
    seed: int

    @property
    def directory(self) -> Path:
        """Where it lies."""
        return self.work / f"{self.recipe.algorithm}-{self.recipe.digest}-{self.seed}"

    def evaluation_path(self, judge: Tracks) -> Path:
        """Where what is said of it is kept."""
        return self.directory / judge.file_name

    def evaluation(self, judge: Tracks) -> dict[str, Any] | None:
        """What is said of it; None where it was not judged so yet."""
        path = self.evaluation_path(judge)
        return read_json(path) if path.exists() else None

    def train_and_judge(self, judge: Tracks) -> None:
        """On one thread, from its newest checkpoint where it was interrupted."""
        recipe, run, cls = self.recipe, self.directory, algorithm_class(self.recipe.algorithm)
        replay = offrl.open_replay(
            recipe.data(),
            seed=self.seed,
            include=tuple(sorted(cls.needs)),
            progress=False,
            **recipe.replay_settings(),
        )
        kind = cls.config_class()
        config = kind(**recipe.settings) if kind is not None and recipe.settings else None
        made, is_resumed, start = checkpoints(run / "checkpoints"), (run / "config.json").exists(), time.process_time()
        if not made or made[-1].name != f"step-{recipe.updates:09d}":
            offrl.fit(
                cls(replay.spec, config, encoder=load_class(recipe.encoder, ENCODERS, "encoder"), seed=self.seed),
                replay,
                offrl.FitConfig(
                    updates=recipe.updates,
                    batch_size=recipe.batch_size,
                    checkpoint_period=max(500, recipe.updates // 10),
                ),
                learner=recipe.learner_config(),
                run=run,
                resume=is_resumed,
                device=recipe.device,
                loggers=[],
                notes={"environment": car_racing.ENV_ID},
            )
        for older in checkpoints(run / "checkpoints")[:-1]:  # tens of runs would fill a disk with them
            shutil.rmtree(older)
        # Of this process, whatever else the machine does meanwhile; the first part of a resumed run is not known, nor
        # what a run on a shared GPU takes.
        seconds = None if is_resumed or recipe.device != "cpu" else time.process_time() - start
        write_json(self.evaluation_path(judge), {**judge.judge(run, replay.spec), "training_cpu_seconds": seconds})


@dataclass(frozen=True)
class Study:
    """Recipes, each trained with the same seeds and judged alike.

    Attributes:
        recipes: By name.
        runs: Trainings of each.
        judge: What says how good they are.
        work: Where runs are kept: what has been done is not done again.
    """

    recipes: Mapping[str, Recipe]
    runs: int
    judge: Tracks
    work: Path = WORK

    def run(self, after_each: Callable[[], object], elsewhere: Mapping[str, Collection[int]] | None = None) -> None:
        """Does what is not done yet, a run on each core at a time; seed by seed.

        When time is up, what has been done is a table of fewer seeds and not of fewer recipes.

        Args:
            after_each: Called after each run.
            elsewhere: Name -> training seeds that were run on another machine, and are not run here.
        """
        for data in sorted({recipe.data() for recipe in self.recipes.values()}):
            offrl.open_replay(data)  # ingested once, before two would
        jobs = {
            f"{name}, seed {seed}": Run(self.work.absolute(), recipe, seed)
            for seed in range(self.runs)
            for name, recipe in self.recipes.items()
            if seed not in (elsewhere or {}).get(name, ())
        }
        todo = {name: _command(run, self.judge) for name, run in jobs.items() if run.evaluation(self.judge) is None}
        planned = len(self.recipes) * self.runs
        if len(todo) < planned:
            print(f"{planned - len(todo)} of {planned} runs are there already", flush=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        for ended in side_by_side(todo, at_once=num_cores(), environment=environment):
            if ended.exit_code != 0:
                sys.exit(f"{ended.name} failed; the same command goes on with the others")
            print(f"{ended.name}: done", flush=True)
            after_each()

    def evaluations(self) -> dict[str, dict[int, dict[str, Any]]]:
        """What is there, name -> training seed -> evaluation; recipes without any are left out."""
        found = {
            name: {
                seed: evaluation
                for seed in range(self.runs)
                if (evaluation := Run(self.work, recipe, seed).evaluation(self.judge)) is not None
            }
            for name, recipe in self.recipes.items()
        }
        return {name: runs for name, runs in found.items() if runs}

    def to_dict(self) -> dict[str, Any]:
        """For the JSON of a result: what all runs share."""
        first = next(iter(self.recipes.values()))
        precision = first.learner_config().precision
        return {"seeds": str(self.judge), "threads_a_run": 1, "device": first.device, "precision": precision}


def _command(run: Run, judge: Tracks) -> list[str]:
    given = json.dumps([str(run.work), asdict(run.recipe), run.seed, asdict(judge)])
    return [sys.executable, "-m", "benchmarks.driving", given]


if __name__ == "__main__":
    directory, given, number, by = json.loads(sys.argv[1])
    with ending_quietly():
        Run(Path(directory), Recipe(**given), number).train_and_judge(Tracks(**by))
