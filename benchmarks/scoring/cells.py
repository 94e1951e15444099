"""One cell of the table: an algorithm, trained on a dataset with a seed, and what it scores. Run as a process."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import offrl
from benchmarks.children import ending_quietly
from benchmarks.revisions import revision_of
from offrl.cli.names import algorithm_class
from offrl.envs import TUNING_SEEDS
from offrl.envs.making import Env
from offrl.shards.manifest import MANIFEST_NAME
from offrl.system.json_files import read_json, write_json

BATCH_SIZE = 128
REPLAY: dict[str, Any] = {"n_step": 1, "discount": 0.99, "held_out": 0.1}
LEARNER: dict[str, Any] = {
    "learning_rate": 3e-4,
    "polyak": 0.005,
    # Nothing is chosen by measuring beside another run.
    "precision": "fp32",
    "compile": "off",
    "threads": 1,
}
SEEDS = TUNING_SEEDS[2000:2100]  # none of those by which the expert was chosen and measured
LONGEST = {"MinAtar/Breakout-v1": 2_000}
"""Steps after which an episode is cut, where the environment itself would let a good policy play for ever."""


def make_env(environment: str) -> Env:
    """One environment, with a time limit in any case."""
    longest = LONGEST.get(environment)
    return offrl.envs.make(environment, **({} if longest is None else {"max_episode_steps": longest}))


def digest_of(data: Path, **settings: Any) -> str:
    """Tells scores apart that were made of other data or with other settings, whatever they are called."""
    manifest = hashlib.sha256((data / MANIFEST_NAME).read_bytes()).hexdigest()
    every = {"data": manifest, "replay": REPLAY, "learner": LEARNER, "batch_size": BATCH_SIZE, "seeds": str(SEEDS)}
    return hashlib.sha256(json.dumps({**every, **settings}, sort_keys=True).encode()).hexdigest()[:10]


class Cell(NamedTuple):
    """What is trained, and on what."""

    environment: str
    kind: str
    algorithm: str
    seed: int
    updates: int
    device: str = "cpu"

    @property
    def name(self) -> str:
        """What it is called while it runs."""
        return "/".join(map(str, self[:4]))

    def directory(self, work: Path) -> Path:
        """Where it keeps its run and its score."""
        config = algorithm_class(self.algorithm).config_class()
        settings: dict[str, Any] = {"algorithm": asdict(config()) if config else None, **revision_of(self.algorithm)}
        if self.environment in LONGEST:
            settings["longest"] = LONGEST[self.environment]
        if self.device != "cpu":  # other kernels, other numbers
            settings["device"] = self.device
        digest = digest_of(dataset(work, self.environment, self.kind), **settings)
        name = f"{self.algorithm}-{digest}-{self.updates}-{self.seed}"
        return work / "runs" / self.environment / self.kind / name

    def score(self, work: Path) -> dict[str, Any] | None:
        """What was measured before; None where it was not."""
        path = self.directory(work) / "score.json"
        return read_json(path) if path.exists() else None

    def command(self, work: Path) -> list[str]:
        """Runs it in a process of its own."""
        return [sys.executable, "-m", "benchmarks.scoring.cells", str(work), json.dumps(self)]


def dataset(work: Path, environment: str, kind: str) -> Path:
    """Where the dataset of an environment and a kind lies."""
    return work / "data" / environment / kind


def run(work: Path, cell: Cell) -> None:
    """Trains, from its newest checkpoint where it was interrupted, evaluates, and keeps the score only."""
    directory = cell.directory(work)
    algorithm = algorithm_class(cell.algorithm)
    replay = offrl.open_replay(
        dataset(work, cell.environment, cell.kind),
        seed=cell.seed,
        include=tuple(sorted(algorithm.needs)),
        progress=False,
        **REPLAY,
    )
    model = algorithm(replay.spec, seed=cell.seed)
    is_resumed = (directory / "run" / "config.json").exists()
    start = time.process_time()  # of this one thread: whatever else the machine does meanwhile
    learner = offrl.fit(
        model,
        replay,
        offrl.FitConfig(updates=cell.updates, batch_size=BATCH_SIZE, log_period=1000, checkpoint_period=5000),
        learner=offrl.LearnerConfig(**LEARNER),
        run=directory / "run",
        resume=is_resumed,
        loggers=[],
        device=cell.device,
    )
    # Nobody knows what the first part of an interrupted run took, nor what a run on a shared GPU takes.
    seconds = None if is_resumed or cell.device != "cpu" else time.process_time() - start
    policy = offrl.TorchPolicy(learner.snapshot())
    found = offrl.evaluate(policy, partial(make_env, cell.environment), SEEDS, workers=0, progress=False)
    scores = [row["score"] for row in found.to_dict()["per_episode"]]
    write_json(
        directory / "score.json",
        {**cell._asdict(), "score": sum(scores) / len(scores), "scores": scores, "cpu_seconds": seconds},
    )
    shutil.rmtree(directory / "run")


if __name__ == "__main__":
    with ending_quietly():
        run(Path(sys.argv[1]), Cell(*json.loads(sys.argv[2])))
