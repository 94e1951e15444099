"""`offrl ope` on a run's own data: only episodes that neither it nor its first weights were trained on."""

import numpy as np
import pytest
from run_offrl import offrl, offrl_json

ASKED = ("--estimators", "fqe", "--updates", 2, "--refits", 1, "--quiet")
HELD_OUT = ("--set", "held_out=0.3", "--set", "split_seed=2")


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("first") / "run"
    offrl_json("train", data, "--updates", 2, "--run", run, "--quiet", "--set", "precision=fp32")
    return run


def test_first_weights_that_were_trained_on_all_episodes_are_refused(data, first, tmp_path):
    run = tmp_path / "run"
    checkpoint = first / "checkpoints" / "step-000000002"
    how = ("--updates", 2, "--run", run, "--quiet", "--set", "precision=fp32", *HELD_OUT)
    offrl_json("train", data, "--init", checkpoint, *how)
    refused = offrl("ope", run, *ASKED, code=2).stderr
    assert f"{first}: was trained on all episodes" in refused
    assert "Traceback" not in refused


def test_a_run_on_the_held_out_episodes_themselves_is_refused(data, tmp_path):
    run = tmp_path / "run"
    how = ("--updates", 2, "--run", run, "--quiet", "--set", "precision=fp32", *HELD_OUT)
    offrl_json("train", data, *how, "--set", "part=held_out")
    assert "was trained on the held-out episodes themselves" in offrl("ope", run, *ASKED, code=2).stderr


def course_shards(directory):
    """Stacked shards of vectors without a manifest; true in `dones` says that an episode is not done."""
    directory.mkdir()
    rng = np.random.default_rng(0)
    rows = 60
    observations = rng.normal(size=(rows + 1, 4)).astype(np.float32)
    goes_on = np.arange(1, rows + 1) % 6 != 0
    np.savez(
        directory / "shard.npz",
        states=observations[:-1],
        next_states=observations[1:],
        actions=rng.integers(2, size=rows),
        rewards=np.ones(rows, np.float32),
        dones=goes_on,
    )
    return directory


HOW = ("--env", "CartPole-v1", "--dones", "not_done", "--updates", 2, "--quiet", "--set", "precision=fp32")


def test_a_runs_own_data_named_beside_it_is_read_as_the_run_read_it(tmp_path):
    data = course_shards(tmp_path / "data")
    for run, held_out in ((tmp_path / "apart", HELD_OUT), (tmp_path / "greedy", ())):
        offrl_json("train", data, "--run", run, *HOW, *held_out)
    found = offrl_json("ope", tmp_path / "apart", data, *ASKED)
    assert found["split"] == {"held_out": 0.3, "split_seed": 2}
    assert found == offrl_json("ope", tmp_path / "apart", *ASKED)
    assert "was trained on all episodes" in offrl("ope", tmp_path / "greedy", data, *ASKED, code=2).stderr


def test_shards_without_a_manifest_are_of_the_policys_task(tmp_path):
    data, other = course_shards(tmp_path / "data"), course_shards(tmp_path / "other")
    offrl_json("train", data, "--run", tmp_path / "run", *HOW, *HELD_OUT)
    with np.load(data / "shard.npz") as shard:
        np.savez(other / "shard.npz", **{**shard, "rewards": np.zeros(60, np.float32)})
    found = offrl_json("ope", tmp_path / "run", other, *ASKED)
    assert found["held_out_episodes"] == 2  # a fifth of its ten
    offrl("export", tmp_path / "run", tmp_path)
    found = offrl_json("ope", tmp_path / "model.onnx", other, "--dones", "not_done", *ASKED)
    assert found["policy"].endswith("model.onnx")
    assert found["held_out_episodes"] == 2
    refused = offrl("ope", tmp_path / "run", data, "--dones", "terminated", *ASKED, code=2).stderr
    assert "--dones beside a run" in refused  # read otherwise it would be other data, and what was held out forgotten


def test_what_may_flatter_a_run_is_in_its_result(data, tmp_path):
    how = ("--updates", 4, "--quiet", "--set", "precision=fp32", *HELD_OUT)
    offrl_json("train", data, "--run", tmp_path / "chosen", "--select", "td_error", "--keep-best", 1, *how)
    (said,) = (each for each in offrl_json("ope", tmp_path / "chosen", *ASKED)["warnings"] if "chose among" in each)
    assert said.startswith(f"{tmp_path / 'chosen'} chose among its checkpoints by the same held-out episodes")
    begun = ("--init", tmp_path / "chosen" / "checkpoints" / "step-000000004")
    offrl_json("train", data, "--run", tmp_path / "begun", *begun, *how)
    assert said in offrl_json("ope", tmp_path / "begun", *ASKED)["warnings"]
    offrl_json("train", data, "--run", tmp_path / "first", *how)
    offrl_json(
        "train", data, "--run", tmp_path / "run", "--init", tmp_path / "first" / "checkpoints" / "step-000000004", *how
    )
    (tmp_path / "first").rename(tmp_path / "moved")
    warnings = offrl_json("ope", tmp_path / "run", *ASKED)["warnings"]
    assert any(
        "which is not there: whether they were trained on the held-out episodes is not known." in each
        for each in warnings
    )
