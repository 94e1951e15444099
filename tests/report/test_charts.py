import re
from xml.etree import ElementTree

import numpy as np
import pytest

from offrl.report import Curve
from offrl.report._charts import dot_chart, histogram, line_chart, score_chart
from offrl.statistics import Interval


def parsed(chart):
    return ElementTree.fromstring(chart)


def lines(name, **groups):
    """label -> its runs, from pairs of steps and values."""
    return {
        label: [{"step": np.array(steps, float), name: np.array(values, float)} for steps, values in runs]
        for label, runs in groups.items()
    }


def of_class(root, name):
    return [each for each in root.iter() if name in each.get("class", "").split()]


def words(root, kind):
    return [each.text for each in of_class(root, kind)]


def points(path):
    return [tuple(map(float, pair.split(","))) for pair in path.get("d")[1:].split()]


def test_lines_run_from_the_lowest_left_to_the_highest_right():
    root = parsed(line_chart(lines("loss", a=[([0, 50, 100], [1.0, 2.0, 3.0])]), "loss", {"a": 0}))
    (line,) = of_class(root, "line")
    (x0, y0), (x1, y1), (x2, y2) = points(line)
    assert (x0, x2) == (60, 446)  # the margins
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
    assert 10 < y2 < y0 < 194
    assert words(root, "tick") == ["1", "1.5", "2", "2.5", "3", "0", "20", "40", "60", "80", "100"]


def test_each_line_has_its_own_colour_raw_and_smoothed():
    root = parsed(line_chart(lines("q", a=[([1, 2], [0, 1])], b=[([1, 2], [1, 0])]), "q", {"b": 3, "a": 1}))
    assert [path.get("class") for path in of_class(root, "raw")] == ["raw c1", "raw c3"]
    assert [path.get("class") for path in of_class(root, "line")] == ["line c1", "line c3"]


def test_several_runs_are_a_band_and_their_mean_at_the_steps_they_share():
    runs = [([1, 2, 3], [0.0, 4.0, 9.0]), ([1, 2], [2.0, 8.0])]
    root = parsed(line_chart(lines("q", a=runs, b=[([1], [0.0])]), "q", {"a": 0, "b": 1}))
    (band,) = of_class(root, "band")
    mean = points(of_class(root, "line")[0])
    (x0, high0), (x1, high1), (_, low1), (_, low0) = points(band)  # there along the top, back along the bottom
    assert [x for x, _ in mean] == [x0, x1]
    assert [y for _, y in mean] == pytest.approx([(low0 + high0) / 2, (low1 + high1) / 2], abs=0.1)
    assert (low1 - high1) / (low0 - high0) == pytest.approx(2, abs=0.01)  # 4 to 8 above 0 to 2
    assert [path.get("class") for path in of_class(root, "raw")] == ["raw c1"]


def test_runs_without_a_step_in_common_are_a_line_each():
    root = parsed(line_chart(lines("q", a=[([1], [1.0]), ([2], [2.0])]), "q", {"a": 0}))
    assert not of_class(root, "band")
    assert len(of_class(root, "line")) == 2


def test_one_spike_does_not_flatten_the_rest():
    values = np.ones(1000)
    values[::2] = 2.0
    values[500] = 1e9
    root = parsed(line_chart(lines("loss", a=[(np.arange(1000), values)]), "loss", {"a": 0}))
    assert all(y >= 9.9 for _, y in points(of_class(root, "raw")[0]))  # the spike is cut off at the top


@pytest.mark.parametrize(
    "values", [[2.0, 2.0], [0.0, 0.0], [np.nan, 1.0], [np.nan, np.nan], [1e-9, 2e-9], [1e12, 3e12]]
)
def test_any_values_can_be_drawn(values):
    chart = line_chart(lines("loss", a=[([1, 2], values)]), "loss", {"a": 0})
    assert "nan" not in chart
    assert parsed(chart).get("role") == "img"


def test_a_single_point_and_many_points_can_be_drawn():
    assert parsed(line_chart(lines("loss", a=[([1], [1.0])]), "loss", {"a": 0})) is not None
    long = parsed(line_chart(lines("loss", a=[(np.arange(100_000), np.arange(100_000.0))]), "loss", {"a": 0}))
    assert len(points(of_class(long, "line")[0])) == 300


