"""`offrl ope` on a run's own data: only episodes that neither it nor its first weights were trained on."""

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
