import json
import shlex
import shutil
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from run_offrl import offrl, offrl_json

from offrl import BC, FitConfig, fit, open_replay
from offrl.cli.pictures import training_command
from offrl.cli.request import read_request, recorded_request
from offrl.errors import ConfigError, RunError
from offrl.system.json_files import read_json


def test_the_command_of_a_run_names_what_is_not_default(trained, data):
    command = training_command(recorded_request(Path(trained["run"])), init=None)
    assert command == f"offrl train {data} --algorithm bcq --set precision=fp32 --updates 6"


def test_an_evaluator_of_ones_own_is_in_no_command(data, tmp_path):
    replay = open_replay(data, progress=False)
    watched = {"evaluator": lambda algorithm: {"score": 1.0}, "evaluate_every": 1}
    fit(BC(replay.spec), replay, FitConfig(updates=2), **watched, run=tmp_path / "run", loggers=[])
    assert "--evaluate" not in training_command(recorded_request(tmp_path / "run"), init=None)


def test_the_command_of_a_run_makes_the_same_run_again(data, trained, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    settings = ["schedule=cosine", "threshold=0.1", 'optimizer_settings={"weight_decay": 0.5}', "seed=3", "n_step=2"]
    sets = [word for setting in [*settings, "precision=fp32"] for word in ("--set", setting)]
    offrl("train", data, "--epochs", 0.5, "--encoder", "mlp", "--init", trained["run"], *sets, "--run", first)
    config = read_json(first / "config.json")
    words = shlex.split(training_command(recorded_request(first), init=config["init"]))
    assert words[:2] == ["offrl", "train"]
    offrl(*words[1:], "--run", second)
    assert read_json(second / "config.json") == config
    assert (first / "metrics.csv").read_bytes() == (second / "metrics.csv").read_bytes()


def test_the_command_of_a_run_with_classes_of_the_users_own_loads_none_of_them(trained, tmp_path):
    config = read_json(Path(trained["run"], "config.json"))
    config["notes"]["algorithm"] = "absent:Own"
    config["algorithm_config"] = {"sizes": [2, 3], "double": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = shlex.split(training_command(recorded_request(tmp_path), init=None))
    assert words[3:9] == ["--algorithm", "absent:Own", "--set", "sizes=[2, 3]", "--set", "double=true"]


def test_all_classes_that_must_be_named_are_asked_for_at_once(trained, tmp_path):
    config = read_json(Path(trained["run"], "config.json"))
    config["notes"] |= {"algorithm": "mine:Own", "encoder": "mine:Wide"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    both = "with the algorithm mine:Own and the encoder mine:Wide; expected these classes.*"
    with pytest.raises(ConfigError, match=f"{both}; add --algorithm mine:Own --encoder mine:Wide$"):
        read_request(tmp_path, None, None)
    with pytest.raises(ConfigError, match="with the encoder mine:Wide; .*add --encoder mine:Wide$"):
        read_request(tmp_path, "bcq", None)
    request = read_request(tmp_path, "bcq", "mlp")
    assert (request.algorithm, request.encoder) == ("bcq", "mlp")


def test_the_command_of_a_run_leaves_the_module_of_a_script_to_the_user(trained, tmp_path):
    config = read_json(Path(trained["run"], "config.json"))
    config["notes"]["algorithm"], config["algorithm_seed"] = "__main__:Own", 5
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = shlex.split(training_command(recorded_request(tmp_path), init=None))
    assert words[3:7] == ["--algorithm", "MODULE:Own", "--algorithm-seed", "5"]


def test_the_first_weights_have_the_seed_of_the_batches_or_their_own(data, tmp_path):
    for run, words in (("same", []), ("own", ["--algorithm-seed", 5])):
        offrl("train", data, "--updates", 1, "--set", "seed=3", *words, "--run", tmp_path / run, "--quiet")
    seeds = [read_json(tmp_path / run / "config.json")["algorithm_seed"] for run in ("same", "own")]
    assert seeds == [3, 5]
    assert offrl_json("train", "--resume", tmp_path / "own", "--updates", 2, "--quiet")["updates"] == 2


def test_another_algorithm_than_the_runs_is_refused_by_name(trained, data):
    refused = offrl("train", "--resume", trained["run"], "--algorithm", "bc", code=2).stderr
    assert refused.startswith("error: algorithm: BC, whose name is 'bc'; expected the class of 'bcq', which ")


def test_an_encoder_that_is_no_factory_is_blamed_and_not_the_algorithm(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("enc_without_shape.py").write_text("class Factory:\n    pass\n")
    refused = offrl("train", data, "--updates", 1, "--encoder", "enc_without_shape:Factory", code=2).stderr
    assert refused.startswith("error: encoder: Factory cannot be constructed with the observation shape (4,)")


def test_a_config_without_its_parts_is_damaged(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RunError, match=r"config\.json: damaged"):
        recorded_request(tmp_path)


@pytest.fixture
def elsewhere(data, tmp_path, monkeypatch):
    """The address of a copy of the data, with a password in it."""
    monkeypatch.setenv("OFFRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    for path in data.iterdir():
        if path.is_file():
            for url in ("memory://me:password@bucket/data", "memory://bucket/data"):
                fsspec.filesystem("memory").pipe_file(f"{url}/{path.name}", path.read_bytes())
    return "memory://me:password@bucket/data"


def test_data_elsewhere_is_looked_at_trained_on_and_exported(elsewhere, data, tmp_path):
    assert offrl_json("inspect", elsewhere, "--quiet") == offrl_json("inspect", data, "--quiet")
    run = tmp_path / "run"
    offrl("train", elsewhere, "--updates", 4, "--run", run, "--set", "precision=fp32", "--quiet")
    for path in run.rglob("*"):
        assert path.is_dir() or b"password" not in path.read_bytes(), path
    request = recorded_request(run)
    assert (request.data, request.environment) == ("memory://bucket/data", "CartPole-v1")
    assert shlex.split(training_command(request, init=None))[2] == "memory://bucket/data"
    exported = offrl_json("export", run, tmp_path / "policy.onnx", "--contract", "float", "--quiet")
    assert exported["files"][0]["num_real_observations"] > 0
    assert offrl_json("report", run, "--quiet")["with_dataset"]
    assert offrl_json("report", run, "--data", elsewhere, "--quiet")["with_dataset"]


def test_a_run_on_data_elsewhere_is_resumed_from_there(elsewhere, tmp_path):
    run = tmp_path / "run"
    offrl("train", elsewhere, "--updates", 4, "--run", run, "--set", "precision=fp32", "--quiet")
    shutil.rmtree(tmp_path / "cache")
    assert offrl_json("train", "--resume", run, "--quiet")["updates"] == 4
    assert offrl_json("train", elsewhere, "--resume", run, "--quiet")["updates"] == 4


def test_an_address_that_only_a_file_names_is_not_fetched_from(elsewhere, tmp_path):
    run = tmp_path / "run"
    offrl("train", elsewhere, "--updates", 1, "--run", run, "--set", "precision=fp32", "--quiet")
    shutil.rmtree(tmp_path / "cache")
    assert not offrl_json("report", run, "--quiet")["with_dataset"]
    assert not (tmp_path / "cache").exists()


def test_the_copy_of_what_only_a_file_names_is_read_as_it_is(elsewhere, tmp_path):
    run = tmp_path / "run"
    offrl("train", elsewhere, "--updates", 1, "--run", run, "--set", "precision=fp32", "--quiet")
    MemoryFileSystem.store.clear()  # out of reach, or changed
    assert offrl_json("report", run, "--quiet")["with_dataset"]


def test_an_address_without_data_is_one_line(elsewhere):
    assert "memory://bucket/none: no such file or directory" in offrl("inspect", "memory://bucket/none", code=2).stderr
    assert "is not installed" in offrl("train", "s3://bucket/data", "--updates", 1, code=2).stderr