def test_every_episode_is_a_dot_at_its_score():
    rows = {"BC <1>": ([0.0, 100.0], Interval(50.0, 20.0, 60.0)), "BCQ": ([50.0], Interval(50.0, None, None))}
    root = parsed(dot_chart(rows, "scores", {"BC <1>": 0, "BCQ": 1}, reference=50.0))
    low, high, middle = (float(dot.get("cx")) for dot in of_class(root, "dot"))
    assert low < middle < high
    assert middle == pytest.approx((low + high) / 2)
    assert [dot.get("class") for dot in of_class(root, "dot")] == ["dot c0", "dot c0", "dot c1"]
    assert [float(mean.get("cx")) for mean in of_class(root, "mean")] == pytest.approx([middle, middle])
    pieces = of_class(root, "reference")  # one in each row, below the label, which it must not cross
    assert [float(piece.get("x1")) for piece in pieces] == pytest.approx([middle, middle])
    baselines = [float(label.get("y")) for label in of_class(root, "label")]
    assert [float(piece.get("y1")) - y for piece, y in zip(pieces, baselines, strict=True)] == [6, 6]
    assert words(root, "label") == ["BC <1>: 50.0 [20.0, 60.0]", "BCQ: 50.0"]
    (interval,) = of_class(root, "interval")
    assert float(interval.get("x1")) == pytest.approx(low + 0.2 * (high - low), abs=0.01)
    assert float(interval.get("x2")) == pytest.approx(low + 0.6 * (high - low), abs=0.01)


def test_the_marks_of_an_axis_reach_the_outermost_dots():
    root = parsed(dot_chart({"a": ([155.0, 465.0], Interval(310.0, None, None))}, "scores", {"a": 0}))
    # Without more room the axis would end at 484, and its marks at 400: the last dot would be read as 400 and a bit.
    assert words(root, "tick") == ["100", "200", "300", "400", "500"]


def test_an_interval_much_wider_than_the_dots_ends_at_the_edge():
    rows = {"a": ([0.0, 1.0], Interval(0.5, -5.9, 6.9))}
    root = parsed(dot_chart(rows, "scores", {"a": 0}))
    (interval,) = of_class(root, "interval")
    left, right = (float(dot.get("cx")) for dot in of_class(root, "dot"))
    assert 20 <= float(interval.get("x1")) < left < right < float(interval.get("x2")) <= 446
    assert right - left > 150
    assert words(root, "label") == ["a: 0.5 [-5.9, 6.9]"]


def test_bars_stand_for_all_values():
    root = parsed(histogram([0.0, 0.0, 0.0, 10.0], "returns", "return"))
    heights = [float(bar.get("height")) for bar in of_class(root, "bar")]
    assert len(heights) == 5
    assert heights[0] == pytest.approx(3 * heights[-1], abs=0.01)
    assert heights[1:-1] == [0, 0, 0]
    assert words(root, "tick")[:4] == ["0", "1", "2", "3"]  # whole numbers of episodes
    assert words(root, "axis") == ["return"]


def test_scores_while_training_are_a_dot_an_evaluation_in_a_band_that_may_leave_the_picture():
    steps, mean = np.array([100.0, 200.0]), np.array([0.0, 10.0])
    wide = Curve(steps, mean, mean - 100, mean + 100)
    root = parsed(score_chart({"a": wide, "b": Curve(steps[:1], mean[:1])}, "score", {"a": 0, "b": 1}))
    line, _ = of_class(root, "line")
    (_, y0), (_, y1) = points(line)
    (band,) = of_class(root, "band")
    assert all(9.9 <= y <= 194.1 for _, y in points(band))
    assert (y0 - y1) / 184 == pytest.approx(10 / (20 * 1.12), abs=0.01)  # half as far again to either side
    assert [dot.get("class") for dot in of_class(root, "dot")] == ["dot c0", "dot c0", "dot c1"]


def test_colours_are_left_to_the_page():
    assert not re.search(
        "#[0-9a-f]{3}|rgb|style=", dot_chart({"a": ([1.0], Interval(1.0, None, None))}, "scores", {"a": 0})
    )


def test_logarithmic_counts_show_one_beside_a_thousand():
    root = parsed(histogram([0.0] * 1000 + [5.0], "rewards", "reward", log_counts=True))
    heights = sorted(float(bar.get("height")) for bar in of_class(root, "bar"))
    assert heights[:-2] == [0] * (len(heights) - 2)
    assert heights[-1] / heights[-2] == pytest.approx((3 + 0.5) / 0.5, abs=0.01)  # orders of magnitude from the ground
    assert words(root, "tick")[:4] == ["1", "10", "100", "1,000"]
