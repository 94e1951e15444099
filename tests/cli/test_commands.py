import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from run_offrl import offrl, offrl_json
from safetensors.numpy import load_file

from offrl import BC, BCConfig, FitConfig, __version__, fit, open_replay
from offrl.hub import publishing
from offrl.system.json_files import read_json, write_sealed_json

OWN_CLASSES = """
import os
import signal
from dataclasses import dataclass

from torch import nn

from offrl.algorithms import DQN, DQNConfig


@dataclass(frozen=True)
class OwnConfig(DQNConfig):
    double: bool = False
    sizes: tuple[int, ...] = (1,)


class OwnDQN(DQN):
    name = "own"

    def __init__(self, spec, config: OwnConfig | None = None, *, encoder, seed=0):
        super().__init__(spec, config, encoder=encoder, seed=seed)
        self.num_calls = 0

    def loss(self, batch):
        assert isinstance(self.config.sizes, tuple)
        self.num_calls += 1
        if str(self.num_calls) == os.environ.get("STOP_AT"):
            signal.raise_signal(signal.SIGINT)  # what ctrl-C does
        return super().loss(batch)


class OwnEncoder(nn.Linear):
    def __init__(self, observation_shape):
        super().__init__(observation_shape[0], 8)
        self.feature_dim = 8


class AlwaysRight:
    def begin(self, env, rng):
        pass

    def __call__(self, observation):
        return 1, 1.0
"""


