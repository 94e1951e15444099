"""`offrl train --seeds`: the runs are those that one would train one after the other."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from run_offrl import offrl, offrl_json

SETTINGS = ["--updates", 6, "--set", "precision=fp32", "--set", "log_period=3", "--algorithm", "bc", "--quiet"]


def learnt(run):
    """The bytes of a run's last policy, and its metrics."""
    *_, last = sorted((run / "checkpoints").glob("step-*"))
    return (last / "policy.safetensors").read_bytes(), (run / "metrics.csv").read_bytes()


@pytest.fixture(scope="module")
def side_by_side(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("side_by_side") / "bc"
    return folder, offrl_json("train", data, *SETTINGS, "--seeds", "3,5", "--run", folder)


def test_each_is_the_run_of_its_seed(data, side_by_side, tmp_path):
    folder, result = side_by_side
    assert sorted(each["run"] for each in result["runs"]) == [str(folder / "seed-3"), str(folder / "seed-5")]
    assert [each["updates"] for each in result["runs"]] == [6, 6]
    own = ["--set", "seed=5", "--set", "compile=off", "--threads", 1]
    offrl("train", data, *SETTINGS, *own, "--run", tmp_path / "alone")
    assert learnt(folder / "seed-5") == learnt(tmp_path / "alone")
    assert learnt(folder / "seed-3") != learnt(tmp_path / "alone")
    learner = json.loads((folder / "seed-3" / "config.json").read_text())["learner"]
    assert (learner["threads"], learner["compile"]) == (1, "off")  # measured once, for all


def test_the_same_command_goes_on_and_other_settings_are_refused(data, side_by_side, tmp_path):
    folder, _ = side_by_side
    before = learnt(folder / "seed-3")
    result = offrl_json("train", data, *SETTINGS, "--seeds", "3", "--run", folder)
    assert [each["updates"] for each in result["runs"]] == [6]
    assert learnt(folder / "seed-3") == before
    other = ["--set", "learning_rate=0.5"]
    refused = offrl("train", data, *SETTINGS, *other, "--seeds", "3", "--run", folder, code=2)
    assert f"{folder / 'seed-3'}: ended with exit code 2" in refused.stderr
    assert learnt(folder / "seed-3") == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--seeds", "1,1"], "'1,1' is no list of different whole numbers, such as 0,1,2"),
        (["--seeds", "1,x"], "'1,x' is no list"),
        (["--seeds", "-1"], "'-1' is no list"),
        (["--seeds", ""], "'' is no list"),
        (["--seeds", "1", "--set", "seed=3"], "--set seed=3 beside --seeds; expected one of them"),
        (["--seeds", "1", "--algorithm-seed", "3"], "--algorithm-seed beside --seeds"),
        (["--seeds", "1", "--set", "no_such=3"], "no field 'no_such'"),
    ],
)
def test_what_is_no_list_of_seeds_is_refused_in_a_line(data, tmp_path, given, said):
    refused = offrl("train", data, "--updates", 1, "--run", tmp_path / "x", *given, code=2).stderr
    assert said in refused
    assert len(refused.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_ranks_and_seeds_are_two_ways_of_the_same(monkeypatch):
    from offrl.cli.side_by_side import refuse_other_seeds
    from offrl.errors import ConfigError
    from offrl.system.ranks import Ranks

    refuse_other_seeds(None, [], None, Ranks(0, 1))
    with pytest.raises(ConfigError, match="torchrun with 2 ranks beside --seeds"):
        refuse_other_seeds(None, [], None, Ranks(0, 2))


def test_a_folder_may_be_named_with_a_time(data, tmp_path):
    result = offrl_json("train", data, *SETTINGS, "--seeds", "3", "--run", tmp_path / "bc-{time}")
    assert re.search(r"/bc-\d{4}-\d\d-\d\d-\d{6}/seed-3$", result["runs"][0]["run"])


def test_resuming_several_is_giving_the_command_again(data, side_by_side):
    folder, _ = side_by_side
    refused = offrl("train", "--resume", folder / "seed-3", "--seeds", "1", code=2).stderr
    assert "goes on with what it finds in its --run" in refused


def test_a_signal_stops_all_and_the_same_command_goes_on(data, side_by_side, tmp_path):
    folder, _ = side_by_side
    words = ["train", data, *SETTINGS, "--set", "compile=off", "--seeds", "3,5", "--run", tmp_path / "bc"]
    words[words.index("--updates") + 1] = 10**6
    command = [sys.executable, "-m", "offrl", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    logs = [tmp_path / "bc" / f"seed-{seed}" / "metrics.csv" for seed in (3, 5)]
    while not all(log.exists() and log.read_text().count("\n") >= 3 for log in logs):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert "Traceback" not in stderr
    assert f"interrupted; the same command with --run {tmp_path / 'bc'} goes on" in stderr
    for seed in (3, 5):
        rows = (tmp_path / "bc" / f"seed-{seed}" / "metrics.csv").read_text().splitlines()
        done = (folder / f"seed-{seed}" / "metrics.csv").read_text().splitlines()
        assert rows[: len(done)] == done
        assert max((tmp_path / "bc" / f"seed-{seed}" / "checkpoints").iterdir()).name > "step-000000000"


@pytest.mark.parametrize(
    ("content", "updates"),
    [(b"", 0), (b"step,loss\n", 0), (b"step,loss\n3,0.5\n", 3), (b"step,loss\n" + b"3,0.5\n" * 2000 + b"6,0.4\n9,", 6)],
)
def test_the_bar_stands_at_the_last_whole_row(tmp_path, content, updates):
    from offrl.cli.side_by_side import _updates_of

    assert _updates_of(tmp_path) == 0
    (tmp_path / "metrics.csv").write_bytes(content)
    assert _updates_of(tmp_path) == updates
