"""PNG plots of datasets and runs; colours stay apart for the colour-blind (Okabe & Ito 2008). Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offrl.errors import ConfigError, RunError
from offrl.report._figures import (
    _BLUE,
    _COLORS,
    _DPI,
    _GRAY,
    _VERMILION,
    _figure,
    _legend_below,
    _save,
    _spread,
    _tidy,
)
from offrl.report.metrics import read_metrics, smooth
from offrl.statistics import Interval, bootstrap_mean, has_spread

_HELD_OUT = "held_out_"


def plot_losses(metrics_csv: str | Path, path: str | Path) -> Path:
    """Every loss of a run over its gradient steps: as logged, and smoothed; beside it that of held-out episodes.

    Args:
        metrics_csv: as `CSVLogger` writes it; the columns with "loss" in their name are drawn.
        path: the PNG.

    Returns:
        The PNG's path.

    Raises:
        RunError: the CSV file is missing, or holds no losses.
        MissingDependencyError: matplotlib is not installed.
    """
    columns = read_metrics(metrics_csv)
    losses = [name for name in columns if "loss" in name and not name.startswith(_HELD_OUT)]
    if not losses or "step" not in columns:
        raise RunError(
            f"columns {list(columns)}", where=metrics_csv, expected="step and at least one loss, as CSVLogger writes"
        )
    step = columns["step"]
    figure = _figure(8, 0.6 + 2.2 * len(losses))
    axes = figure.subplots(len(losses), 1, sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, losses, strict=True):
        _tidy(axis)
        is_last = name == losses[-1]  # labelled once: the legend is for all panels
        for column, color, what in ((name, _BLUE, ""), (f"{_HELD_OUT}{name}", _VERMILION, ", held-out episodes")):
            if column in columns:
                label = f"smoothed{what}" if is_last else None
                axis.plot(step, columns[column], color=color, alpha=0.35, linewidth=1)
                axis.plot(step, smooth(columns[column]), color=color, linewidth=2, label=label)
        axis.set_ylabel(name.replace("_", " "))
    axes[-1].lines[0].set_label("as logged")
    axes[-1].set_xlabel("gradient steps")
    _legend_below(figure)
    return _save(figure, path)


def plot_scores(evaluations: Mapping[str, ArrayLike], path: str | Path, reference: float | None = None) -> Path:
    """Each policy's episodes as dots, their mean, and its 95 % bootstrap interval.

    Fewer than five episodes have no interval, and the plot says so.

    Args:
        evaluations: undiscounted returns [N] by policy name.
        path: the PNG.
        reference: the dataset's mean return, drawn as a line.

    Returns:
        The PNG's path.

    Raises:
        ConfigError: no policy, or one without episodes.
        MissingDependencyError: matplotlib is not installed.
    """
    scores = {name: np.asarray(values, dtype=np.float64).ravel() for name, values in evaluations.items()}
    if not scores or any(values.size == 0 for values in scores.values()):
        raise ConfigError(f"{list(scores)}", where="plot_scores", expected="one policy or more, each with episodes")
    figure = _figure(max(6.4, 1.4 + 1.8 * len(scores)), 4.6)
    axis = figure.subplots()
    _tidy(axis)
    if reference is not None:
        axis.axhline(reference, color=_GRAY, linestyle="--", label=f"mean of the dataset: {reference:.0f}")
    means = [bootstrap_mean(values) for values in scores.values()]
    has_interval = any(mean.low is not None for mean in means)
    for position, values in enumerate(scores.values()):
        mean, low, high = means[position]
        episodes = axis.scatter(position - 0.12 + _spread(values), values, s=22, color=_BLUE, alpha=0.5, linewidths=0)
        error = None if low is None or high is None else [[mean - low], [high - mean]]
        bar = axis.errorbar(position + 0.22, mean, yerr=error, fmt="D", color=_VERMILION, capsize=5, linewidth=2)
        axis.annotate(f"{mean:.0f}", (position + 0.22, mean), xytext=(9, 0), textcoords="offset points", va="center")
        if position == 0:
            episodes.set_label("one episode")
            bar.set_label("mean, 95 % interval" if has_interval else "mean")
    labels = [_episodes_text(name, scores[name].size, mean) for name, mean in zip(scores, means, strict=True)]
    axis.set_xticks(range(len(scores)), labels)
    axis.set_xlim(-0.5, len(scores) - 0.4)
    axis.grid(visible=False, axis="x")
    axis.set_ylabel("return of an episode")
    _legend_below(figure)
    return _save(figure, path)


def _episodes_text(name: str, num_episodes: int, mean: Interval) -> str:
    """A policy's label: its name, its episodes, and why they have no interval."""
    if mean.low is None:
        return f"{name}\n{mean.bounds(num_episodes)}".replace(": ", ":\n")
    return f"{name}\n{num_episodes} episodes"


def plot_returns(returns: ArrayLike, path: str | Path) -> Path:
    """How the returns of a dataset's episodes are spread: histogram, mean and median.

    Args:
        returns: undiscounted returns [N].
        path: the PNG.

    Returns:
        The PNG's path.

    Raises:
        ConfigError: no returns.
        MissingDependencyError: matplotlib is not installed.
    """
    values = np.asarray(returns, dtype=np.float64).ravel()
    if values.size == 0:
        raise ConfigError("no returns", where="plot_returns", expected="one or more")
    figure = _figure(7, 4)
    axis = figure.subplots()
    _tidy(axis)
    num_bins = min(40, max(5, math.ceil(2 * values.size ** (1 / 3)))) if has_spread(values) else 1
    axis.hist(values, bins=num_bins, color=_BLUE, alpha=0.75, edgecolor="white", label=f"{values.size} episodes")
    axis.axvline(values.mean(), color=_VERMILION, linewidth=2, label=f"mean {values.mean():.0f}")
    axis.axvline(np.median(values), color="black", linewidth=2, linestyle="--", label=f"median {np.median(values):.0f}")
    axis.grid(visible=False, axis="x")
    axis.set_xlabel("return of an episode")
    axis.set_ylabel("episodes")
    _legend_below(figure)
    return _save(figure, path)


