import numpy as np
import pytest

from offrl.errors import ConfigError, RunError
from offrl.runs import CSVLogger

pytest.importorskip("matplotlib")

from matplotlib.image import imread

from offrl.report import ProgressPlot, plot_comparison, plot_progress

BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


def has_color(path, color):
    rgb = (imread(path)[..., :3] * 255).round()
    return bool((np.abs(rgb - color).max(axis=-1) <= 1).any())


def test_scores_and_losses_of_a_run_are_drawn_and_the_best_score_is_marked(tmp_path, drawn):
    csv, plot = CSVLogger(tmp_path), ProgressPlot(tmp_path)
    for step, loss, score in ((10, 2.0, 5.0), (20, 1.0, 9.0), (30, 0.5, 7.0)):
        csv.log(step, {"loss": loss, "held_out_loss": 2 * loss}, {"updates_per_second": 1.0})
        csv.log_evaluation(step, {"score": score, "low": score - 1, "high": score + 1})
    plot.log_evaluation(30, {"score": 7.0})
    assert (tmp_path / "plots" / "progress.png").read_bytes().startswith(b"\x89PNG")
    upper, lower = drawn[0].axes
    assert upper.lines[0].get_xydata().tolist() == [[10, 5], [20, 9], [30, 7]]
    assert upper.collections[1].get_offsets().tolist() == [[20, 9]]
    smoothed = {line.get_label(): line.get_ydata().tolist() for line in lower.lines[1::2]}
    assert smoothed == {"training loss": [2.0, 1.0, 0.5], "held-out loss": [4.0, 2.0, 1.0]}


def test_a_score_before_the_first_row_is_drawn_and_a_picture_that_fails_ends_nothing(tmp_path, drawn, monkeypatch):
    csv, plot = CSVLogger(tmp_path), ProgressPlot(tmp_path)
    csv.log_evaluation(10, {"score": 5.0})
    plot.log_evaluation(10, {"score": 5.0})
    assert drawn[0].axes[0].lines[0].get_xydata().tolist() == [[10, 5]]
    (tmp_path / "evaluations.csv").unlink()
    with pytest.warns(UserWarning, match=r"progress.png is not drawn: .*evaluations.csv: cannot be read"):
        plot.log_evaluation(10, {"score": 5.0})


def test_a_run_that_was_not_scored_is_refused(tmp_path):
    CSVLogger(tmp_path).log(10, {"loss": 2.0}, {"updates_per_second": 1.0})
    with pytest.raises(RunError, match=r"evaluations.csv: cannot be read"):
        plot_progress(tmp_path, tmp_path / "progress.png")


def run(steps, **columns):
    return {"step": np.array(steps, float), **{name: np.array(values, float) for name, values in columns.items()}}


def test_runs_are_compared_by_mean_and_band_at_the_steps_they_share(tmp_path, drawn):
    seeds = [run([100, 200], loss=[1.0, 3.0], q=[0, 9]), run([100, 200, 300], loss=[3.0, 3.0, 9.0], q=[0, 9, 9])]
    groups = {"bcq": seeds, "bc": [run([100, 300], loss=[5.0, 4.0], q=[1, 2])]}
    path = plot_comparison(groups, ["loss", "q"], tmp_path / "c.png")
    loss, q = drawn[0].axes
    assert [axis.get_ylabel() for axis in (loss, q)] == ["loss", "q"]
    assert [line.get_label() for line in loss.lines] == ["bcq (2 training seeds)", "bc (one training run)"]
    assert [line.get_xydata().tolist() for line in loss.lines] == [[[100, 2], [200, 3]], [[100, 5], [300, 4]]]
    assert q.lines[1].get_xydata().tolist() == [[100, 1], [300, 2]]
    (band,) = loss.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert corners == {(100, 1), (100, 3), (200, 3)}  # from the lowest run to the highest
    assert has_color(path, BLUE)
    assert has_color(path, VERMILION)


@pytest.mark.parametrize(
    ("groups", "metrics", "says"),
    [
        ({}, ["loss"], "groups and metrics"),
        ({"a": []}, ["loss"], "groups and metrics"),
        ({"a": [run([1], loss=[1])]}, [], "groups and metrics"),
        ({"a": [run([1], loss=[1])]}, ["q"], r"no run has 'q'; expected one of \['step', 'loss'\]"),
        ({"a": [{}]}, ["loss"], "no run has 'loss'"),
        ({"a": [run([1], loss=[1]), run([2], loss=[1])]}, ["loss"], "a: its runs logged no step in common"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(tmp_path, groups, metrics, says):
    with pytest.raises(ConfigError, match=says):
        plot_comparison(groups, metrics, tmp_path / "c.png")


def test_a_run_without_a_metric_does_not_stop_the_others(tmp_path, drawn):
    seeds = [run([1, 2], loss=[1, 2], q=[5, 7]), run([1, 2], loss=[3, 4])]
    plot_comparison({"bcq": seeds, "bc": [run([1, 2], loss=[0, 0])]}, ["loss", "q"], tmp_path / "c.png")
    loss, q = drawn[0].axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[2, 3], [0, 0]]
    assert [line.get_ydata().tolist() for line in q.lines] == [[5, 7]]
    assert loss.lines[0].get_label() == "bcq (1 to 2 training seeds)"


def test_scores_over_training_seeds_are_a_mean_and_a_t_interval(tmp_path, drawn):
    scores = [run([100, 200], score=[100, 110]), run([100, 200, 300], score=[110, 110, 5])]
    scores.append(run([100, 200], score=[120, 110]))
    losses = [run([50, 100], loss=[1, 1])] * 3
    groups, evaluations = {"bcq": losses, "bc": losses[:1]}, {"bcq": scores, "bc": [run([100], score=[90])]}
    plot_comparison(groups, ["score", "loss"], tmp_path / "c.png", evaluations=evaluations)
    score, loss = drawn[0].axes
    assert [line.get_xydata().tolist() for line in score.lines] == [[[100, 110], [200, 110]], [[100, 90]]]
    (band,) = score.collections
    ends = {tuple(np.round(corner, 2)) for corner in band.get_paths()[0].vertices}
    # The standard deviation of 100, 110 and 120 is 10: 4.303 * 10 / sqrt(3) = 24.84.
    assert ends == {(100, 85.16), (100, 134.84), (200, 110)}
    assert score.get_ylabel() == "return of an episode"
    assert score.get_title(loc="left") == (
        "played while training, on tuning seeds; line: mean over training seeds; "
        "band: 95 % t interval over training seeds"
    )
    assert loss.get_title(loc="left") == "line: mean over training seeds; band: lowest to highest run"
    assert [line.get_label() for line in score.lines] == ["bcq (3 training seeds)", "bc (one training run)"]


def test_the_wide_interval_of_two_seeds_does_not_flatten_the_curves(tmp_path, drawn):
    scores = [run([1, 2], score=[0, 100]), run([1, 2], score=[20, 100])]
    plot_comparison({"bc": [{}, {}]}, ["score"], tmp_path / "c.png", evaluations={"bc": scores})
    # 12.7 * 10 = 127 around 10; the means reach from 10 to 100, and half as far again is 45.
    low, high = drawn[0].axes[0].get_ylim()
    assert (low, high) == pytest.approx((-35 - 0.05 * 172, 137 + 0.05 * 172), abs=0.5)


def test_without_scores_the_refusal_says_where_they_come_from(tmp_path):
    with pytest.raises(ConfigError, match="no run has 'score'.*offrl train --evaluate-every 1epoch"):
        plot_comparison({"bc": [run([1], loss=[1])]}, ["score"], tmp_path / "c.png")
