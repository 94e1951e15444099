"""`offrl ope`, as users call it: on a run's own data, on other data, with a file; and what it refuses in one line."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from naive_replay import save_frames
from run_offrl import offrl, offrl_json
from test_select_command import WITHOUT_ENVIRONMENTS
from two_rooms import SPEC, episode

from offrl import TaskSpec
from offrl.ope import ESTIMATORS
from offrl.policies._onnx_seal import sealed
from offrl.runs.files import RUN_KEY
from offrl.shards import Episode
from offrl.system.json_files import read_json

QUICK = ["--updates", 3, "--refits", 2, "--quiet"]
TRAIN = ["--updates", 3, "--quiet", "--set", "precision=fp32", "--set", "checkpoint_period=3"]


@pytest.fixture(autouse=True, scope="module")
def nothing_waits_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("offrl.system.files.sync", lambda path: None)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two datasets of one task, a run that held episodes out, one that did not, and its ONNX file."""
    folder = tmp_path_factory.mktemp("judged")
    for name, seed in (("data", 0), ("other", 1)):
        rng = np.random.default_rng(seed)
        save_frames(folder / name, [[episode(rng) for _ in range(40)]], SPEC)
    offrl("train", folder / "data", "--run", folder / "run", *TRAIN, "--set", "held_out=0.5", "--set", "split_seed=3")
    offrl("train", folder / "data", "--run", folder / "greedy", *TRAIN)
    offrl("export", folder / "run", folder / "run" / "model-uint8.onnx", "--contract", "uint8", "--quiet")
    return folder


def test_a_run_is_judged_on_the_episodes_that_it_held_out(folder):
    found = offrl_json("ope", folder / "run", *QUICK)
    assert found["split"] == {"held_out": 0.5, "split_seed": 3}
    assert (found["held_out_episodes"], found["training_episodes"]) == (20, 20)
    assert [each["estimator"] for each in found["estimates"]] == [*ESTIMATORS]
    assert found["policy"].endswith("step-000000003")
    once = offrl_json("ope", folder / "run", "--estimators", "phdr", "--history", 1, *QUICK)
    assert once["estimates"][0]["value"]["mean"] != found["estimates"][1]["value"]["mean"]  # of 8 decisions
    assert found["data"] == read_json(folder / "run" / "config.json")["dataset"]
    assert found == offrl_json("ope", folder / "run", folder / "data", *QUICK)  # the same data, named


def test_other_data_needs_no_episodes_that_the_run_held_out(folder):
    words = ["ope", folder / "greedy", folder / "other", "--held-out", 0.25, *QUICK]
    found = offrl_json(*words)
    assert (found["held_out_episodes"], found["training_episodes"]) == (10, 30)
    said = "The run was trained on other data: if that has some of the same episodes, the values flatter it."
    assert said in found["warnings"]
    assert said in offrl(*words).stdout
    assert said not in offrl("ope", folder / "run", folder / "data", *QUICK).stdout


def test_a_file_is_judged_with_a_warning(folder):
    result = offrl("ope", folder / "run" / "model-uint8.onnx", folder / "data", "--estimators", "is,wis", *QUICK)
    assert result.stdout.count("\nAn ONNX file does not say what it was trained on: ") == 1
    assert "is " in result.stdout
    # What is fitted has a network of its own, also beside a file.
    offrl("ope", folder / "run" / "model-uint8.onnx", folder / "data", "--device", "cpu", *QUICK)
    refused = offrl("ope", folder / "run" / "model-uint8.onnx", code=2).stderr
    assert refused == "error: ope: no data; expected DIRECTORY beside an ONNX file\n"


