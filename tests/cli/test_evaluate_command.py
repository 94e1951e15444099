"""`offrl evaluate` with thresholds, drivers and the grader's rule."""

import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
from run_offrl import offrl, offrl_json

from offrl import BC, export_onnx
from offrl.envs import SCORE_SEEDS, TUNING_SEEDS, EpsilonGreedy, RandomBehaviour, car_racing, make
from offrl.evaluation import evaluate_behaviour
from offrl.networks import CompactEncoder
from offrl.report._record import read_record

CART_POLE = ("--env", "CartPole-v1")


def refused(*args, says):
    """The command's one line to stderr, which has these parts in this order."""
    result = offrl(*args, code=2)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    message = result.stderr
    for part in says:
        assert part in message, result.stderr
        message = message.split(part, 1)[1]


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    offrl("export", trained["run"], directory, "--quiet")
    return [directory / "model.onnx", directory / "model-uint8.onnx"]


def test_several_thresholds_are_rows_of_their_own_on_the_seeds_for_tuning(trained, files):
    common = ("--episodes", 3, "--workers", 0)
    swept = offrl_json("evaluate", trained["run"], *common, "--threshold", "0.0,0.999,0.0")
    assert list(swept["policies"]) == ["threshold 0", "threshold 0.999"]
    for threshold, row in ((0.0, swept["policies"]["threshold 0"]), (0.999, swept["policies"]["threshold 0.999"])):
        assert [episode["seed"] for episode in row["per_episode"]] == list(TUNING_SEEDS[:3])
        single = ("--threshold", threshold, "--seed-start", TUNING_SEEDS.start)
        alone = offrl_json("evaluate", trained["run"], *common, *single)
        assert alone["threshold"] == row["threshold"] == threshold
        assert alone["per_episode"] == row["per_episode"]
    assert swept["baseline"] == 0.0  # the run's own threshold, 0.3, was not played
    for file in files:
        found = offrl_json("evaluate", file, *common, *CART_POLE, "--threshold", "0.0,0.999")
        assert found["policies"] == swept["policies"]


def test_a_sweep_is_shown_as_a_table_and_the_report_takes_its_file(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained["run"], run)
    args = ("--threshold", "0,0.3", "--episodes", 5, "--workers", 0, "--out", run / "evaluation.json", "--quiet")
    lines = offrl("evaluate", run, *args).stdout.splitlines()
    assert [line.split()[0] for line in lines[-5:-2]] == ["threshold", "0", "0.3"]
    assert lines[-5].endswith("paired difference to 0.3")
    assert lines[-1] == "5 episodes, seeds 1000000 to 1000004"
    assert list(read_record(run).evaluations) == ["threshold 0", "threshold 0.3"]


def test_one_evaluation_is_shown_episode_by_episode_with_its_summary(trained):
    lines = offrl("evaluate", trained["run"], "--episodes", 2, "--workers", 0, "--quiet").stdout.splitlines()
    assert lines[1:4] == ["environment  CartPole-v1", "threshold    0.3", "epsilon      0.0"]
    assert [line.split()[0] for line in lines[5:8]] == ["seed", "2000000", "2000001"]
    assert lines[9].startswith("episodes            2, seeds 2000000 to 2000001")
    assert lines[-1].startswith("versions            offrl ")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--seed-start", 10**9), ["seed 1000000000, on which data is collected", "TUNING_SEEDS for choosing"]),
        (("--seed-start", SCORE_SEEDS.start - 1), ["seed 1999999", "beside seed 2000000"]),
        (
            ("--seed-start", SCORE_SEEDS.start, "--threshold", "0.1,0.2"),
            ["seed 2000000, which is kept for scores, where a setting is chosen", "expected TUNING_SEEDS (1000000 to"],
        ),
        (("--threshold", "0.1,high"), ["--threshold: '0.1,high'", "expected numbers in [0, 1), such as 0.3 or"]),
        (("--threshold", "0.1,1"), ["TorchPolicy.threshold: 1.0", "expected 0 <= threshold < 1"]),
        (("--threshold", ""), ["--threshold: ''"]),
        (("--epsilon", 2), ["TorchPolicy.epsilon: 2.0"]),
        (("--grader",), ["bcq: observation_shape is (4,)", "expected (4, 96, 96)", "the grader plays CarRacing"]),
        (("--grader", "--threshold", 0.3), ["--threshold beside --grader; expected the grader's own rule"]),
        (("--grader", "--env", "CarRacing-v3"), ["--env beside --grader"]),
        (("--grader", "--epsilon", 0), ["--epsilon beside --grader"]),
        (("--grader", "--hud", "visible"), ["--hud beside --grader"]),
        (("--grader", "--device", "cpu"), ["--device beside --grader", "leave out --device"]),
    ],
)
def test_what_evaluate_refuses(trained, args, says):
    refused("evaluate", trained["run"], "--workers", 0, *args, says=says)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_random_driver_plays_anywhere(workers):
    args = ("--episodes", 3, "--epsilon", 0.5, "--workers", workers)
    found = offrl_json("evaluate", "driver:random", *CART_POLE, *args)
    behaviour = EpsilonGreedy(RandomBehaviour(), 0.5)
    expected = evaluate_behaviour(behaviour, partial(make, "CartPole-v1"), SCORE_SEEDS[:3], workers=0)
    assert [row["score"] for row in found["per_episode"]] == list(expected.scores)
    assert (found["policy"], found["environment"], found["epsilon"]) == ("driver:random", {"id": "CartPole-v1"}, 0.5)


