"""What caac73b wrote still opens, and acts as it did; `make_fixtures.py` made it and says what it is."""

import csv
import hashlib
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from run_offrl import offrl_json

import offrl
from offrl.replay import FrameStore
from offrl.replay.ingestion import find_store
from offrl.runs import latest_checkpoint, load_policy

MADE = Path(__file__).parent / "made_by_caac73b"
EXPECTED = json.loads((MADE / "expected.json").read_text())
BCQ = EXPECTED["bcq-vectors"]


@pytest.fixture
def made(tmp_path):
    return Path(shutil.copytree(MADE, tmp_path / "made"))


def sha256(tensor):
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("name", EXPECTED["datasets"])
def test_a_dataset_gives_the_same_batches(made, name):
    about = EXPECTED["datasets"][name]
    for expected in about["batches"].values():
        replay = offrl.open_replay(made / name, seed=about["seed"], progress=False, **expected["settings"])
        assert (len(replay.store), replay.fingerprint) == (about["num_transitions"], about["fingerprint"])
        indices = replay.indices(expected["step"], len(expected["indices"]))
        batch = replay.gather(indices)
        assert indices.tolist() == expected["indices"]
        assert batch.action.tolist() == expected["action"]
        np.testing.assert_array_equal(batch.reward.numpy(), np.array(expected["reward"], np.float32))
        np.testing.assert_array_equal(batch.discount.numpy(), np.array(expected["discount"], np.float32))
        assert sha256(batch.observation) == expected["observation_sha256"]
        assert sha256(batch.next_observation) == expected["next_observation_sha256"]
        for mask in ("action_mask", "next_action_mask"):
            found = getattr(batch, mask)
            assert (None if found is None else found.tolist()) == expected[mask]


@pytest.mark.parametrize("name", ["vectors", "pixels"])
def test_a_frame_store_opens(made, name):
    (path,) = (path.parent for path in (made / name / ".store").glob("*/store.json"))
    store = FrameStore.open(path)
    about = EXPECTED["datasets"][name]
    assert (len(store), len(store.frames)) == (about["num_transitions"], about["num_frames"])
    assert store.episode_returns().tolist() == about["episode_returns"]
    assert store.spec.observation_shape == tuple(about["spec"]["observation_shape"])
    assert find_store(made / name).path == path


def make_bcq(spec):
    made_with = BCQ["made_with"]
    encoder = partial(offrl.MLPEncoder, hidden=made_with["hidden"])
    config = offrl.DiscreteBCQConfig(**made_with["algorithm_config"])
    return offrl.DiscreteBCQ(spec, config, encoder=encoder, seed=made_with["seed"])


def assert_chooses(algorithm, observations, expected):
    assert offrl.TorchPolicy(algorithm)(observations).tolist() == expected["actions"]
    with torch.no_grad():
        output = algorithm(algorithm.spec.normalise(torch.from_numpy(observations)))
    np.testing.assert_allclose(output.scores, expected["scores"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(output.logits, expected["logits"], rtol=1e-5, atol=1e-5)


def test_a_run_that_was_interrupted_goes_on(made):
    observations = np.load(MADE / "observations.npz")["vectors"]
    made_with, run = BCQ["made_with"], made / "runs" / "bcq-vectors"
    replay = offrl.open_replay(made / "vectors", progress=False, **made_with["replay"])
    assert_chooses(
        load_policy(make_bcq(replay.spec), latest_checkpoint(run / "checkpoints")), observations, BCQ["policy"]
    )
    offrl.fit(
        make_bcq(replay.spec),
        replay,
        offrl.FitConfig(**made_with["fit"]),
        learner=offrl.LearnerConfig(**made_with["learner"]),
        run=run,
        resume=True,
        loggers=[],
        device="cpu",
    )
    finished = load_policy(make_bcq(replay.spec), latest_checkpoint(run / "checkpoints"))
    assert_chooses(finished, observations, BCQ["resumed"]["policy"])
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert [row["step"] for row in rows] == [row["step"] for row in BCQ["resumed"]["metrics"]]
    for row, expected in zip(rows, BCQ["resumed"]["metrics"], strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("contract", ["float", "uint8"])
def test_an_exported_file_acts_as_it_did(contract):
    observations = np.load(MADE / "observations.npz")["vectors"]
    name = f"bcq-{contract}.onnx"
    assert offrl.OnnxPolicy(MADE / name)(observations).tolist() == BCQ[name]["actions"]


def test_a_run_of_the_command_line_is_exported_and_acts_as_it_did(made, monkeypatch):
    monkeypatch.chdir(made)
    offrl_json("export", "runs/bc-pixels", "exported.onnx", "--contract", "uint8")
    observations = np.load(MADE / "observations.npz")["pixels"]
    assert offrl.OnnxPolicy("exported.onnx")(observations).tolist() == EXPECTED["bc-pixels"]["policy"]["actions"]
