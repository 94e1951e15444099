import pytest

from offrl.errors import RunError
from offrl.training import CSVLogger

pytest.importorskip("matplotlib")

from offrl.report import ProgressPlot, plot_progress, progress


def test_scores_and_losses_of_a_run_are_drawn_and_the_best_score_is_marked(tmp_path, monkeypatch):
    figures, save = [], progress._save
    monkeypatch.setattr(progress, "_save", lambda figure, path: figures.append(figure) or save(figure, path))
    csv, plot = CSVLogger(tmp_path), ProgressPlot(tmp_path)
    for step, loss, score in ((10, 2.0, 5.0), (20, 1.0, 9.0), (30, 0.5, 7.0)):
        csv.log(step, {"loss": loss, "held_out_loss": 2 * loss}, {"updates_per_second": 1.0})
        csv.log_evaluation(step, {"score": score, "low": score - 1, "high": score + 1})
    plot.log_evaluation(30, {"score": 7.0})
    assert (tmp_path / "plots" / "progress.png").read_bytes().startswith(b"\x89PNG")
    upper, lower = figures[0].axes
    assert upper.lines[0].get_xydata().tolist() == [[10, 5], [20, 9], [30, 7]]
    assert upper.collections[1].get_offsets().tolist() == [[20, 9]]
    smoothed = {line.get_label(): line.get_ydata().tolist() for line in lower.lines[1::2]}
    assert smoothed == {"training loss": [2.0, 1.0, 0.5], "held-out loss": [4.0, 2.0, 1.0]}


def test_a_run_that_was_not_scored_is_refused(tmp_path):
    CSVLogger(tmp_path).log(10, {"loss": 2.0}, {"updates_per_second": 1.0})
    with pytest.raises(RunError, match=r"evaluations.csv: cannot be read"):
        plot_progress(tmp_path, tmp_path / "progress.png")