def test_drivers_of_carracing_have_a_skill():
    pytest.importorskip("Box2D")
    args = ("--episodes", 1, "--workers", 0)
    expert = offrl_json("evaluate", "driver:expert", *args)
    assert expert["mean"] > 850
    assert expert["finished_share"] == 1
    assert expert["environment"] == {"id": "CarRacing-v3", "hud": "visible"}
    assert offrl_json("evaluate", "driver:1.0", *args)["per_episode"] == expert["per_episode"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (
            ("driver:exprt",),
            ["driver:exprt: no driver 'exprt'", "expected driver:expert, driver:random or driver:SKILL"],
        ),
        (("driver:1.5",), ["no driver '1.5'", "a number in [0, 1]"]),
        (("driver:nan",), ["no driver 'nan'"]),
        (("driver:0.5", *CART_POLE), ["a driver in CartPole-v1", "expected CarRacing-v3", "driver:random"]),
        (("driver:random", "--threshold", 0.3), ["--threshold beside a driver", "expected a trained policy"]),
        (("driver:expert", "--grader"), ["--grader beside a driver", "expected a trained policy"]),
        (("driver:expert", "--device", "cpu"), ["--device beside a driver"]),
        (("driver:expert", "--algorithm", "bcq"), ["--algorithm beside a driver"]),
        (("driver:expert", "--encoder", "nature"), ["--encoder beside a driver"]),
        (("driver:random", *CART_POLE, "--epsilon", 2), ["EpsilonGreedy.epsilon: 2.0"]),
        (("driver:random", *CART_POLE, "--seed-start", 10**9), ["seed 1000000000, on which data is collected"]),
    ],
)
def test_drivers_that_are_refused(args, says):
    refused("evaluate", *args, "--workers", 0, says=says)


@pytest.mark.parametrize("option", ["--device", "--algorithm", "--encoder"])
@pytest.mark.parametrize(
    "command", [("evaluate",), ("record", "out.mp4"), ("plot", "--episode", "1", "--out", "x.png")]
)
def test_a_file_has_its_network_and_runs_where_it_runs(files, tmp_path, monkeypatch, command, option):
    monkeypatch.chdir(tmp_path)
    name, *rest = command
    refused(
        name, files[0], *rest, *CART_POLE, option, "cpu", says=[f"model.onnx: {option} beside an ONNX file; expected"]
    )
    assert list(tmp_path.iterdir()) == []


def test_the_grader_takes_a_file_as_it_is(files):
    refused("evaluate", files[0], "--grader", "--algorithm", "bcq", says=["--algorithm beside an ONNX file"])


def test_the_graders_rule_takes_files_of_the_float_contract_for_its_own_task_only(tmp_path, files):
    policy = BC(car_racing.spec(), encoder=CompactEncoder)
    export_onnx(policy, tmp_path / "whole.onnx", contract="uint8")
    refused("evaluate", tmp_path / "whole.onnx", "--grader", says=["whole.onnx: a file of the uint8 contract", "float"])
    refused("evaluate", files[0], "--grader", says=["model.onnx: observation_shape is (4,)", "expected (4, 96, 96)"])
    refused("evaluate", tmp_path / "absent.onnx", "--grader", says=["absent.onnx: no such file or directory"])


def test_the_graders_rule_is_played_on_the_seeds_for_scores(tmp_path, monkeypatch):
    pytest.importorskip("Box2D")
    monkeypatch.setattr(car_racing, "make", partial(car_racing.make, max_episode_steps=2))
    path = export_onnx(BC(car_racing.spec(), encoder=CompactEncoder), tmp_path / "m.onnx", contract="float")
    found = offrl_json("evaluate", path, "--grader", "--episodes", 12, "--workers", 0)
    assert [row["seed"] for row in found["per_episode"]] == list(SCORE_SEEDS[:12])
    assert (found["threshold"], found["epsilon"], found["mean_length"]) == (0.3, 0.001, 2)
    assert found["environment"] == {"id": "CarRacing-v3", "rule": "grader"}
    assert Path(found["policy"]) == path


def test_a_result_that_cannot_be_kept_is_refused_before_anything_is_played(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys.modules["offrl.evaluation.scoring"], "evaluate_behaviour", None)
    out = tmp_path / "file" / "x.json"
    refused("evaluate", "driver:random", *CART_POLE, "--out", out, says=[f"{tmp_path / 'file'}"])


def test_only_evaluate_plays_drivers(tmp_path):
    refused("record", "driver:expert", tmp_path / "x.mp4", says=["driver:expert: a driver; expected a trained policy"])
