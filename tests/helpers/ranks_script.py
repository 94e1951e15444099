"""What tests/training/test_distributed.py has torchrun start: `python ranks_script.py FOLDER`, on every rank."""

import json
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
from toy_replay import ToyReplay

from offrl import Batch, TaskSpec
from offrl.algorithms import REM, DiscreteBCQ
from offrl.collection import collect
from offrl.envs import TUNING_SEEDS, RandomBehaviour, make
from offrl.errors import ConfigError
from offrl.evaluation import EpisodeEvaluator
from offrl.networks import NatureEncoder
from offrl.system.ranks import ALONE
from offrl.system.torchrun import join
from offrl.training import FitConfig, LearnerConfig, fit

SPEC = TaskSpec.vector(4, ("left", "right"))
CONFIG = FitConfig(updates=24, batch_size=8, log_period=5, checkpoint_period=10)
EVALUATOR = EpisodeEvaluator(partial(make, "CartPole-v1"), TUNING_SEEDS[:5], num_envs=2, workers=0)


class Poisoned(ToyReplay):
    """The last row of the batch of update 3 has an infinite reward: on two ranks only the second one sees it."""

    def indices(self, step, batch_size):
        rows = super().indices(step, batch_size)
        return np.append(rows[:-1], 199) if step == 3 else np.where(rows == 199, 0, rows)

    def gather(self, indices):
        batch = super().gather(indices)
        reward = batch.reward.clone()
        reward[np.asarray(indices) == 199] = float("inf")
        return Batch(**{**vars(batch), "reward": reward})


class Interrupting(ToyReplay):
    """Sends its own process a SIGTERM while the batch of update 7 is gathered."""

    def indices(self, step, batch_size):
        if step == 7:
            signal.raise_signal(signal.SIGTERM)
        return super().indices(step, batch_size)


def train(replay, run, config=CONFIG, **options):
    learner = LearnerConfig(schedule="cosine", average_decay=0.9, precision="fp32", non_finite="skip")
    return fit(DiscreteBCQ(SPEC), replay, config, learner=learner, run=run, loggers=[], device="cpu", **options)


def train_on_pixels():
    """Augmentation depends on the row of the batch of all ranks."""
    spec = TaskSpec.pixels((4, 36, 36), ("left", "right", "stay"))
    learner = LearnerConfig(precision="fp32", augment_shift=2, augment_brightness=20, learning_rate=1e-3)
    config = FitConfig(updates=5, batch_size=8)
    bcq = DiscreteBCQ(spec, encoder=NatureEncoder)
    return fit(bcq, ToyReplay(spec), config, learner=learner, loggers=[], device="cpu")


def train_on_mixtures():
    """REM draws weights of its heads for each update: a function of a counter, which every rank has."""
    learner, config = LearnerConfig(precision="fp32", learning_rate=1e-3), FitConfig(updates=5, batch_size=8)
    return fit(REM(SPEC), ToyReplay(SPEC), config, learner=learner, loggers=[], device="cpu")


def collect_episodes(directory, ranks=ALONE):
    settings = {"transitions": 150, "episodes_per_shard": 1, "workers": 1, "progress": False}
    return collect(partial(make, "CartPole-v1"), RandomBehaviour(), directory, ranks=ranks, **settings)


def check_sum(learner):
    """Differs where a single weight of the network or its target does."""
    return [float(tensor.double().sum()) for tensor in learner.state_tensors().values()]


def main(folder: Path) -> None:
    ranks = join()
    found = {"ranks": ranks.gather([ranks.rank, ranks.count])}
    try:
        train(ToyReplay(SPEC), folder / "odd", FitConfig(updates=1, batch_size=7))
    except ConfigError as error:
        found["odd"] = str(error)
    whole = train(ToyReplay(SPEC), folder / "whole", evaluate_every=12, evaluator=EVALUATOR)
    found["weights"] = ranks.gather(check_sum(whole))
    train(Poisoned(SPEC), folder / "poisoned")
    found["pixels"] = ranks.gather(check_sum(train_on_pixels()))
    found["mixtures"] = ranks.gather(check_sum(train_on_mixtures()))
    train(ToyReplay(SPEC), folder / "begun-on-1", resume=True)
    try:
        train(ToyReplay(SPEC) if ranks.is_first else Interrupting(SPEC), folder / "begun-on-2")
    except KeyboardInterrupt as error:
        found["stopped"] = ranks.gather(error.exit_code)
    shares = ranks.gather(EVALUATOR.play_share(DiscreteBCQ(SPEC), ranks))
    found["scores"] = EVALUATOR.scores_of(shares)
    collect_episodes(folder / "collected-on-2", ranks)
    if ranks.is_first:
        (folder / "found.json").write_text(json.dumps(found))
    # Until the test sends torchrun a SIGTERM.
    train(ToyReplay(SPEC), folder / "stopped", FitConfig(updates=10**6, batch_size=8, log_period=5))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