@pytest.fixture
def own_classes(tmp_path, monkeypatch):
    """A module of the user's in the current directory, as the command line finds it."""
    (tmp_path / "own_classes.py").write_text(OWN_CLASSES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_classes", None)


def test_help_begins_with_an_example_and_loads_neither_torch_nor_gymnasium():
    code = (
        "import sys; from click.testing import CliRunner; from offrl.cli import main\n"
        "for command in ([], *([name] for name in main.commands)):\n"
        "    result = CliRunner().invoke(main, [*command, '--help'])\n"
        "    assert result.output.split('\\n\\n')[1].strip().startswith('Example'), result.output\n"
        "print(sorted(main.commands), {'torch', 'gymnasium', 'onnx', 'numpy'} & sys.modules.keys())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    commands = (
        "algorithms card collect convert evaluate export fetch inspect ope plot publish record report select train "
        "verify version watch"
    )
    assert shown == f"{commands.split()} set()\n"


def test_python_dash_m_is_the_same_command():
    shown = subprocess.run([sys.executable, "-m", "offrl", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"offrl, version {__version__}\n"


def test_collect_says_what_is_there_and_does_not_collect_again(data):
    before = {path.name: path.stat().st_mtime_ns for path in data.glob("*.npz")}
    found = offrl_json("collect", "CartPole-v1", data, "--transitions", 300, "--workers", 1)
    assert found["transitions"] >= 300
    assert found["shards"] == len(before)
    assert {path.name: path.stat().st_mtime_ns for path in data.glob("*.npz")} == before


def test_collect_with_a_behaviour_of_the_users_own(tmp_path, own_classes):
    offrl(
        "collect", "CartPole-v1", "right", "--transitions", 9, "--workers", 1, "--behaviour", "own_classes:AlwaysRight"
    )
    summary = offrl_json("inspect", "right")
    assert summary["action_counts"] == {"action 0": 0, "action 1": summary["num_transitions"]}


def test_inspect_shows_the_same_in_words_and_in_json(data):
    summary = offrl_json("inspect", data)
    assert f"{summary['num_transitions']:,} over {summary['num_frames']:,} frames" in offrl("inspect", data).stdout


def test_inspect_writes_a_page_beside_what_it_prints(data, tmp_path):
    page = tmp_path / "new" / "page.html"
    printed = offrl("inspect", data).stdout
    assert offrl("inspect", data, "--html", page).stdout == f"{printed}\npage         {page}\n"
    before = page.read_bytes()
    assert before.startswith(b"<!doctype html>")
    assert offrl_json("inspect", data, "--html", page) == offrl_json("inspect", data)
    assert page.read_bytes() == before
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


def test_inspect_refuses_a_directory_as_page_before_the_work(tmp_path):
    refused = offrl("inspect", tmp_path / "absent", "--html", tmp_path, code=2).stderr
    assert refused == (
        f"error: offrl inspect: Invalid value for '--html': File '{tmp_path}' is a directory; "
        "offrl inspect --help says what it takes\n"
    )


def test_inspect_prints_each_problem_in_a_line(tmp_path):
    rows = np.zeros((40, 3), np.float32)
    flags = {"actions": np.arange(40) % 2, "rewards": np.arange(40.0), "dones": np.arange(40) == 39}
    np.savez(tmp_path / "a.npz", states=rows, next_states=rows, **flags)
    shown = offrl("inspect", tmp_path).stdout
    assert shown.splitlines()[-1].startswith("warning: 100% of the observations repeat the one before; log a copy")


def test_inspect_names_the_actions_of_stacked_shards_when_told_the_task(tmp_path):
    rows = np.zeros((2, 4, 96, 96), np.uint8)
    np.savez(
        tmp_path / "a.npz", states=rows, next_states=rows, actions=[2, 24], rewards=[1.0, 2.0], dones=[False, True]
    )
    counts = offrl_json("inspect", tmp_path, "--env", "CarRacing-v3")["action_counts"]
    assert {name: n for name, n in counts.items() if n} == {"straight, full gas": 1, "full right, full brake": 1}


def test_train_writes_the_settings_it_was_given(data, tmp_path):
    run = tmp_path / "run"
    shown = offrl_json(
        "train", data, "--algorithm", "dqn", "--encoder", "mlp", "--updates", 4, "--run", run,
        "--set", "batch_size=16", "--set", "learning_rate=0.01", "--set", "n_step=3", "--set", "seed=5",
        "--set", "double=false", "--set", 'optimizer_settings={"weight_decay": 0.5}', "--set", "tier=mmap",
    )  # fmt: skip
    config = json.loads((run / "config.json").read_text())
    assert config["algorithm"] == "dqn"
    assert config["algorithm_config"] == {"double": False, "ensemble": None}
    assert (config["fit"]["updates"], config["fit"]["batch_size"]) == (4, 16)
    assert config["learner"]["learning_rate"] == 0.01
    assert config["learner"]["optimizer_settings"] == {"weight_decay": 0.5}
    chosen = {name: config["replay"][name] for name in ("n_step", "discount", "reward_scale", "sampling", "seed")}
    assert chosen == {"n_step": 3, "discount": 0.99, "reward_scale": 1.0, "sampling": "uniform", "seed": 5}
    assert config["notes"]["data"] == str(data)
    assert config["notes"]["environment"] == "CartPole-v1"
    last = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))[-1]
    assert shown["loss"] == float(last["loss"])
    assert (shown["updates"], shown["run"]) == (4, str(run))


def test_train_takes_the_next_free_name(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [offrl_json("train", data, "--updates", 1, "--set", "precision=fp32")["run"] for _ in range(2)]
    assert names == ["runs/bcq-001", "runs/bcq-002"]


def test_epochs_are_passes_over_the_data(data, tmp_path):
    transitions = offrl_json("inspect", data)["num_transitions"]
    args = ("--epochs", 2, "--set", "batch_size=100", "--run", tmp_path / "run")
    assert offrl_json("train", data, *args)["updates"] == 2 * -(-transitions // 100)


def test_init_begins_with_the_weights_of_another_run_and_can_be_resumed(data, trained, tmp_path):
    run = tmp_path / "run"
    args = ("--updates", 3, "--init", trained["run"], "--set", "learning_rate=1e-30", "--set", "precision=fp32")
    offrl("train", data, *args, "--run", run, "--quiet")
    begun = load_file(run / "checkpoints" / "step-000000003" / "policy.safetensors")
    given = load_file(Path(trained["checkpoint"], "policy.safetensors"))
    for name in ("q_head.output.weight", "imitation_head.output.weight", "encoder.network.0.weight"):
        np.testing.assert_array_equal(begun[name], given[name])
    assert offrl_json("train", "--resume", run)["updates"] == 3


def test_an_interrupted_run_says_how_to_go_on_and_ends_as_if_never_stopped(data, own_classes, monkeypatch):
    own = ("--algorithm", "own_classes:OwnDQN", "--encoder", "own_classes:OwnEncoder")
    common = ("train", data, *own, "--updates", 8, "--set", "precision=fp32", "--set", "sizes=[2, 3]", "--quiet")
    offrl(*common, "--run", "whole")
    monkeypatch.setenv("STOP_AT", "3")
    stopped = offrl(*common, "--run", "stopped", code=130)
    assert stopped.stderr == "interrupted; go on with: offrl train --resume stopped\n"
    assert stopped.stdout == ""

    monkeypatch.delenv("STOP_AT")
    refused = offrl("train", "--resume", "stopped", code=2)
    assert "add --algorithm own_classes:OwnDQN" in refused.stderr  # a file does not choose what code runs
    assert offrl_json("train", "--resume", "stopped", *own)["updates"] == 8
    whole, resumed = (Path(run, "checkpoints", "step-000000008", "learner.safetensors") for run in ("whole", "stopped"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_a_moved_dataset_is_named_again_and_another_one_is_refused(data, trained, tmp_path):
    other = tmp_path / "other"
    offrl("collect", "CartPole-v1", other, "--transitions", 20, "--seed", 1, "--workers", 1, "--quiet")
    assert offrl_json("train", data, "--resume", trained["run"])["updates"] == 6
    assert "dataset is" in offrl("train", other, "--resume", trained["run"], code=2).stderr


def test_evaluate_gives_the_same_scores_from_run_checkpoint_and_exported_file(trained, tmp_path):
    out = tmp_path / "evaluation.json"
    common = ("--episodes", 2, "--seed-start", 11, "--workers", 0)
    from_run = offrl_json("evaluate", trained["run"], *common, "--out", out)
    written = json.loads(out.read_text())
    assert {name: written[name] for name in from_run} == from_run
    assert written.keys() - from_run.keys() == {"sealed", "content_sha256", "run_sha256"}
    assert [row["seed"] for row in from_run["per_episode"]] == [11, 12]
    assert from_run["environment"] == {"id": "CartPole-v1"}
    offrl("export", trained["run"], tmp_path, "--quiet")
    for policy in (trained["checkpoint"], tmp_path / "model.onnx", tmp_path / "model-uint8.onnx"):
        found = offrl_json("evaluate", policy, *common, "--env", "CartPole-v1")
        assert found["per_episode"] == from_run["per_episode"]


def test_evaluate_prints_a_table(trained):
    shown = offrl("evaluate", trained["run"], "--episodes", 2, "--workers", 0, "--quiet").stdout
    assert "seeds 2000000 to 2000001" in shown
    assert "2 episodes: too few for an interval" in shown


def test_export_verifies_on_the_runs_own_data_where_that_is_present(trained, tmp_path):
    path = tmp_path / "policy.onnx"
    (found,) = offrl_json("export", trained["run"], path, "--contract", "uint8")["files"]
    assert (found["file"], found["contract"]) == (str(path), "uint8")
    assert found["num_real_observations"] == 1000
    assert found["num_observations"] == 1064
    assert found["max_q_difference"] < 1e-4
    assert [each.name for each in tmp_path.iterdir()] == ["policy.onnx"]


def test_publish_verifies_on_the_runs_own_data_and_names_nothing_of_this_machine(data, trained, tmp_path, monkeypatch):
    verified = []
    verify = publishing.verify_onnx
    monkeypatch.setattr(
        publishing, "verify_onnx", lambda path, policy, real: verified.append(len(real)) or verify(path, policy, real)
    )
    run = tmp_path / "run"
    options = ("--updates", 1, "--set", "precision=fp32", "--quiet")
    offrl("train", data, "--run", run, "--init", trained["checkpoint"], *options)
    assert read_json(run / "config.json")["init"] == str(trained["checkpoint"])
    machine = read_json(run / "environment.json")
    write_sealed_json(run / "environment.json", {**machine, "launcher": "somebodys-host"})
    published = offrl_json("publish", run, tmp_path / "published", "--quiet")
    assert verified == [1000, 1000]
    for name in published["files"]:
        content = (tmp_path / "published" / name).read_bytes()
        assert str(Path(trained["checkpoint"]).parent).encode() not in content
        assert b"somebodys-host" not in content


def test_runs_made_in_python_are_evaluated_and_resumed_too(data, tmp_path):
    replay = open_replay(data, progress=False)
    run = tmp_path / "run"
    fit(BC(replay.spec, BCConfig()), replay, FitConfig(updates=2), run=run, loggers=[])
    found = offrl_json("evaluate", run, "--episodes", 1, "--workers", 0)  # in the environment that the data is of
    assert len(found["per_episode"]) == 1
    assert offrl_json("train", "--resume", run)["updates"] == 2  # the run says where its data lies
    assert offrl_json("train", data, "--resume", run)["updates"] == 2
