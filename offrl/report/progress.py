"""Learning curves: of runs beside each other, and of one run as it goes on. Needs matplotlib."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from offrl.errors import ConfigError, OfflineRLError, RunError
from offrl.report._figures import (
    _BLUE,
    _COLORS,
    _GRAY,
    _LINE_STYLES,
    _VERMILION,
    _figure,
    _legend_below,
    _save,
    _tidy,
)
from offrl.report.metrics import Curve, metric_curve, read_metrics, score_curve, smooth, view_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Columns: TypeAlias = Mapping[str, NDArray[np.float64]]


def plot_comparison(
    groups: Mapping[str, Sequence[Columns]],
    metrics: Sequence[str],
    path: str | Path,
    *,
    evaluations: Mapping[str, Sequence[Columns]] | None = None,
) -> Path:
    """Metrics and scores over gradient steps, a line for each group of runs: their mean, and a band around it.

    Of a metric, the smoothed values are drawn, and the band reaches from the lowest to the highest run of a group. Of a
    score while training, the band is Student's 95 % t interval over the runs. Both are at the steps that all runs of
    the group logged; a group of one run has no band. Runs that did not log a metric are left out of its panel.

    Args:
        groups: label -> its runs' metrics.csv, each as `read_metrics` gives it.
        metrics: columns to draw, a panel each.
        path: the PNG.
        evaluations: label -> its runs' evaluations.csv, likewise; a column that one of them has, such as "score", is
            drawn from there.

    Returns:
        The PNG's path.

    Raises:
        ConfigError: no group or no metric; a metric that no run logged; runs of a group without a step in common.
        MissingDependencyError: matplotlib is not installed.
    """
    if not groups or not metrics or not all(groups.values()):
        raise ConfigError(f"{list(groups)}, {list(metrics)}", where="plot_comparison", expected="groups and metrics")
    evaluations = evaluations or {}
    figure = _figure(8, 1.2 + 3.2 * len(metrics))
    axes = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    lines: dict[str, list[Any]] = {label: [] for label in groups}
    counts: dict[str, list[int]] = {label: [] for label in groups}
    for axis, metric in zip(axes, metrics, strict=True):
        _tidy(axis)
        is_score = any(metric in run for group in evaluations.values() for run in group)
        curves = []
        for number, label in enumerate(groups):
            found = evaluations.get(label, ()) if is_score else groups[label]
            runs = [run for run in found if metric in run and "step" in run]
            if not runs:
                continue
            curve = score_curve(runs, metric) if is_score else metric_curve(runs, metric)
            if not len(curve.steps):
                raise ConfigError(
                    f"{label}: its runs logged no step in common", where="plot_comparison", expected="one"
                )
            look = {
                "color": _COLORS[number % len(_COLORS)],
                "linestyle": _LINE_STYLES[number // len(_COLORS) % len(_LINE_STYLES)],
                "marker": "o" if is_score else None,
            }
            lines[label] += axis.plot(curve.steps, curve.mean, linewidth=2, markersize=4, **look)
            counts[label].append(len(runs))
            if curve.low is not None and curve.high is not None:
                axis.fill_between(curve.steps, curve.low, curve.high, color=look["color"], alpha=0.2, linewidth=0)
            curves.append(curve)
        if not curves:
            raise _no_such_metric(metric, [*groups.values(), *evaluations.values()])
        _label_panel(axis, metric, curves, is_score=is_score)
    for label, drawn in lines.items():
        if drawn:  # labelled in one panel: the legend is for all of them
            drawn[0].set_label(f"{label} ({_seeds_text(counts[label])})")
    axes[-1].set_xlabel("gradient steps")
    _legend_below(figure)
    return _save(figure, path)


def _label_panel(axis: Axes, metric: str, curves: Sequence[Curve], *, is_score: bool) -> None:
    """Says what a panel's values and bands are, and lets wide bands leave the picture."""
    axis.set_ylabel("return of an episode" if is_score and metric == "score" else metric.replace("_", " "))
    band = "95 % t interval over training seeds" if is_score else "lowest to highest run"
    has_band = any(curve.low is not None for curve in curves)
    about = ["played while training, on tuning seeds"] if is_score else []
    about += ["line: mean over training seeds", f"band: {band}"] if has_band else []
    axis.set_title("; ".join(about), loc="left", fontsize=9, color=_GRAY)
    if is_score:
        low, high = view_of(curves)
        margin = 0.05 * (high - low) or 0.5
        axis.set_ylim(low - margin, high + margin)


def _no_such_metric(metric: str, groups: Sequence[Sequence[Columns]]) -> ConfigError:
    found = list(dict.fromkeys(name for group in groups for run in group for name in run))
    scored = "offrl train --evaluate-every 1epoch scores a run while it trains" if metric == "score" else None
    return ConfigError(f"no run has {metric!r}", where="plot_comparison", expected=f"one of {found}", hint=scored)


def _seeds_text(counts: Sequence[int]) -> str:
    """How many runs a group's lines are of; panels differ where a run did not log a metric."""
    fewest, most = min(counts), max(counts)
    if most == 1:
        return "one training run"
    return f"{most} training seeds" if fewest == most else f"{fewest} to {most} training seeds"


def plot_progress(run: str | Path, path: str | Path) -> Path:
    """The scores of a run that was evaluated while it trained, over its losses, in training and on held-out episodes.

    Args:
        run: The run's directory, with metrics.csv and evaluations.csv.
        path: The PNG.

    Returns:
        The PNG's path.

    Raises:
        RunError: There is no score yet, or a file is damaged.
        MissingDependencyError: matplotlib is not installed.
    """
    written = Path(run) / "metrics.csv"
    metrics = read_metrics(written) if written.exists() else {}  # the first score may come before the first row
    scores = read_metrics(Path(run) / "evaluations.csv")
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
        """Draws what the run's CSV files have, this score among it. A picture that fails ends no training: it warns."""
        try:
            plot_progress(self._run, self._path)
        except (OfflineRLError, OSError) as error:
            warnings.warn(f"{self._path} is not drawn: {error}", stacklevel=2)

    def close(self) -> None:
        """Does nothing: the last score was drawn."""
