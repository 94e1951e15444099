"""Whatever is wrong with what the user gives: one line that says so, exit code 2, and nothing left behind."""

import errno
import json
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from offrl import DQN, FitConfig, TaskSpec, fit, open_replay
from offrl.cli import main
from offrl.envs import car_racing
from offrl.system.json_files import read_json

GOOD = {
    "states": np.arange(12, dtype=np.float32).reshape(6, 2),
    "actions": np.array([0, 1, 2, 0, 1, 2]),
    "next_states": np.arange(2, 14, dtype=np.float32).reshape(6, 2),
    "rewards": np.ones(6, np.float32),
    "dones": np.array([False] * 5 + [True]),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def cartpole(tmp_path_factory):
    """A frames dataset and a run on it."""
    root = tmp_path_factory.mktemp("cartpole")
    args = ["collect", "CartPole-v1", str(root / "data"), "--transitions", "60", "--workers", "1", "--quiet"]
    assert CliRunner().invoke(main, args).exit_code == 0
    replay = open_replay(root / "data", progress=False)
    fit(DQN(replay.spec), replay, FitConfig(updates=1), run=root / "run", loggers=[])
    return root


def refused(*args, says):
    """Runs the command and checks the bar for every error; `says` are parts of the message, in this order."""
    before = files()
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    message = result.stderr
    assert message.startswith("error: ")
    for part in says:
        assert part in message, result.stderr
        message = message.split(part, 1)[1]
    assert files() == before
    return result


def files():
    return sorted((str(path), path.stat().st_size) for path in Path.cwd().rglob("*") if path.name != "__pycache__")


def save(**changes):
    """Writes data/a.npz: GOOD, with these members in place of its own; None leaves one out."""
    members = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    Path("data").mkdir()
    np.savez("data/a.npz", **members)


def test_the_undamaged_shard_is_fine(here):
    save()
    assert CliRunner().invoke(main, ["inspect", "data"]).exit_code == 0


@pytest.mark.parametrize("command", [("inspect", "data"), ("train", "data", "--updates", 1)])
def test_missing_and_empty_directories(here, command):
    refused(*command, says=["data", "no such directory", "expected a directory of .npz shards", "check the path"])
    Path("data").mkdir()
    refused(*command, says=["data", "holds no shards", "expected *.npz files"])
    Path("data/readme.txt").touch()
    refused(*command, says=["data", "holds no shards"])


def test_a_file_in_place_of_the_directory(here):
    Path("data").touch()
    refused("inspect", "data", says=["data", "is a file"])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("log.h5", "offrl convert log.h5 DIRECTORY --to frames makes a dataset of it"),
        ("log.parquet", "offrl convert log.parquet DIRECTORY --to frames makes a dataset of it"),
        ("shards.tar.gz", "offrl fetch shards.tar.gz DIRECTORY unpacks it"),
        ("shard.npz", "name the directory that it lies in, ."),
    ],
)
def test_a_file_that_holds_a_dataset_says_how_it_becomes_one(here, name, hint):
    Path(name).touch()
    for command in (("inspect", name), ("train", name, "--updates", 1)):
        refused(*command, says=[name, "is a file; expected a directory of .npz shards", hint])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rewards": None}, ["rewards", "expected"]),
        ({"states": None}, ["has the members", "expected states, actions"]),
        ({"rewards": np.ones(5)}, ["rewards has 5 rows", "expected 6, like actions", "cut short"]),
        ({"next_states": GOOD["next_states"][:4]}, ["next_states has 4 rows", "expected 6"]),
        ({"next_states": np.zeros((6, 3), np.float32)}, ["next_states is float32 [6, 3]", "expected [6, 2]"]),
        ({"states": np.zeros((6, 2, 2), np.float32)}, ["states is float32 [6, 2, 2]", "expected [N, S, H, W] or"]),
        ({"actions": np.zeros(6)}, ["actions is float64 [6]", "expected integers"]),
        ({"dones": np.full(6, 0.5)}, ["dones has 0.5 at row 0", "expected 0 or 1"]),
        ({"rewards": np.array([0, 1, np.nan, 1, 1, 1])}, ["rewards has nan at row 2", "expected finite", "drop"]),
        ({"rewards": np.array([0, 1, 1, -np.inf, 1, 1])}, ["rewards has -inf at row 3", "expected finite", "drop"]),
        ({"states": np.full((6, 2), np.nan, np.float32)}, ["states has nan at row 0", "expected finite"]),
        ({"actions": np.array([0, 1, 2, 0, -1, 2])}, ["actions", "-1", "expected"]),
        ({"rewards": np.array([0.0, None, 1, 1, 1, 1])}, ["'rewards'", "pickled", "expected plain numbers"]),
    ],
)
def test_damaged_members(here, changes, says):
    save(**changes)
    refused("train", "data", "--updates", 1, says=["a.npz: ", *says])