def plot_action_coverage(counts: ArrayLike, names: Sequence[str], path: str | Path) -> Path:
    """How often each action was taken, as a share of all transitions.

    Args:
        counts: times taken [A].
        names: the actions in words [A].
        path: the PNG.

    Returns:
        The PNG's path.

    Raises:
        ConfigError: the lengths differ, or no action was taken at all.
        MissingDependencyError: matplotlib is not installed.
    """
    values = np.asarray(counts, dtype=np.float64).ravel()
    if values.size != len(names) or values.sum() <= 0:
        raise ConfigError(
            f"{values.size} counts with sum {values.sum():.0f} and {len(names)} names",
            where="plot_action_coverage",
            expected="as many counts as names, and at least one action taken",
        )
    share = 100 * values / values.sum()
    figure = _figure(7.5, 1.2 + 0.26 * len(names))
    axis = figure.subplots()
    _tidy(axis)
    positions = np.arange(len(names))
    bars = axis.barh(positions, share, color=_BLUE, alpha=0.75)
    axis.bar_label(bars, [f"{s:.1f} %" if n else "never" for s, n in zip(share, values, strict=True)], padding=3)
    axis.set_yticks(positions, [f"{name}  [{index}]" for index, name in enumerate(names)])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlim(0, 1.15 * share.max())
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("share of all transitions (%)")
    return _save(figure, path)


def plot_stacks(observations: NDArray[np.uint8], captions: Sequence[str], path: str | Path) -> Path:
    """Sample observations, a row each: the frames of its stack, oldest left, under its action in words.

    Args:
        observations: uint8 [N, S, H, W].
        captions: one for each row [N].
        path: the PNG; a pixel of a frame is at least a pixel of it.

    Returns:
        The PNG's path.

    Raises:
        ConfigError: other shapes or dtypes.
        MissingDependencyError: matplotlib is not installed.
    """
    if observations.ndim != 4 or observations.dtype != np.uint8 or not 0 < len(observations) == len(captions):
        raise ConfigError(
            f"{observations.dtype} {list(observations.shape)} with {len(captions)} captions",
            where="plot_stacks",
            expected="uint8 [N, S, H, W] with N captions, N over 0",
        )
    num_rows, stack, height, width = observations.shape
    cell = max(1.5, width / _DPI)
    figure = _figure(cell * stack + 0.2, (cell * height / width + 0.35) * num_rows + 0.2)
    axes = figure.subplots(num_rows, stack, squeeze=False)
    for row, caption, frames in zip(axes, captions, observations, strict=True):
        row[0].set_title(caption, loc="left", fontsize=10)
        for axis, frame in zip(row, frames, strict=True):
            axis.imshow(frame, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
    for column, axis in enumerate(axes[-1]):
        age = stack - 1 - column
        axis.set_xlabel("now" if age == 0 else f"{age} step{'s' if age > 1 else ''} ago")
    return _save(figure, path)


def plot_episode(
    scores: NDArray[np.float32],
    allowed: NDArray[np.bool_],
    actions: NDArray[np.int64],
    names: Sequence[str],
    path: str | Path,
) -> Path:
    """What a policy thinks along an episode: the best scores, the actions taken in words, how many it chose from.

    Args:
        scores: q or whatever ranks the actions [T, A].
        allowed: the actions that the policy chose from [T, A].
        actions: taken [T].
        names: the actions in words [A].
        path: the PNG.

    Returns:
        The PNG's path.

    Raises:
        ConfigError: shapes that do not fit together, or no steps.
        MissingDependencyError: matplotlib is not installed.
    """
    if len(actions) == 0 or not scores.shape == allowed.shape == (len(actions), len(names)):
        raise ConfigError(
            f"scores {scores.shape}, allowed {allowed.shape}, {len(actions)} actions, {len(names)} names",
            where="plot_episode",
            expected="[T, A], [T, A], T and A, T over 0",
        )
    taken = [index for index in range(len(names)) if index in set(actions.tolist())]
    figure = _figure(9, 4.6 + 0.24 * len(taken))
    axes = figure.subplots(3, 1, sharex=True, height_ratios=[2.4, 0.6 + 0.24 * len(taken), 1.2])
    steps = np.arange(len(actions))
    for axis in axes:
        _tidy(axis)
    refused = np.where(allowed, np.nan, scores)
    ranked = -np.sort(-np.where(allowed, scores, np.nan), axis=1)  # NaN last: an action may be the only one allowed
    axes[0].plot(steps, np.fmax.reduce(refused, axis=1), color=_GRAY, linestyle=":", label="best not allowed")
    for word, values, color in zip(("best", "second", "third"), ranked.T, _COLORS, strict=False):
        axes[0].plot(steps, values, color=color, linewidth=1, label=f"{word} allowed")
    axes[0].set_ylabel("score of an action")
    _legend_below(figure)
    axes[1].scatter(steps, [taken.index(action) for action in actions], s=7, color=_BLUE, linewidths=0)
    axes[1].set_yticks(range(len(taken)), [names[index] for index in taken])
    axes[1].set_ylim(len(taken) - 0.4, -0.6)
    axes[2].step(steps, allowed.sum(axis=1), color=_BLUE, where="mid", linewidth=1)
    axes[2].set_ylim(0, None)
    axes[2].set_ylabel("allowed actions")
    axes[2].set_xlabel("steps")
    return _save(figure, path)
