"""The regression of one-step backups against means that anybody can compute."""

import numpy as np
import pytest
import torch
from two_rooms import SPEC, two_rooms

from offrl import LearnerConfig
from offrl.batch import Batch
from offrl.errors import ConfigError
from offrl.selection import BackupRegression, BackupRegressionConfig, FittedBackups, fit_backups

QUICK = LearnerConfig(learning_rate=3e-3, average_decay=0.99, precision="fp32", compile="off", threads=1)


@pytest.fixture(scope="module")
def replay(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("offrl.system.files.sync", lambda path: None)
        yield two_rooms(tmp_path_factory.mktemp("rooms"), longest=3, held_out=0.3)


def test_it_finds_the_means_of_backups_of_all_candidates_whatever_their_scales(replay):
    store, rows = replay.store, replay.rows
    noise = np.random.default_rng(0).choice([-1.0, 1.0], len(rows))
    in_b = store.observations(rows)[:, 1]
    backups = {
        "small": in_b + 0.1 * store.actions[rows] + 0.3 * noise,
        "large": 1e4 * (2 - in_b),
        "constant": np.full(len(rows), 7.0),
        "diverged": np.where(np.arange(len(rows)) == 3, np.inf, 1.0),
    }
    held_out = replay.held_out()
    fitted = fit_backups(backups, replay, 400, batch_size=64, learner=QUICK, device="cpu")
    assert isinstance(fitted, FittedBackups)
    found = fitted.read(held_out)
    in_b, action = held_out.store.observations(held_out.rows)[:, 1], held_out.store.actions[held_out.rows]
    assert found.shape == (len(held_out), 4)
    assert found[:, 0] == pytest.approx(in_b + 0.1 * action, abs=0.1)
    assert found[:, 1] == pytest.approx(1e4 * (2 - in_b), abs=100)
    assert found[:, 2] == pytest.approx(7.0, abs=0.1)
    assert np.isnan(found[:, 3]).all()


def batch():
    return Batch(
        observation=torch.eye(2),
        action=torch.tensor([0, 1]),
        reward=torch.tensor([99.0, 99.0]),
        discount=torch.tensor([0.9, 0.9]),
        next_observation=torch.eye(2),
        index=torch.tensor([2, 0]),
    )


def test_the_loss_of_two_rows_by_hand():
    model = BackupRegression(SPEC, BackupRegressionConfig(2))
    with torch.no_grad():
        model.head.output.weight.zero_()
        model.head.output.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    model.learn(np.array([[5.0, 8.0], [99.0, 99.0], [1.5, 1.0]]))
    # Action 0 and the backups of row 2: 1 - 1.5, 3 - 1. Action 1 and those of row 0: 2 - 5, 4 - 8.
    loss, metrics = model.loss(batch())
    assert loss.item() == pytest.approx((0.25 + 4 + 9 + 16) / 4)
    assert metrics["backup"].item() == pytest.approx(2.5)


def test_without_backups_it_says_so():
    with pytest.raises(ConfigError, match="no backups.*call learn"):
        BackupRegression(SPEC).loss(batch())
    with pytest.raises(ConfigError, match=r"backups of shape \[3, 2\]; expected \[transitions, 1\]"):
        BackupRegression(SPEC).learn(np.zeros((3, 2)))
