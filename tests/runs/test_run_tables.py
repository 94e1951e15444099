"""The rows of a run's tables are those that were logged."""

import json

import pytest

from offrl.errors import RunError
from offrl.report import read_metrics
from offrl.runs import CSVLogger
from offrl.runs._tables import read_scores, read_table, table_extents
from offrl.system.json_files import read_json


@pytest.fixture
def run(tmp_path):
    """Two rows that were vouched for, one that was not, and a score."""
    logger = CSVLogger(tmp_path)
    for step in (1, 2):
        logger.log(step, {"loss": step / 2}, {"updates_per_second": 10.0})
    logger.log_evaluation(2, {"score": 7.0})
    logger.log(3, {"loss": 1.5}, {"updates_per_second": 10.0})
    return tmp_path


def test_what_was_written_is_vouched_for_as_far_as_the_last_checkpoint_or_score(run):
    assert table_extents(run)["metrics.csv"]["size"] == len(b"step,loss\n1,0.5\n2,1.0\n")
    assert table_extents(run).keys() == {"metrics.csv", "timings.csv", "evaluations.csv"}
    assert read_metrics(run / "metrics.csv")["loss"].tolist() == [0.5, 1.0, 1.5]
    assert read_scores(run) == {2: 7.0}


def test_a_score_that_only_some_evaluations_have_is_nan_in_the_others(run):
    logger = CSVLogger(run, resume_step=3)
    logger.log_evaluation(3, {"score": 8.0, "finished_share": 0.5})  # the first lap
    logger.log_evaluation(4, {"score": 9.0})
    assert (run / "evaluations.csv").read_text() == "step,score,finished_share\n2,7.0,nan\n3,8.0,0.5\n4,9.0,nan\n"
    assert read_scores(run) == {2: 7.0, 3: 8.0, 4: 9.0}  # what it now holds is vouched for
    CSVLogger(run, resume_step=4).log_evaluation(5, {"finished_share": 1.0, "score": 6.0})
    assert (run / "evaluations.csv").read_text().endswith("4,9.0,nan\n5,6.0,1.0\n")


def test_a_kill_while_columns_are_added_leaves_nothing_that_contradicts_itself(run, monkeypatch):
    logger = CSVLogger(run, resume_step=3)
    monkeypatch.setattr(logger, "_vouch", lambda: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception, match="killed"):
        logger.log_evaluation(3, {"score": 8.0, "finished_share": 0.5})
    assert read_scores(run) == {2: 7.0, 3: 8.0}
    assert CSVLogger(run, resume_step=3).columns == ["step", "loss"]


@pytest.mark.parametrize("name", ["metrics.csv", "timings.csv", "evaluations.csv"])
def test_a_changed_digit_is_noticed(run, name):
    content = (run / name).read_text()
    (run / name).write_text(content[:-2].replace("0", "1") + content[-2:].replace("7", "8"))
    for changed in (content.replace("2,", "4,", 1), content[:12]):
        (run / name).write_text(changed)
        with pytest.raises(RunError, match=rf"{name}: was changed since logs.json was made.*delete logs.json"):
            read_metrics(run / name)
    with pytest.raises(RunError, match="was changed since logs.json was made"):
        CSVLogger(run, resume_step=2)


def test_a_score_that_was_changed_is_none(run):
    (run / "evaluations.csv").write_text("step,score\n2,9.0\n")
    with pytest.raises(RunError, match="was changed"):
        read_scores(run)


def test_rows_after_the_last_checkpoint_are_read_and_an_unfinished_one_is_not(run):
    with (run / "metrics.csv").open("a") as file:
        file.write("4,2.0\n5,2.")
    assert read_metrics(run / "metrics.csv")["step"].tolist() == [1, 2, 3, 4]


def test_no_step_comes_twice(run):
    with (run / "metrics.csv").open("a") as file:
        file.write("2,9.0\n")
    with pytest.raises(RunError, match=r"metrics.csv: has a second row of step 2"):
        read_metrics(run / "metrics.csv")


def test_a_table_elsewhere_is_read_as_it_is(run, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "metrics.csv").write_text("step,loss\n1,99.0\n")
    assert read_table(tmp_path / "copy" / "metrics.csv") == b"step,loss\n1,99.0\n"


def test_damaged_hashes_are_named(run):
    found = read_json(run / "logs.json")
    found["metrics.csv"]["size"] = -1
    for content in ("{", json.dumps(found), "[]"):
        (run / "logs.json").write_text(content)
        with pytest.raises(RunError, match=r"logs\.json: damaged .*or delete it"):
            read_metrics(run / "metrics.csv")


def test_nothing_vouches_for_rows_that_a_resumed_run_has_dropped(run, monkeypatch):
    """Killed after the rows are gone and before logs.json is written anew, the run goes on all the same."""

    def kill(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(CSVLogger, "_vouch", kill)
    with pytest.raises(KeyboardInterrupt):
        CSVLogger(run, resume_step=1)
    monkeypatch.undo()
    assert not (run / "logs.json").exists()
    assert read_metrics(run / "metrics.csv")["step"].tolist() == [1]
    assert read_scores(run) == {}
    logger = CSVLogger(run, resume_step=1)
    logger.log(2, {"loss": 1.0}, {"updates_per_second": 10.0})
    logger.sync()
    assert table_extents(run)["metrics.csv"]["size"] == len(b"step,loss\n1,0.5\n2,1.0\n")


def test_resuming_vouches_for_what_is_left(run):
    CSVLogger(run, resume_step=1)
    assert table_extents(run)["metrics.csv"]["size"] == len(b"step,loss\n1,0.5\n")
    assert table_extents(run)["evaluations.csv"]["size"] == len(b"step,score\n")
