"""Runs of three seeds of one task, evaluated, and one of an own class."""

import json

import pytest
from toy_replay import ToyReplay

from offrl import TaskSpec
from offrl.algorithms import DiscreteBCQ, DiscreteBCQConfig
from offrl.training import FitConfig, LearnerConfig, fit


class SeededReplay(ToyReplay):
    """Records its seed, as a Replay does."""

    def __init__(self, spec, seed):
        super().__init__(spec, seed)
        self.seed = seed

    def settings(self):
        return {"seed": self.seed, "held_out": 0.1}


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """runs/bcq-0, -1, -2, with mean scores 10, 20 and 60 over five episodes each."""
    root = tmp_path_factory.mktemp("runs")
    spec = TaskSpec.vector(3, ("left", "right", "stay"))
    for seed, mean in enumerate((10.0, 20.0, 60.0)):
        bcq = DiscreteBCQ(spec, DiscreteBCQConfig(threshold=0.2), seed=seed)
        run = root / f"bcq-{seed}"
        learner = LearnerConfig(precision="fp32", compile="off")
        notes = {"data": "/home/somebody/data", "environment": "Toy-v0"}
        config = FitConfig(updates=2, batch_size=8)
        fit(bcq, SeededReplay(spec, seed), config, learner=learner, run=run, loggers=[], notes=notes, device="cpu")
        rows = [{"seed": 2_000_000 + i, "score": mean, "length": 5} for i in range(5)]
        evaluation = {"mean": mean, "interval_95": [mean - 1, mean + 1], "per_episode": rows}
        (run / "evaluation.json").write_text(json.dumps(evaluation))
    return root
