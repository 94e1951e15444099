import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from run_offrl import offrl, offrl_json

SETTINGS = ["precision=fp32", "held_out=0.3", "split_seed=2", "checkpoint_period=4"]
OPTIONS = [word for setting in SETTINGS for word in ("--set", setting)]

WITHOUT_ENVIRONMENTS = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        for package in ("gymnasium", "gym", "Box2D", "pygame", "offrl.envs", "offrl.evaluation", "offrl.collection"):
            if name == package or name.startswith(package + "."):
                raise ImportError(f"{name} is the environment, which is not to be touched")

sys.meta_path.insert(0, Forbidden())
from offrl.cli import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("candidates")
    for seed in (0, 1):
        how = ("--updates", 8, "--run", folder / f"bcq-{seed}", "--quiet", "--set", f"seed={seed}", *OPTIONS)
        offrl_json("train", data, *how)
    return [folder / "bcq-0", folder / "bcq-1"]


def test_all_checkpoints_and_thresholds_are_ranked_and_the_winner_is_named(runs):
    found = offrl_json("select", *runs, "--by", "td_error,agreement", "--thresholds", "0,0.5", "--quiet")
    policies = {(each["policy"], each["threshold"]) for each in found["policies"]}
    checkpoints = [str(run / "checkpoints" / f"step-{step:09d}") for run in runs for step in (4, 8)]
    assert policies == {(each, threshold) for each in checkpoints for threshold in (0.0, 0.5)}
    means = [each["mean_rank"] for each in found["policies"]]
    assert means == sorted(means)
    assert found["winner"] == found["policies"][0]
    recorded = json.loads((runs[0] / "config.json").read_text())
    assert (found["held_out"], found["split_seed"], found["dataset"]) == (0.3, 2, recorded["dataset"])
    text = offrl("select", *runs, "--by", "td_error,agreement", "--thresholds", "0,0.5", "--quiet").stdout
    assert text.rstrip().splitlines()[-1] == f"take {found['reason']}"
    assert len(text.splitlines()) == 1 + 8 + 1 + 1


def test_the_statistic_of_the_last_checkpoint_is_near_that_of_the_table_of_metrics(data, tmp_path):
    # While training it is of 512 transitions with replacement, here of all: the same number about.
    run = tmp_path / "run"
    offrl_json("train", data, "--updates", 8, "--run", run, "--quiet", *OPTIONS, "--select", "agreement")
    header, *_, last = (run / "metrics.csv").read_text().splitlines()
    measured = dict(zip(header.split(","), last.split(","), strict=True))["held_out_agreement"]
    found = offrl_json("select", run, "--by", "agreement", "--quiet")
    of_last = next(each for each in found["policies"] if each["policy"].endswith("step-000000008"))
    assert of_last["statistics"]["agreement"] == pytest.approx(float(measured), abs=0.1)


