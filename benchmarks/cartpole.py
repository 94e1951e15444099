"""CartPole from a mixed dataset that the library collects itself, timed."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import click

import offrl
from offrl import envs
from offrl.collection import collect
from offrl.datasets import inspect_dataset
from offrl.envs import SCORE_SEEDS, CartPoleMixture
from offrl.runs import describe_machine
from offrl.system.json_files import write_json

RESULTS = Path(__file__).parent / "results" / "cartpole"


@click.command()
def cartpole() -> None:
    """Collect, train BCQ, evaluate 20 episodes; prints and keeps the score and the time."""
    make_env = partial(envs.make, "CartPole-v1")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        collect(make_env, CartPoleMixture(), Path(folder), transitions=20_000, workers=1)
        replay = offrl.open_replay(folder, n_step=5, discount=0.99, reward_scale=0.1)
        dataset = inspect_dataset(replay.store).mean_return
        algorithm = offrl.DiscreteBCQ(replay.spec)
        learner = offrl.fit(
            algorithm,
            replay,
            offrl.FitConfig(updates=5_000),
            learner=offrl.LearnerConfig(learning_rate=1e-3, schedule="cosine", average_decay=0.999),
        )
        evaluation = offrl.evaluate(offrl.TorchPolicy(learner.snapshot()), make_env, SCORE_SEEDS[:20], workers=0)
    seconds = time.perf_counter() - start
    print(f"dataset {dataset}; BCQ {evaluation.mean} over 20 episodes; {seconds:.0f} seconds in all")
    write_json(
        RESULTS / "evaluation.json",
        {
            "command": "python -m benchmarks cartpole",
            "seconds": seconds,
            "dataset_mean": dataset._asdict(),
            "BCQ": evaluation.to_dict(),
            "machine": describe_machine(),
        },
    )
