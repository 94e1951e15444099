"""What `offrl train` does beside training: scores, loggers, names, lengths."""

import csv
import json
import re

import pytest
from run_offrl import offrl, offrl_json

from offrl.cli.pictures import training_command
from offrl.cli.request import recorded_request


def steps_of(path):
    with path.open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_a_run_is_scored_while_it_trains_and_may_become_longer(data, tmp_path):
    run = tmp_path / "run"
    settings = ["--set", "precision=fp32", "--set", "batch_size=100", "--set", "log_period=1epoch"]
    offrl_json(
        *("train", data, "--epochs", 2, "--run", run, "--quiet"),
        *("--evaluate-every", "1epoch", "--evaluate-episodes", 3, *settings),
    )
    epoch = steps_of(run / "metrics.csv")[0]
    assert steps_of(run / "evaluations.csv") == steps_of(run / "metrics.csv") == [epoch, 2 * epoch]
    recorded = json.loads((run / "config.json").read_text())["evaluation"]
    assert recorded == {
        "every": "1epoch",
        "environment": "CartPole-v1",
        "episodes": 3,
        "first_seed": 1_000_000,
        "last_seed": 1_000_002,
    }
    assert (run / "checkpoints" / "best" / "policy.safetensors").is_file()
    assert offrl_json("train", "--resume", run, "--epochs", 3, "--quiet")["updates"] == 3 * epoch
    assert steps_of(run / "evaluations.csv") == [epoch, 2 * epoch, 3 * epoch]
    offrl_json("evaluate", run / "checkpoints" / "best", "--episodes", 1, "--workers", 0)


def test_an_environment_whose_module_is_imported_is_named_again_where_a_run_goes_on(data, tmp_path):
    run, named = tmp_path / "run", "gymnasium:CartPole-v1"  # what stands before the colon is imported
    options = ("--evaluate-every", 2, "--evaluate-episodes", 1, "--set", "precision=fp32", "--quiet")
    offrl("train", data, "--updates", 2, "--run", run, "--env", named, *options)
    assert steps_of(run / "evaluations.csv") == [2]
    resume = ("train", "--resume", run, "--updates", 4, "--quiet")
    assert f"add --env {named}" in offrl(*resume, code=2).output
    assert (
        f"--env: Acrobot-v1 beside --resume; expected {named}, as"
        in offrl(*resume, "--env", "Acrobot-v1", code=2).output
    )
    offrl(*resume, "--env", named)
    assert steps_of(run / "evaluations.csv") == [2, 4]


def test_a_run_chooses_among_its_checkpoints_and_ends_early(data, tmp_path):
    run = tmp_path / "run"
    settings = ["precision=fp32", "held_out=0.3", "log_period=2", "checkpoint_period=2", "learning_rate=1e-9"]
    options = [word for setting in settings for word in ("--set", setting)]
    found = offrl_json(
        *("train", data, "--updates", 50, "--run", run, "--quiet", *options),
        *("--select", "agreement,td_error", "--keep-best", 1, "--patience", 4),
    )
    # At that rate nothing is learned: the first row stays the best, and the fourth after it is at update 10.
    assert found["updates"] == 10
    assert found["ended"].startswith("held_out_agreement has not become better in 4 rows of metrics, since it was ")
    assert found["ended"].endswith(" at update 2")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [f"step-{n:09d}" for n in (2, 8, 10)]
    again = offrl_json("train", "--resume", run, "--quiet")
    assert (again["updates"], again["ended"]) == (10, found["ended"])
    assert " --select agreement,td_error --keep-best 1 --patience 4 " in training_command(recorded_request(run), None)


def test_a_run_that_is_scored_while_it_trains_is_reproduced_with_its_scores(data, tmp_path):
    run = tmp_path / "run"
    # The first score comes before the first row of metrics, which is after update 4.
    options = ("--updates", 4, "--set", "log_period=4", "--set", "precision=fp32", "--quiet")
    offrl("train", data, "--run", run, "--evaluate-every", 2, "--evaluate-episodes", 1, *options)
    assert " --evaluate-every 2 --evaluate-episodes 1 " in training_command(recorded_request(run), None)
    assert (run / "plots" / "progress.png").exists()


def test_a_run_named_with_a_time(data, tmp_path):
    found = offrl_json("train", data, "--updates", 1, "--run", tmp_path / "bc-{time}", "--algorithm", "bc", "--quiet")
    assert re.search(r"/bc-\d{4}-\d\d-\d\d-\d{6}$", found["run"])


def test_a_replay_is_opened_with_what_the_algorithm_reads(data, tmp_path):
    run = tmp_path / "run"
    options = ["--algorithm", "bve", "--quiet", "--set", "precision=fp32"]
    offrl_json("train", data, "--updates", 2, "--run", run, *options, "--set", 'include=["index"]')
    assert json.loads((run / "config.json").read_text())["replay"]["include"] == ["index", "next_action"]
    assert offrl_json("train", "--resume", run, "--updates", 3, "--quiet")["updates"] == 3
    offrl_json("train", data, "--updates", 2, "--run", tmp_path / "other", "--algorithm", "cql", "--quiet")
    assert "include" not in json.loads((tmp_path / "other" / "config.json").read_text())["replay"]


def test_tensorboard_is_a_word_on_the_command_line(data, tmp_path):
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    offrl("train", data, "--updates", 2, "--run", run, "--algorithm", "bc", "--logger", "tensorboard", "--quiet")
    assert len(list((run / "tensorboard").glob("events*"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{data}", "--updates", 5, "--evaluate-every", "weekly"], "expected updates, 1 or more, or epochs such as"),
        (["{data}", "--updates", 5, "--evaluate-episodes", 5], "--evaluate-episodes; expected --evaluate-every beside"),
        (["{data}", "--updates", 5, "--patience", 5], "--keep-best or --patience; expected --select beside it"),
        (["{data}", "--updates", 5, "--select", "value"], "no statistic 'value'; expected td_error, agreement"),
        (["{data}", "--updates", 5, "--select", "agreement"], "no held-out episodes; expected"),
        (["--resume", "{trained}", "--select", "agreement"], "--select beside --resume"),
        (["nope"], "nope: no such directory; expected a directory of .npz shards"),
        (["{data}", "--updates", 5, "--logger", "paper"], "'paper' is not one of 'tensorboard', 'wandb'"),
        (["--resume", "{trained}", "--updates", 3], "3 updates in all; expected 6 or more"),
        (["--resume", "{trained}", "--evaluate-every", 3], "--evaluate-every beside --resume"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(data, trained, arguments, message):
    words = [str(word).format(data=data, trained=trained["run"]) for word in arguments]
    result = offrl("train", *words, code=2)
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_streamed_run_records_the_size_of_its_cache_and_is_resumed_with_it(data, tmp_path, monkeypatch):
    monkeypatch.setenv("OFFRL_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    options = ("--set", "precision=fp32", "--set", "compile=off", "--quiet")
    offrl("train", data, "--stream", "1M", "--updates", 2, "--run", run, *options)
    assert json.loads((run / "config.json").read_text())["replay"]["stream"] == 1_000_000
    resumed = offrl_json("train", "--resume", run, "--updates", 4)
    assert resumed["updates"] == 4
    assert not [path for path in (tmp_path / "cache" / "stream").iterdir() if path.is_dir()]
    assert "--stream" in offrl("train", "--resume", run, "--stream", "2M", code=2).output
