import json
import shutil

import numpy as np
import pytest

from offrl.errors import RunError
from offrl.hub import model_card, publish
from offrl.replay import ingest
from offrl.runs import latest_checkpoint
from offrl.shards import write_dataset
from offrl.system.json_files import read_json


def test_a_card_gives_the_scores_over_the_runs_that_differ_in_their_seed(runs):
    text = model_card(runs / "bcq-0")
    # (10 + 20 + 60) / 3, not the best; standard deviation 26.458, times 4.303 / sqrt(3) is 65.7.
    assert "Mean over 3 training runs: **30.0**, 95 % t interval over the runs' means -35.7 to 95.7;" in text
    assert "lowest 10.0, highest 60.0" in text
    assert "| 1 | 5 | 2000000 to 2000004 | 10.0 | 9.0 to 11.0 |\n" in text
    for line in ("| environment | Toy-v0 |", "| threshold | 0.2 |", "| actions | 3: left, right, stay |"):
        assert line in text
    assert "/home/somebody" not in text
    assert "finished laps" not in text  # the toy has none
    assert "| transitions |" not in text  # the data is not on this machine


def test_laps_have_a_column_where_an_evaluation_counts_them(runs, tmp_path):
    found = json.loads((runs / "bcq-0" / "evaluation.json").read_text())
    for name, laps in (("a", {"finished": 3}), ("b", {})):
        (tmp_path / name).write_text(json.dumps({**found, **laps}))
    text = model_card(runs / "bcq-0", evaluations=[tmp_path / "a", tmp_path / "b"])
    assert "| 95 % interval over episodes | finished laps |\n|---|---|---|---|---|---|\n" in text
    assert "9.0 to 11.0 | 3 of 5 |\n" in text
    assert "9.0 to 11.0 | - |\n" in text


def test_what_lies_beside_a_run_is_no_fault_of_its_own(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "runs" / "config.json").write_text("{}")  # a project's, say
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "config.json").write_text("not JSON")
    assert "Mean over 3 training runs: **30.0**" in model_card(tmp_path / "runs" / "bcq-0")


def test_several_thresholds_side_by_side_are_no_score(runs, tmp_path):
    run = shutil.copytree(runs / "bcq-0", tmp_path / "run")
    (run / "evaluation.json").write_text(json.dumps({"baseline": 0.0, "policies": {}}))
    assert "Not played: " in model_card(run)
    for content in ({}, {"mean": 1.0, "per_episode": [1]}, {"mean": "1", "per_episode": []}):
        (tmp_path / "given.json").write_text(json.dumps(content))
        with pytest.raises(RunError, match=r"given.json: no evaluation of one policy; expected what `offrl evaluate"):
            model_card(run, evaluations=[tmp_path / "given.json"])


def edited(runs, directory, dataset, **notes):
    """A copy of a run with another dataset in its configuration."""
    shutil.copytree(runs / "bcq-0", directory)
    config = read_json(directory / "config.json")
    config |= {"dataset": dataset, "notes": notes}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def test_a_run_that_does_not_say_its_environment_has_that_of_its_scores(runs, tmp_path):
    run = edited(runs, tmp_path / "run", None)
    assert "| environment | the task below |" in model_card(run)
    found = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps({**found, "environment": {"id": "CartPole-v1"}}))
    text = model_card(run)
    assert "| environment | CartPole-v1 |" in text
    assert "BCQ on CartPole-v1, trained" in text


def test_the_data_is_counted_where_it_is_on_this_machine_and_still_the_same(runs, tmp_path):
    write_dataset(
        tmp_path / "data",
        observations=np.zeros((6, 3), np.float32),
        actions=np.array([0, 1, 2, 0, 1, 2]),
        rewards=np.array([1.0, 2, 3, 4, 5, 6], np.float32),
        terminated=np.array([False, False, True, False, False, True]),
        action_names=("left", "right", "stay"),
    )
    fingerprint = ingest(tmp_path / "data", progress=False).fingerprint
    text = model_card(edited(runs, tmp_path / "same", fingerprint, data=str(tmp_path / "data")))
    # Returns of 1 + 2 + 3 and of 4 + 5 + 6.
    for row in ("transitions | 6", "episodes | 2", "mean return | 10.5, 2 episodes: too few for an interval"):
        assert f"| {row} |\n" in text
    other = model_card(edited(runs, tmp_path / "other", "0123", data=str(tmp_path / "data")))
    assert "| transitions |" not in other


