import subprocess
import sys

import numpy as np
import pytest

from offrl.errors import ConfigError, MissingDependencyError, RunError
from offrl.runs import CSVLogger

pytest.importorskip("matplotlib")

from matplotlib.image import imread

from offrl.report import plot_comparison, plots

BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


def has_color(path, color):
    rgb = (imread(path)[..., :3] * 255).round()
    return bool((np.abs(rgb - color).max(axis=-1) <= 1).any())


@pytest.fixture
def metrics_csv(tmp_path):
    logger = CSVLogger(tmp_path)
    for step, loss in ((100, 3.0), (200, 2.0), (300, 1.5)):
        logger.log(step, {"loss": loss, "td_loss": loss / 2, "q": 7.0}, {"updates_per_second": 1.0})
    return tmp_path / "metrics.csv"


def test_every_loss_and_nothing_else_is_drawn_over_gradient_steps(metrics_csv, tmp_path, drawn):
    path = plots.plot_losses(metrics_csv, tmp_path / "plots/losses.png")
    axes = drawn[0].axes
    assert [axis.get_ylabel() for axis in axes] == ["loss", "td loss"]
    assert axes[-1].get_xlabel() == "gradient steps"
    assert axes[1].lines[0].get_xydata().tolist() == [[100, 1.5], [200, 1.0], [300, 0.75]]
    assert has_color(path, BLUE)


@pytest.mark.parametrize(
    "content", ["", "step,loss\n", "step,q\n1,2\n", "step,loss\n1,abc\n", "step,loss\n1\n", "1\n2,3\n"]
)
def test_a_file_without_losses_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(RunError, match=r"metrics\.csv: ") as caught:
        plots.plot_losses(tmp_path / "metrics.csv", tmp_path / "losses.png")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "losses.png").exists()


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"none\.csv: cannot be read"):
        plots.plot_losses(tmp_path / "none.csv", tmp_path / "losses.png")


def test_scores_show_every_episode_the_mean_and_the_dataset(tmp_path, drawn):
    scores = {"BC": [900.0, 900.0, 900.0, 930.0, 920.0], "BCQ": [100.0, 300.0]}
    path = plots.plot_scores(scores, tmp_path / "s.png", reference=524.0)
    axis = drawn[0].axes[0]
    episodes, bars, few, *none = axis.collections
    assert [dots.get_offsets()[:, 1].tolist() for dots in (episodes, few)] == list(scores.values())
    ((_, low), (_, high)) = bars.get_segments()[0]
    assert 900 <= low < 910 < high < 930
    assert not none  # two episodes: no interval
    assert [text.get_text() for text in axis.texts] == ["910", "200"]
    labels = [label.get_text() for label in axis.get_xticklabels()]
    assert labels == ["BC\n5 episodes", "BCQ\n2 episodes:\ntoo few for an interval"]
    assert axis.lines[0].get_ydata()[0] == 524.0
    assert has_color(path, VERMILION)


def test_legends_lie_below_the_axes(metrics_csv, tmp_path, drawn):
    plots.plot_losses(metrics_csv, tmp_path / "l.png")
    plots.plot_scores({"BC": [1.0, 2.0]}, tmp_path / "s.png")
    plots.plot_returns([1.0, 2.0], tmp_path / "r.png")
    groups = {f"group {i}": [{"step": np.arange(2.0), "q": np.full(2, i)}] for i in range(9)}
    plot_comparison(groups, ["q"], tmp_path / "c.png")
    for figure in drawn:
        (legend,) = figure.legends
        assert not any(axis.get_legend() for axis in figure.axes)
        lowest = min(axis.get_tightbbox().y0 for axis in figure.axes)
        assert legend.get_window_extent().y1 <= lowest
        assert legend.get_window_extent().width <= figure.bbox.width


@pytest.mark.parametrize("evaluations", [{}, {"BC": []}])
def test_scores_need_episodes(tmp_path, evaluations):
    with pytest.raises(ConfigError, match="plot_scores"):
        plots.plot_scores(evaluations, tmp_path / "s.png")


def test_returns_histogram_counts_every_episode(tmp_path, drawn):
    plots.plot_returns([0.0, 0.0, 10.0, 90.0], tmp_path / "r.png")
    axis = drawn[0].axes[0]
    assert sum(bar.get_height() for bar in axis.patches) == 4
    assert [line.get_label() for line in axis.lines] == ["mean 25", "median 5"]
    with pytest.raises(ConfigError, match="plot_returns"):
        plots.plot_returns([], tmp_path / "none.png")


def test_action_coverage_names_each_action_and_says_never(tmp_path, drawn):
    plots.plot_action_coverage([1, 0, 3], ["coast", "gas", "brake"], tmp_path / "a.png")
    axis = drawn[0].axes[0]
    assert [bar.get_width() for bar in axis.patches] == [25.0, 0.0, 75.0]
    assert [text.get_text() for text in axis.texts] == ["25.0 %", "never", "75.0 %"]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["coast  [0]", "gas  [1]", "brake  [2]"]