def test_actions_beyond_those_of_the_task(here):
    save(states=np.zeros((6, 4)), next_states=np.zeros((6, 4)))
    refused("inspect", "data", "--env", "CartPole-v1", says=["a.npz: actions", "2", "expected", "0..1"])


@pytest.mark.parametrize("kept", [0, 10, 200, -30])
def test_truncated_and_foreign_files(here, kept):
    save()
    content = Path("data/a.npz").read_bytes()
    Path("data/a.npz").write_bytes(content[:kept])
    refused("inspect", "data", says=["a.npz: cannot be opened", "expected an .npz file"])


def test_a_shard_that_was_changed_after_its_manifest(here, cartpole):
    Path("data").mkdir()
    for path in (cartpole / "data").glob("*.*"):
        if path.is_file():
            Path("data", path.name).write_bytes(path.read_bytes())
    shard = min(Path("data").glob("*.npz"))
    shard.write_bytes(shard.read_bytes()[:-1])
    refused("inspect", "data", says=[shard.name, "sha256 is", "expected", "manifest.json", "restore it"])
    Path("data/manifest.json").write_text("{")
    refused("inspect", "data", says=["manifest.json: cannot be read", "expected JSON"])


def test_data_of_another_task_than_the_one_named(here, cartpole):
    says = ["manifest.json", "observation_shape is (4,)", "expected (4, 96, 96)", "pass no spec"]
    refused("train", cartpole / "data", "--env", "CarRacing-v3", "--updates", 1, says=says)


def test_first_weights_of_another_task(here, cartpole):
    save()
    assert CliRunner().invoke(main, ["inspect", "data"]).exit_code == 0  # so that the data is ingested already
    says = ["run: ", "observation_shape is (4,)", "expected (2,)", "same task"]
    refused("train", "data", "--updates", 1, "--init", cartpole / "run", says=says)


def test_a_policy_in_another_environment(here, cartpole):
    args = ("evaluate", cartpole / "run", "--workers", 0, "--env")
    refused(*args, "Acrobot-v1", says=["Acrobot-v1: observation_shape is (6,)", "expected (4,)", "trained for"])


@pytest.mark.filterwarnings("ignore::UserWarning")  # one episode of one action
def test_a_policy_that_needs_the_hud_where_it_is_hidden(here):
    pytest.importorskip("Box2D")
    np.savez("shard.npz", **pixels(4))
    replay = open_replay(here, spec=car_racing.spec("visible"), cache=here / "cache", progress=False)
    fit(DQN(replay.spec), replay, FitConfig(updates=1, batch_size=2), run=here / "run", loggers=[])
    args = ("evaluate", "run", "--env", "CarRacing-v3", "--hud", "hidden", "--workers", 0)
    refused(*args, says=["CarRacing-v3: hud is hidden", "expected visible"])


def pixels(num_rows):
    states = np.zeros((num_rows, 4, 96, 96), np.uint8)
    dones = np.arange(num_rows) == num_rows - 1
    return {
        "states": states,
        "actions": np.zeros(num_rows, int),
        "next_states": states,
        "rewards": dones * 1.0,
        "dones": dones,
    }


def test_unknown_environments(here, cartpole):
    says = ["no environment 'CartPole-v3'", "did you mean CartPole-v1"]
    refused("collect", "CartPole-v3", "data", "--transitions", 10, says=says)
    refused("evaluate", cartpole / "run", "--env", "CartPole-v3", says=says)
    refused("collect", "Pendulum-v1", "data", "--transitions", 10, says=["Pendulum-v1: actions Box", "Discrete"])