def test_two_runs_of_one_seed_count_as_one(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    shutil.copytree(runs / "bcq-0", tmp_path / "runs" / "bcq-0-again")
    assert "over 3 training runs" in model_card(tmp_path / "runs" / "bcq-0")


def test_the_score_of_another_checkpoint_says_nothing_about_this_one(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    run = tmp_path / "runs" / "bcq-0"
    (run / "checkpoints" / "best").symlink_to("step-000000000")
    path = run / "evaluation.json"
    found = json.loads(path.read_text())
    for scored, latest, best in (
        ("step-000000002", True, False),
        ("best", False, True),
        ("step-000000000", False, True),
    ):
        path.write_text(json.dumps({**found, "policy": str(run / "checkpoints" / scored)}))
        assert ("| 10.0 | 9.0 to 11.0 |" in model_card(run)) == latest
        card = model_card(run / "checkpoints" / "best")
        assert ("| 10.0 | 9.0 to 11.0 |" in card) == best
        assert "its weights are those of step-000000000" in card


def test_few_episodes_have_no_interval(runs, tmp_path):
    found = json.loads((runs / "bcq-0" / "evaluation.json").read_text())
    found["per_episode"] = found["per_episode"][:2]
    found["interval_95"] = None
    (tmp_path / "two.json").write_text(json.dumps(found))
    text = model_card(runs / "bcq-0", evaluations=[tmp_path / "two.json"])
    assert "| 2 episodes: too few for an interval |" in text
    assert "One training run: another one, with another seed, scores differently." in text


def test_a_run_that_played_while_training_says_so(runs, tmp_path):
    shutil.copytree(runs / "bcq-0", tmp_path / "run")
    config = read_json(tmp_path / "run" / "config.json")
    config["evaluation"] = {"every": "1epoch", "episodes": 20}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert "The environment was played while it was trained (20 episodes every 1epoch)" in model_card(tmp_path / "run")


def test_a_published_folder_has_the_card_and_no_path_of_this_machine(runs, tmp_path):
    found = publish(runs / "bcq-2", tmp_path / "published")
    files = {str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()}
    assert {"README.md", "model.onnx", "model-uint8.onnx", "config.json", "evaluation.json"} <= files
    assert all("/home/somebody" not in path.read_text(errors="ignore") for path in found.rglob("*") if path.is_file())
    with pytest.raises(RunError, match="exists already"):
        publish(runs / "bcq-2", found)
    with pytest.raises(RunError, match="is an ONNX file"):
        publish(found / "model.onnx", tmp_path / "other")


def test_scores_on_other_episodes_are_not_put_together(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    path = tmp_path / "runs" / "bcq-2" / "evaluation.json"
    found = json.loads(path.read_text())
    for row in found["per_episode"]:
        row["seed"] += 1_000
    path.write_text(json.dumps(found))
    text = model_card(tmp_path / "runs" / "bcq-0")
    assert "Mean over 2 training runs: **15.0**" in text  # (10 + 20) / 2, without the 60 on other tracks
    assert "| 60.0 |" not in text


def test_a_published_folder_has_no_score_of_another_checkpoint(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    run = tmp_path / "runs" / "bcq-0"
    path = run / "evaluation.json"
    scored = str(run / "checkpoints" / "step-000000002")
    path.write_text(json.dumps({**json.loads(path.read_text()), "policy": scored}))
    latest = publish(run, tmp_path / "latest")
    assert json.loads((latest / "evaluation.json").read_text())["policy"] == "checkpoints/step-000000002"
    first = publish(run / "checkpoints" / "step-000000000", tmp_path / "first")
    assert not (first / "evaluation.json").exists()


ESTIMATES = {
    "policy": "runs/bcq-0/checkpoints/step-000000010",
    "discount": 0.99,
    "held_out_episodes": 40,
    "behaviour": {"mean": 10.0, "interval_95": [8.0, 12.0]},
    "estimates": [
        {
            "estimator": "fqe",
            "value": {"mean": 15.0, "interval_95": [13.0, 17.0]},
            "difference_to_behaviour": {"mean": 5.0, "interval_95": [2.0, 8.0]},
            "effective_size": None,
            "remark": "",
        },
        {
            "estimator": "wis",
            "value": {"mean": None, "interval_95": None},
            "difference_to_behaviour": {"mean": None, "interval_95": None},
            "effective_size": 0.5,
            "remark": "do not use",
        },
    ],
    "warnings": ["Only 40 held-out episodes."],
}


def test_a_card_gives_what_the_logs_alone_say_and_what_speaks_against_it(runs, tmp_path):
    run = shutil.copytree(runs / "bcq-0", tmp_path / "run")
    checkpoint = latest_checkpoint(run / "checkpoints")
    (run / "ope.json").write_text(json.dumps({**ESTIMATES, "policy": f"anywhere/{checkpoint.name}"}))
    text = model_card(run)
    assert "(0.99 a step) on 40 episodes that were held out, with 95 % intervals; the behaviour's 10.00 [8.00" in text
    assert "| fqe | 15.00 [13.00 to 17.00] | +5.00 [+2.00 to +8.00] | - | - |" in text
    assert "| wis | undefined | - | 0.5 | do not use |" in text
    assert "- Only 40 held-out episodes." in text
    (run / "ope.json").write_text(json.dumps({**ESTIMATES, "policy": "run/checkpoints/step-000000001"}))
    assert "By logged data" not in model_card(run)  # of another checkpoint
    (run / "ope.json").write_text(json.dumps({"policy": checkpoint.name, "estimates": [{}]}))
    with pytest.raises(RunError, match="ope.json: damaged .*; expected what `offrl ope --out` writes"):
        model_card(run)


def test_what_is_published_says_what_the_logs_alone_say(runs, tmp_path):
    run = shutil.copytree(runs / "bcq-0", tmp_path / "run")
    name = latest_checkpoint(run / "checkpoints").name
    (run / "ope.json").write_text(json.dumps({**ESTIMATES, "policy": f"/home/somebody/run/checkpoints/{name}"}))
    folder = publish(run, tmp_path / "published")
    assert read_json(folder / "ope.json")["policy"] == f"checkpoints/{name}"
    assert "By logged data alone" in (folder / "README.md").read_text()
    assert "somebody" not in (folder / "ope.json").read_text()
