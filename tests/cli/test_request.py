import json
import shlex
from pathlib import Path

import pytest
from run_offrl import offrl

from offrl.cli.request import recorded_request, training_command
from offrl.errors import RunError


def test_the_command_of_a_run_names_what_is_not_default(trained, data):
    command = training_command(recorded_request(Path(trained["run"])), init=None)
    assert command == f"offrl train {data} --algorithm bcq --set precision=fp32 --updates 6"


def test_the_command_of_a_run_makes_the_same_run_again(data, trained, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    settings = ["schedule=cosine", "threshold=0.1", 'optimizer_settings={"weight_decay": 0.5}', "seed=3", "n_step=2"]
    sets = [word for setting in [*settings, "precision=fp32"] for word in ("--set", setting)]
    offrl("train", data, "--epochs", 0.5, "--encoder", "mlp", "--init", trained["run"], *sets, "--run", first)
    config = json.loads((first / "config.json").read_text())
    words = shlex.split(training_command(recorded_request(first), init=config["init"]))
    assert words[:2] == ["offrl", "train"]
    offrl(*words[1:], "--run", second)
    assert json.loads((second / "config.json").read_text()) == config
    assert (first / "metrics.csv").read_bytes() == (second / "metrics.csv").read_bytes()


def test_the_command_of_a_run_with_classes_of_the_users_own_loads_none_of_them(trained, tmp_path):
    config = json.loads(Path(trained["run"], "config.json").read_text())
    config["notes"]["algorithm"] = "absent:Own"
    config["algorithm_config"] = {"sizes": [2, 3], "double": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = shlex.split(training_command(recorded_request(tmp_path), init=None))
    assert words[3:9] == ["--algorithm", "absent:Own", "--set", "sizes=[2, 3]", "--set", "double=true"]


def test_a_config_without_its_parts_is_damaged(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RunError, match=r"config\.json: damaged"):
        recorded_request(tmp_path)
