import numpy as np
import pytest

from offrl.errors import RunError
from offrl.report import Curve, metric_curve, read_metrics, score_curve
from offrl.report.metrics import smooth


def test_columns_are_read_by_name(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n100,0.5\n200,0.25\n")
    found = read_metrics(tmp_path / "metrics.csv")
    assert {name: values.tolist() for name, values in found.items()} == {"step": [100, 200], "loss": [0.5, 0.25]}


@pytest.mark.parametrize("content", ["", "step,loss\n"])
def test_a_table_without_rows_has_no_columns(tmp_path, content):
    (tmp_path / "metrics.csv").write_text(content)
    assert read_metrics(tmp_path / "metrics.csv") == {}


@pytest.mark.parametrize("content", ["step,loss\n1,abc\n", "step,loss\n1\n", "1\n2,3\n4\n"])
def test_what_is_no_table_of_numbers_is_refused(tmp_path, content):
    (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(RunError, match=r"metrics\.csv: not a table of numbers"):
        read_metrics(tmp_path / "metrics.csv")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"none\.csv: cannot be read"):
        read_metrics(tmp_path / "none.csv")


def test_smoothing_is_the_mean_of_what_is_there():
    values = np.zeros(80)
    values[[0, 40]] = 60.0
    smoothed = smooth(values)  # a window of 5
    assert smoothed[:4].tolist() == [20.0, 15.0, 12.0, 0.0]
    assert smoothed[37:44].tolist() == [0.0, 12.0, 12.0, 12.0, 12.0, 12.0, 0.0]
    assert smooth(np.array([3.0, 1.0])).tolist() == [3.0, 1.0]


def columns(steps, values):
    return {"step": np.array(steps, float), "score": np.array(values, float)}


def test_a_score_over_training_seeds_is_its_mean_and_the_t_interval_at_common_steps():
    runs = [columns([10, 20], [100, 0]), columns([10, 30], [110, 0]), columns([10], [120])]
    curve = score_curve(runs)
    assert isinstance(curve, Curve)
    # The standard deviation is 10, and t of three runs 4.303: 4.303 * 10 / sqrt(3) = 24.84.
    assert (curve.steps.tolist(), curve.mean.tolist()) == ([10], [110])
    assert [curve.low[0], curve.high[0]] == pytest.approx([85.16, 134.84], abs=0.01)


def test_a_metric_over_training_seeds_reaches_from_the_lowest_to_the_highest_run():
    curve = metric_curve([columns([1, 2], [5, 7]), columns([1, 2, 3], [6, 1, np.nan])], "score")
    assert [each.tolist() for each in curve] == [[1, 2], [5.5, 4], [5, 1], [6, 7]]


def test_one_run_and_runs_without_a_common_step_have_no_band():
    alone = score_curve([columns([1, 2], [3, np.nan])])
    assert (alone.steps.tolist(), alone.mean.tolist(), alone.low) == ([1], [3], None)
    assert len(score_curve([columns([1], [3]), columns([2], [3])]).steps) == 0
