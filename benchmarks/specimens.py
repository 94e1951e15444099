"""One small file of every kind that offrl writes, to be damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

import offrl
from offrl.algorithms import DiscreteBCQ
from offrl.datasets import convert
from offrl.hub import load_algorithm
from offrl.hub.loading import PUBLISHED_NAMES
from offrl.policies import export_onnx
from offrl.runs import latest_checkpoint
from offrl.shards import write_dataset
from offrl.spec import TaskSpec
from offrl.system.json_files import write_sealed_json
from offrl.training import FitConfig, LearnerConfig, fit

UPDATES = 6
SPEC = TaskSpec.vector(4, ("left", "right"))
_EPISODES, _STEPS = 6, 5
_SHARD_BYTES = 3 * (_STEPS + 1) * 4 * 4  # three episodes: a dataset has two shards


def algorithm(seed: int = 0) -> DiscreteBCQ:
    """What the runs train."""
    return DiscreteBCQ(SPEC, seed=seed)


def train(data: Path, run: Path, updates: int = UPDATES, *, seed: int = 0, resume: bool = False) -> None:
    """Trains on a dataset, as `offrl train` does."""
    replay = offrl.open_replay(data, seed=seed, progress=False)
    config = FitConfig(updates=updates, batch_size=4, log_period=1, checkpoint_period=2)
    learner = LearnerConfig(precision="fp32", compile="off")
    fit(algorithm(seed), replay, config, learner=learner, run=run, resume=resume, loggers=[], device="cpu")


def make(root: Path) -> None:
    """Two datasets of each layout, with their stores; two runs, evaluated; two pairs of ONNX files; two tables."""
    for index in range(2):
        rng = np.random.default_rng(index)
        num_rows = _EPISODES * _STEPS
        terminated = np.arange(num_rows) % _STEPS == _STEPS - 1
        columns = {
            "actions": rng.integers(2, size=num_rows),
            "rewards": rng.normal(size=num_rows).astype(np.float32),
            "terminated": terminated,
            "episode_lengths": np.full(_EPISODES, _STEPS),
            "action_names": ("left", "right"),
        }
        vectors = rng.normal(size=(num_rows + _EPISODES, 4)).astype(np.float32)
        write_dataset(
            root / f"frames-{index}",
            observations=vectors,
            behaviour_probability=rng.random(num_rows),
            shard_bytes=_SHARD_BYTES,
            **columns,
        )
        pixels = rng.integers(256, size=(num_rows + _EPISODES, 3, 3), dtype=np.uint8)
        write_dataset(root / "pixels", observations=pixels, stack=2, shard_bytes=150, **columns)
        convert(root / "pixels", root / f"stacked-{index}", "stacked", shard_bytes=600, progress=False)
        shutil.rmtree(root / "pixels")
        for layout in ("frames", "stacked"):
            offrl.open_replay(root / f"{layout}-{index}", progress=False)
        run = root / f"run-{index}"
        train(root / f"frames-{index}", run, seed=index)
        episodes = [{"seed": seed, "score": float(rng.normal()), "length": 9} for seed in range(4)]
        write_sealed_json(run / "evaluation.json", {"policy": "checkpoints", "per_episode": episodes})
        trained = load_algorithm(latest_checkpoint(run / "checkpoints"), device="cpu")
        (root / f"onnx-{index}").mkdir()
        for contract, name in PUBLISHED_NAMES.items():
            export_onnx(trained, root / f"onnx-{index}" / name, contract=contract)
        header = "episode,step,observation_0,observation_1,action,reward,probability,terminated\n"
        rows = [
            f"{i // 5},{i % 5},{i / 7:.3f},{-i},{i % 2},{i / 3:.3f},0.5,{int(i % 5 == 4)}\n" for i in range(num_rows)
        ]
        (root / f"table-{index}").mkdir()
        (root / f"table-{index}" / "log.csv").write_text(header + "".join(rows))