def test_an_episode_shows_scores_by_rank_actions_in_words_and_how_many_were_allowed(tmp_path, drawn):
    scores = np.array([[1, 2, 9, 0], [5, 4, 3, 2]], np.float32)
    allowed = np.array([[True, True, False, False], [False, False, True, False]])
    names = ["coast", "gas", "brake", "turn"]
    plots.plot_episode(scores, allowed, np.array([1, 2]), names, tmp_path / "e.png")
    ranks, actions, counts = drawn[0].axes
    shown = {line.get_label(): line.get_ydata().tolist() for line in ranks.lines}
    assert shown["best not allowed"] == [9, 5]
    assert shown["best allowed"] == [2, 3]
    assert str(shown["second allowed"]) == "[1.0, nan]"
    assert actions.collections[0].get_offsets().tolist() == [[0, 0], [1, 1]]
    assert [label.get_text() for label in actions.get_yticklabels()] == ["gas", "brake"]
    assert counts.lines[0].get_ydata().tolist() == [2, 1]


def test_an_episode_with_two_actions_that_are_always_allowed_can_be_drawn(tmp_path, drawn):
    plots.plot_episode(
        np.ones((3, 2), np.float32), np.ones((3, 2), bool), np.zeros(3, int), ["a", "b"], tmp_path / "e.png"
    )
    assert [line.get_label() for line in drawn[0].axes[0].lines] == [
        "best not allowed",
        "best allowed",
        "second allowed",
    ]


@pytest.mark.parametrize(
    ("scores", "allowed", "actions"),
    [((0, 2), (0, 2), 0), ((3, 2), (3, 3), 3), ((3, 2), (3, 2), 2), ((3, 3), (3, 3), 3)],
)
def test_an_episode_of_other_shapes_is_refused(tmp_path, scores, allowed, actions):
    with pytest.raises(ConfigError, match="plot_episode"):
        plots.plot_episode(
            np.zeros(scores), np.zeros(allowed, bool), np.zeros(actions, int), ["a", "b"], tmp_path / "e.png"
        )


@pytest.mark.parametrize(("counts", "names"), [([1, 2], ["a"]), ([0, 0], ["a", "b"])])
def test_action_coverage_needs_one_count_a_name(tmp_path, counts, names):
    with pytest.raises(ConfigError, match="plot_action_coverage"):
        plots.plot_action_coverage(counts, names, tmp_path / "a.png")


def test_stacks_are_drawn_oldest_left_with_their_action(tmp_path, drawn):
    frames = np.arange(2 * 3 * 2 * 2, dtype=np.uint8).reshape(2, 3, 2, 2)
    plots.plot_stacks(frames, ["gas", "brake"], tmp_path / "stacks.png")
    axes = drawn[0].axes
    shown = [axis.images[0].get_array().tolist() for axis in axes]
    assert shown == [frame.tolist() for stack in frames for frame in stack]
    assert [axis.get_title(loc="left") for axis in axes] == ["gas", "", "", "brake", "", ""]
    assert [axis.get_xlabel() for axis in axes[3:]] == ["2 steps ago", "1 step ago", "now"]


@pytest.mark.parametrize(
    ("observations", "captions"),
    [
        (np.zeros((1, 4, 2, 2), np.float32), ["a"]),
        (np.zeros((4, 2, 2), np.uint8), ["a"] * 4),
        (np.zeros((2, 4, 2, 2), np.uint8), ["a"]),
        (np.zeros((0, 4, 2, 2), np.uint8), []),
    ],
)
def test_stacks_of_another_kind_are_refused(tmp_path, observations, captions):
    with pytest.raises(ConfigError, match="plot_stacks"):
        plots.plot_stacks(observations, captions, tmp_path / "stacks.png")


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"-m pip install 'matplotlib>="):
        plots.plot_returns([1.0], tmp_path / "r.png")


def test_plotting_leaves_pyplot_alone_and_importing_leaves_matplotlib_alone(tmp_path):
    code = (
        "import sys; from offrl.report.plots import plot_returns; assert 'matplotlib' not in sys.modules;"
        f"plot_returns([1.0, 2.0], {str(tmp_path / 'r.png')!r}); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_held_out_losses_stand_beside_the_training_loss(tmp_path, drawn):
    logger = CSVLogger(tmp_path)
    for step, loss in ((100, 3.0), (200, 2.0)):
        logger.log(step, {"loss": loss, "held_out_loss": 2 * loss}, {"updates_per_second": 1.0})
    plots.plot_losses(tmp_path / "metrics.csv", tmp_path / "losses.png")
    (axis,) = drawn[-1].axes
    assert [line.get_ydata().tolist() for line in axis.lines] == [[3, 2], [3, 2], [6, 4], [6, 4]]


def test_names_with_dollar_signs_are_no_formulas(tmp_path):
    names = ["$5_$", "$10$", r"\frac"]
    assert plots.plot_action_coverage([1, 2, 3], names, tmp_path / "actions.png").stat().st_size > 0
    stacks = np.zeros((3, 2, 4, 4), np.uint8)
    assert plots.plot_stacks(stacks, names, tmp_path / "stacks.png").stat().st_size > 0
