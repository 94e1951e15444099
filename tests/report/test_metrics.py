import numpy as np
import pytest

from offrl.errors import RunError
from offrl.report import read_metrics
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