def test_no_environment_can_be_touched(runs):
    options = ["--by", "td_error", "--json", "--quiet"]
    command = [sys.executable, "-c", WITHOUT_ENVIRONMENTS, "select", *map(str, runs), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["winner"]["statistics"]["td_error"] >= 0
    # The same hindrance is one: what plays does not run beside it.
    command[3:] = ["evaluate", str(runs[0]), "--episodes", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "the environment, which is not to be touched" in done.stderr


def test_models_are_fitted_as_asked_without_an_environment_and_recorded(runs):
    options = ["--by", "fqe,sbv,emsbe,support", "--updates", "3", "--seed", "1", "--json", "--quiet"]
    command = [sys.executable, "-c", WITHOUT_ENVIRONMENTS, "select", *map(str, runs), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fitted"] == {"fqe": 3, "sbv": 3, "emsbe": 3, "support": 3}
    assert (found["seed"], found["discount"]) == (1, 0.99)
    assert all(np.isfinite([*each["statistics"].values()]).all() for each in found["policies"])
    nearsighted = offrl_json("select", *runs, "--by", "fqe", "--updates", 3, "--discount", 0.5, "--quiet")
    usual = offrl_json("select", *runs, "--by", "fqe", "--updates", 3, "--quiet")
    assert (nearsighted["discount"], usual["discount"]) == (0.5, 0.99)
    assert nearsighted["winner"]["statistics"] != usual["winner"]["statistics"]
    text = offrl("select", *runs, *options[:6], "--quiet").stdout
    said = (
        "fitted on the training episodes with seed 1, fqe 3 times with discount 0.99: fqe with 3 updates, sbv with 3 "
    )
    assert said in text
    assert f"take {found['reason']}" in text


def refused(*arguments):
    result = offrl("select", *arguments, code=2)
    (line,) = result.stderr.strip().splitlines()
    return line


def test_what_cannot_be_compared_is_refused_in_a_line(runs, data, trained, tmp_path):
    assert "run: was trained on all episodes; expected a run with held-out" in refused(runs[0], trained["run"])
    how = ["--updates", 4, "--quiet", *OPTIONS]
    offrl("train", data, "--run", tmp_path / "split", *how, "--set", "split_seed=3")
    assert "holds out other episodes (held_out=0.3, split_seed=3)" in refused(*runs, tmp_path / "split")
    offrl("train", data, "--run", tmp_path / "discount", *how, "--set", "discount=0.5")
    assert "discount is 0.5; expected 0.99, as" in refused(runs[0], tmp_path / "discount", "--by", "td_error")
    offrl("select", runs[0], tmp_path / "discount", "--by", "agreement", "--quiet")
    differ = (runs[0], tmp_path / "discount", "--by", "fqe", "--quiet", "--updates", 2, "--refits", 1)
    said = refused(*differ)
    assert "discount is 0.5; expected 0.99, as" in said
    assert said.endswith("where fqe is fitted with one discount for all; name it: --discount 0.99")
    assert "fqe 1 times with discount 0.9: fqe" in offrl("select", *differ, "--discount", 0.9).stdout
    offrl("train", data, "--run", tmp_path / "bc", *how, "--algorithm", "bc")
    assert "bc learns no values" in refused(tmp_path / "bc", "--by", "td_error", "--quiet")
    assert "no statistic 'ess'; expected some of td_error, initial_value, agreement" in refused(runs[0], "--by", "ess")
    assert "no statistic 'td_error'; expected" in refused(runs[0], "--by", "td_error,td_error")
    assert "soft_opc: a reward of 1 before the last one" in refused(runs[0], "--by", "soft_opc")
    assert "updates" in refused(runs[0], "--by", "fqe", "--updates", "0")
    assert "'1.5'; expected numbers in [0, 1)" in refused(runs[0], "--thresholds", "1.5")
    other = tmp_path / "other"
    offrl("collect", "CartPole-v1", other, "--transitions", 200, "--workers", 1, "--quiet", "--seed", 5)
    assert "which the run was trained on" in refused(runs[0], "--data", other, "--quiet")


def test_an_encoder_is_that_of_the_fits_where_the_runs_have_offrls(runs):
    found = offrl_json("select", *runs, "--by", "support", "--encoder", "mlp", "--updates", 4, "--quiet")
    assert len(found["policies"]) == 4
    said = offrl("select", *runs, "--by", "support", "--encoder", "nature", "--updates", 4, "--quiet", code=2).stderr
    assert "NatureEncoder" in said  # which is for pixels: it is what was asked for


def test_a_file_is_no_run(runs):
    said = offrl("select", runs[0] / "config.json", "--by", "agreement", code=2).stderr
    assert "no config.json here; expected a run's directory" in said


def test_an_encoder_that_a_file_names_is_not_loaded(runs, tmp_path):
    """Of offrl's own encoders the run's is taken for the models; what else is named could be anything."""
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    config = json.loads((run / "config.json").read_text())
    config = {name: value for name, value in config.items() if name not in ("content_sha256", "sealed")}
    (run / "config.json").write_text(json.dumps({**config, "encoder": "evil_module:Encoder"}))
    (tmp_path / "evil_module.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "offrl", "select", str(run), "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "must not choose what code runs" in done.stderr
    assert not (tmp_path / "ran").exists()