def test_hud_without_carracing(here, cartpole):
    says = ["--hud: CartPole-v1 has none", "expected CarRacing-v3"]
    refused("collect", "CartPole-v1", "data", "--transitions", 10, "--hud", "hidden", says=says)
    refused("inspect", cartpole / "data", "--hud", "hidden", says=["--hud", "expected --env"])


@pytest.mark.parametrize("missing", ["Box2D", "pygame"])
def test_carracing_without_its_packages(here, monkeypatch, missing):
    for name in [name for name in sys.modules if name.startswith(("gymnasium.envs.box2d", "offrl.envs.fast_car"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    says = ["CarRacing-v3: ", "not installed", "-m pip install 'gymnasium[box2d]"]
    refused("collect", "CarRacing-v3", "data", "--transitions", 10, says=says)


@pytest.mark.parametrize("content", [b"", b"no onnx at all", json.dumps({"a": 1}).encode()])
def test_an_onnx_file_that_is_none(here, content):
    Path("policy.onnx").write_bytes(content)
    refused("evaluate", "policy.onnx", "--env", "CartPole-v1", says=["policy.onnx: ", "export_onnx"])


def test_policies_that_are_missing_or_damaged(here, cartpole):
    refused(
        "evaluate",
        "absent.onnx",
        "--env",
        "CartPole-v1",
        says=["absent.onnx: no such file or directory", "expected a run"],
    )
    refused("evaluate", "absent", says=["absent: no such file or directory", "expected a run"])
    refused("export", "absent", "out", says=["absent: no such file or directory"])
    Path("run/checkpoints/step-000000001").mkdir(parents=True)
    refused("evaluate", "run", says=["run", "no config.json here", "expected a run's directory"])
    Path("run/config.json").write_text("{}")
    refused("evaluate", "run", says=["config.json: damaged", "expected what offrl wrote"])
    Path("run/config.json").write_bytes((cartpole / "run" / "config.json").read_bytes())
    refused("evaluate", "run", says=["policy.safetensors: no such file"])
    Path("run/checkpoints/step-000000001/policy.safetensors").write_bytes(b"\0" * 20)
    refused("evaluate", "run", "--env", "CartPole-v1", says=["policy.safetensors: damaged"])


def test_a_run_that_exists(here, cartpole):
    Path("run").mkdir()
    Path("run/thesis.tex").write_text("dear to somebody")
    says = ["run: exists already", "expected a new name", "--resume"]
    refused("train", cartpole / "data", "--updates", 1, "--run", "run", says=says)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), ["train: no length", "expected --updates or --epochs"]),
        (("--updates", 1, "--epochs", 1), ["FitConfig", "updates=1, epochs=1", "exactly one"]),
        (
            ("--updates", 1, "--algorithm", "bcqq"),
            ["no algorithm 'bcqq'", "expected bcq, bc, dqn", "did you mean bcq?"],
        ),
        (("--updates", 1, "--algorithm", "absent:A"), ["--algorithm: absent:A cannot be imported", "expected package"]),
        (("--updates", 1, "--algorithm", "json:JSONDecoder"), ["JSONDecoder", "expected a subclass of"]),
        (("--updates", 1, "--encoder", "nature"), ["NatureEncoder: observation shape (4,)", "use MLPEncoder"]),
        (("--updates", 1, "--encoder", "json:dumps"), ["dumps made '[4]'", "expected an nn.Module"]),
        (("--updates", 1, "--set", "treshold=1"), ["no field 'treshold'", "did you mean threshold?"]),
        (("--updates", 1, "--set", "threshold=1"), ["threshold: 1.0", "expected 0 <= threshold < 1"]),
        (("--updates", 1, "--set", "threshold=high"), ["threshold: 'high'", "expected a finite number"]),
        (("--updates", 1, "--set", "n_step=0"), ["Replay.n_step: 0", "expected 1 or more"]),
        (("--updates", 1, "--set", "optimizer=Adm"), ["optimizer: 'Adm'", "expected a class of torch.optim"]),
        (("--updates", 1, "--set", 'optimizer_settings={"x": 1}'), ["optimizer_settings: Adam refuses"]),
        (("--updates", 1, "--device", "abacus"), ["device: 'abacus' cannot be used here", "expected"]),
        (("--updates", 1, "--init", "absent"), ["absent: no such file or directory", "expected a run"]),
        (("--set", "seed=1", "--resume", "run"), ["seed=1 beside --resume", "leave them out"]),
        (("--resume", "absent"), ["absent: no config.json here"]),
    ],
)
def test_settings_of_train(here, cartpole, args, says):
    refused("train", cartpole / "data", *args, "--quiet", says=says)


