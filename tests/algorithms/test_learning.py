"""Every algorithm learns CartPole from a mixture of drivers, most of which are bad."""

from functools import partial

import pytest

import offrl
from offrl.cli.names import ALGORITHMS, algorithm_class
from offrl.collection import collect
from offrl.envs import CartPoleMixture, make
from offrl.evaluation import Evaluation

SHELF = {name: algorithm_class(name) for name in ALGORITHMS}
SEEDS = range(1_000_000, 1_000_010)
DATASET_MEAN = 163  # of 20,000 transitions of the mixture, see docs/benchmarks.md


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cartpole") / "data"
    collect(partial(make, "CartPole-v1"), CartPoleMixture(), directory, transitions=20_000, workers=1, progress=False)
    return directory


def trained_score(kind, data) -> Evaluation:
    replay = offrl.open_replay(
        data, n_step=5, discount=0.99, reward_scale=0.1, include=sorted(kind.needs), progress=False
    )
    algorithm = kind(replay.spec, encoder=partial(offrl.MLPEncoder, hidden=(64,)), seed=0)
    settings = offrl.LearnerConfig(
        learning_rate=1e-3, schedule="cosine", average_decay=0.99, polyak=0.01, precision="fp32", compile="off"
    )
    config = offrl.FitConfig(updates=1000, batch_size=64)
    learner = offrl.fit(algorithm, replay, config, learner=settings, loggers=[], device="cpu")
    return offrl.evaluate(offrl.TorchPolicy(learner.snapshot()), partial(make, "CartPole-v1"), SEEDS, workers=0)


@pytest.mark.slow  # ten seconds each
@pytest.mark.parametrize("kind", SHELF.values(), ids=SHELF)
def test_it_plays_cart_pole_better_than_its_data(kind, data):
    score = trained_score(kind, data).mean.mean
    assert score > (1.1 if kind is offrl.BC else 1.5) * DATASET_MEAN
