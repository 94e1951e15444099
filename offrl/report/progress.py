"""Losses and scores of a run, drawn as they come. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from offrl.errors import RunError
from offrl.report._figures import _BLUE, _VERMILION, _figure, _save, _tidy
from offrl.report.metrics import read_metrics, smooth


def plot_progress(run: str | Path, path: str | Path) -> Path:
    """The scores of a run that was evaluated while it trained, over its losses, in training and on held-out episodes.

    Args:
        run: The run's directory, with metrics.csv and evaluations.csv.
        path: The PNG.

    Returns:
        The PNG's path.

    Raises:
        RunError: A file is missing, or has no score.
        MissingDependencyError: matplotlib is not installed.
    """
    metrics, scores = (read_metrics(Path(run) / name) for name in ("metrics.csv", "evaluations.csv"))
    if not {"step", "score"} <= scores.keys():
        raise RunError(f"columns {list(scores)}", where=Path(run) / "evaluations.csv", expected="step and score")
    figure = _figure(8, 6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axis in (upper, lower):
        _tidy(axis)
    steps, score = scores["step"], scores["score"]
    if {"low", "high"} <= scores.keys():
        upper.fill_between(
            steps, scores["low"], scores["high"], color=_BLUE, alpha=0.2, linewidth=0, label="95 % interval"
        )
    upper.plot(steps, score, color=_BLUE, marker="o", label="mean score")
    best = int(score.argmax())
    upper.scatter(steps[best], score[best], color=_VERMILION, marker="*", s=140, zorder=3, label="best checkpoint")
    upper.set_ylabel("return of an episode")
    for name, color, label in (("loss", _BLUE, "training loss"), ("held_out_loss", _VERMILION, "held-out loss")):
        if name in metrics:
            lower.plot(metrics["step"], metrics[name], color=color, alpha=0.3, linewidth=1)
            lower.plot(metrics["step"], smooth(metrics[name]), color=color, linewidth=2, label=label)
    lower.set_ylabel("loss")
    lower.set_xlabel("gradient steps")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return _save(figure, path)


class ProgressPlot:
    """A logger of `fit` that draws `plots/progress.png` in the run's directory with each score.

    Args:
        run: The run's directory.
        path: The PNG; None for `plots/progress.png` in the run's directory.
    """

    def __init__(self, run: str | Path, path: str | Path | None = None) -> None:
        self._run = Path(run)
        self._path = self._run / "plots" / "progress.png" if path is None else Path(path)

    def log(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Draws nothing: a plot takes longer than a row."""

    def log_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Draws what the run's CSV files have, this score among it."""
        plot_progress(self._run, self._path)

    def close(self) -> None:
        """Does nothing: the last score was drawn."""