def test_export_of_two_contracts_into_one_file(here, cartpole):
    refused("export", cartpole / "run", "policy.onnx", says=["policy.onnx for two contracts", "expected a directory"])


def test_pictures_of_what_is_not_there(here, cartpole):
    out = ("--out", "out.png")
    refused("plot", "absent", *out, says=["absent: no run here", "expected config.json"])
    refused("plot", cartpole / "data", *out, says=["data: no run here"])
    refused("plot", cartpole / "run", "--metric", "lss", *out, says=["no run has 'lss'", "expected one of", "loss"])
    run = with_config(cartpole, here, lambda config: config["notes"].clear())
    refused("plot", run, "--episode", 1, *out, says=["no environment", "expected --env"])
    refused("record", "absent", "out.mp4", says=["absent: no such file or directory", "expected a run"])
    refused("record", cartpole / "run", "out.mp4", "--env", "Acrobot-v1", says=["observation_shape is (6,)"])
    refused("report", "absent", says=["absent: no run here"])
    refused("algorithms", "absent:A", says=["absent:A cannot be imported"])


def test_a_disk_that_is_full(here, cartpole, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "evaluation.json")

    monkeypatch.setattr("offrl.system.json_files.write_json", full)
    args = ("evaluate", cartpole / "run", "--env", "CartPole-v1", "--episodes", 1, "--workers", 0)
    result = CliRunner().invoke(main, [*map(str, args), "--out", "evaluation.json"])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "error: evaluation.json: No space left on device"
    assert "mean" in result.stdout  # what was played is not lost


def test_debug_shows_the_traceback_as_well(here):
    result = CliRunner().invoke(main, ["--debug", "inspect", "data"])
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback (most recent call last)")
    assert result.stderr.splitlines()[-1].startswith("error: ")


def test_defects_are_not_dressed_up_as_bad_input(here, cartpole, monkeypatch):
    monkeypatch.setattr(TaskSpec, "require_same", partial(divmod, 1, 0))
    result = CliRunner().invoke(main, ["evaluate", str(cartpole / "run"), "--env", "CartPole-v1"])
    assert result.exit_code == 1
    assert isinstance(result.exception, TypeError)


def with_config(cartpole, here, change):
    """A copy of the run with another config.json."""
    shutil.copytree(cartpole / "run", here / "run")
    path = here / "run" / "config.json"
    config = read_json(path)
    change(config)
    path.write_text(json.dumps(config))
    return "run"


def test_a_file_does_not_choose_a_module_to_import(cartpole, here):
    (here / "sly.py").write_text("raise SystemExit('was imported')")
    run = with_config(cartpole, here, lambda config: config["notes"].update(environment="sly:Env-v0"))
    refused("evaluate", run, "--episodes", "1", says=["run: ", "sly:Env-v0", "must not choose", "--env sly:Env-v0"])


def test_settings_of_another_version_are_refused(cartpole, here):
    run = with_config(cartpole, here, lambda config: config["learner"].update(warp=9))
    refused("train", "--resume", run, says=["config.json: damaged", "unknown settings warp", "expected"])


def test_a_users_own_notes_do_no_harm(cartpole, here):
    run = with_config(cartpole, here, lambda config: config["notes"].update(comment="rainy day"))
    result = CliRunner().invoke(main, ["evaluate", run, "--env", "CartPole-v1", "--episodes", "1", "--workers", "0"])
    assert result.exit_code == 0, result.output