def test_the_result_is_kept_and_shown(folder, tmp_path):
    out, page = folder / "run" / "ope.json", tmp_path / "page.html"
    offrl("ope", folder / "run", "--out", out, "--html", page, *QUICK)
    kept = read_json(out)
    assert kept[RUN_KEY] == read_json(folder / "run" / "environment.json")[RUN_KEY]
    for written in (page, folder / "report.html"):
        if written != page:
            offrl("report", folder / "run", "--out", written)
        text = written.read_text()
        assert "By logged data alone" in text
        assert "Read on 20 held-out episodes; models were fitted on 20 others." in text
        assert text.count(">wpdis<") == 1
    out.write_text(out.read_text().replace('"support": ', '"support": 1'))
    assert "ope.json: damaged" in offrl("report", folder / "run", code=2).stderr
    out.unlink()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("greedy",), "greedy: was trained on all episodes; "),
        (("run", "--held-out", 0.3), "--held-out beside data that the run, or the one "),
        (("run", "--estimators", "fqe,magic"), "error: OpeConfig.estimators: "),
        (("run", "--discount", 2), "error: OpeConfig.discount: "),
        (("run", "--clip", 0), "error: OpeConfig.clip: "),
        (("run", "--history", 0), "error: offrl ope: Invalid value for '--history': 0 is not in the range x>=1"),
        (("run", "--threshold", 2), "error: TorchPolicy.threshold: "),
        (("run", "nothing-here"), "nothing-here: no such directory"),
        (("nothing-here",), "no such file or directory"),
        (("run", "--out", ""), "is no name of a file"),
        (("run", "--html", ""), "is no name of a file"),
    ],
)
def test_what_is_refused_takes_one_line(folder, words, said):
    first, *rest = words
    rest = [folder / word if word == "nothing-here" else word for word in rest]
    error = offrl("ope", folder / first, *rest, "--quiet", code=2).stderr
    assert said in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def with_probabilities(probability):
    rows = np.zeros((3, 2), np.float32)
    return Episode(
        observations=rows,
        actions=np.array([0, 1]),
        rewards=np.zeros(2, np.float32),
        terminated=True,
        truncated=False,
        behaviour_probability=np.array(probability, np.float32),
    )


def test_probabilities_that_say_nothing_are_fitted_or_refused(folder, tmp_path):
    certain = tmp_path / "certain"
    save_frames(certain, [[with_probabilities([1.0, 1.0]) for _ in range(8)]], SPEC)
    found = offrl_json("ope", folder / "greedy", certain, "--held-out", 0.5, "--estimators", "wis", *QUICK)
    assert found["behaviour_probabilities"].startswith("fitted, not logged (4 of 4 episodes")
    assert any("probabilities were fitted, not logged" in each for each in found["warnings"])
    words = ("--behaviour", "logged", "--held-out", 0.5, "--quiet")
    error = offrl("ope", folder / "greedy", certain, *words, code=2).stderr
    assert "logged probabilities that say nothing: 4 of 4 episodes" in error


def test_a_logged_action_that_was_impossible_is_refused(folder, tmp_path):
    save_frames(tmp_path / "wrong", [[with_probabilities([0.5, 0.0])] * 8], SPEC)
    error = offrl("ope", folder / "greedy", tmp_path / "wrong", "--quiet", code=2).stderr
    assert "behaviour_probability" in error
    assert error.count("\n") == 1


def test_a_file_without_logits_is_refused(folder, tmp_path):
    model = onnx.load(folder / "run" / "model-uint8.onnx")
    del model.graph.output[[value.name for value in model.graph.output].index("logits")]
    (tmp_path / "other.onnx").write_bytes(sealed(model))
    error = offrl("ope", tmp_path / "other.onnx", folder / "data", "--quiet", code=2).stderr
    assert "outputs ['action', 'q']; expected an offrl policy" in error
    assert error.count("\n") == 1


def test_a_policy_of_another_task_is_refused(folder, tmp_path):
    other = TaskSpec.vector(3, ("go", "stop"))
    rows = replace(with_probabilities([0.5, 0.5]), observations=np.zeros((3, 3), np.float32))
    save_frames(tmp_path / "other-task", [[rows] * 8], other)
    error = offrl("ope", folder / "greedy", tmp_path / "other-task", "--quiet", code=2).stderr
    assert "evaluate it on data of the task that it was trained for" in error
    assert error.count("\n") == 1


def test_the_environment_is_never_touched(folder):
    words = ["ope", folder / "run", "--estimators", "fqe,wis", "--json", *QUICK]
    command = [sys.executable, "-c", WITHOUT_ENVIRONMENTS, *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)["estimates"]) == 2
