import json

import pytest
from made_runs import write_run

from offrl.errors import RunError
from offrl.report._record import read_record


def test_a_run_with_its_evaluation(run):
    record = read_record(run)
    (trained,) = record.runs
    assert (trained.label, trained.updates, trained.seconds) == ("BCQ", 200, 100 / 50 + 100 / 25)
    assert record.best == "BCQ"
    assert record.evaluations["BCQ"].scores == (100.0, 300.0)
    assert record.evaluations["BCQ"].finished == ()
    assert (record.task, record.dataset_mean, record.videos) == ("CartPole-v1", None, ())


def test_the_examples_directory(example):
    record = read_record(example)
    assert [run.label for run in record.runs] == ["BC", "BCQ"]
    assert record.algorithms == ["BC", "BCQ"]
    assert record.best == "BCQ"
    assert record.evaluations["BCQ"].finished == (False, True)
    assert tuple(record.dataset_mean) == (120.0, 110.0, 130.0)
    assert [path.name for path in record.videos] == ["bcq-best.mp4"]
    assert [path.name for path in record.dataset_plots] == ["dataset_returns.png"]


def test_runs_side_by_side_with_an_evaluation_each(example, run):
    (example / "evaluation.json").unlink()
    (example / "bcq" / "evaluation.json").write_bytes((run / "evaluation.json").read_bytes())
    assert list(read_record(example).evaluations) == ["BCQ"]


def test_a_score_of_an_earlier_checkpoint_is_named(run):
    evaluation = json.loads((run / "evaluation.json").read_text())
    for step in (100, 200):
        (run / "checkpoints" / f"step-{step:09d}").mkdir(parents=True)
    (run / "checkpoints" / "best").symlink_to("step-000000100")
    line = "BCQ has a later checkpoint than the one that was evaluated, of update 100."
    for policy, remarks in (
        ("step-000000200", ()),
        ("step-000000100", (line,)),
        ("best", (line,)),
        ("elsewhere.onnx", ()),
    ):
        evaluation["policy"] = str(run / "checkpoints" / policy)
        (run / "evaluation.json").write_text(json.dumps(evaluation))
        assert read_record(run).remarks == remarks


def test_a_run_that_has_just_begun(run):
    for name in ("metrics.csv", "timings.csv", "evaluation.json", "environment.json"):
        (run / name).unlink()
    record = read_record(run)
    assert (record.runs[0].updates, record.runs[0].seconds, record.best) == (0, 0.0, None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", r"evaluation\.json: damaged"),
        ("[]", r"evaluation\.json: damaged \(it is of type list"),
        (json.dumps({"a": 1}), "KeyError: 'per_episode'.*offrl evaluate --out"),
        (json.dumps({"per_episode": []}), "no episodes"),
        (json.dumps({"per_episode": [{"seed": 1}]}), "KeyError: 'score'"),
        (json.dumps({"per_episode": [1], "x": 1}), "TypeError"),
        (json.dumps({"policies": {"BC": 3}}), "TypeError"),
        (json.dumps({"policies": {}, "dataset": {"mean": "high"}}), "dataset: "),
    ],
)
def test_damaged_evaluations_are_refused(run, content, says):
    (run / "evaluation.json").write_text(content)
    with pytest.raises(RunError, match=says):
        read_record(run)


def test_a_directory_without_runs_is_refused(tmp_path):
    with pytest.raises(RunError, match="no run here"):
        read_record(tmp_path)


def test_algorithms_and_runs_that_differ_only_in_case_stay_apart(tmp_path):
    for index, (name, algorithm) in enumerate([("bcq", "bcq"), ("BCQ", "BCQ"), ("bc", "bc"), ("BC", "bc")]):
        write_run(tmp_path / name, algorithm, replay={"seed": index})
        rows = [{"seed": 7, "score": float(index), "length": 10}]
        (tmp_path / name / "evaluation.json").write_text(json.dumps({"per_episode": rows}))
    record = read_record(tmp_path)
    assert {label: each.scores for label, each in record.evaluations.items()} == {
        "bcq": (0.0,),
        "BCQ": (1.0,),
        "bc": (2.0,),
        "BC": (3.0,),
    }
    assert {label: sorted(run.label for run in group) for label, group in record.groups.items()} == {
        "BCQ": ["BCQ"],
        "bcq": ["bcq"],
        "BC": ["BC", "bc"],
    }
