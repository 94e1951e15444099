"""Charts of results, in the colours of offrl.report.plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from offrl.report._figures import _BLUE, _COLORS, _GRAY, _VERMILION, _figure, _legend_below, _save, _tidy
from offrl.statistics import t_interval


def bars(rows: Mapping[str, float], unit: str, path: Path, ours: Sequence[str] = ()) -> Path:
    """A horizontal bar for each row, the first one on top; `ours` in blue, the others gray."""
    figure = _figure(8, 1.0 + 0.42 * len(rows))
    axis = figure.subplots()
    _tidy(axis)
    axis.grid(visible=False, axis="y")
    colors = [_BLUE if name in ours else _GRAY for name in rows]
    drawn = axis.barh(list(rows), list(rows.values()), color=colors)
    axis.bar_label(drawn, [f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in rows.values()], padding=4)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_xlabel(unit)
    return _save(figure, path)


def runs(rows: Mapping[str, Sequence[float]], unit: str, path: Path) -> Path:
    """A line for each row, the first one on top: its training runs as dots, their mean, its 95 % t interval."""
    figure = _figure(8, 1.6 + 0.42 * len(rows))
    axis = figure.subplots()
    _tidy(axis)
    for position, values in enumerate(rows.values()):
        mean, low, high = t_interval(values)
        error = None if low is None or high is None else [[mean - low], [high - mean]]
        dots = axis.scatter(values, [position] * len(values), s=26, color=_BLUE, alpha=0.6, linewidths=0, zorder=3)
        bar = axis.errorbar(mean, position, xerr=error, fmt="D", color=_VERMILION, capsize=4, markersize=5)
        axis.annotate(f"{mean:.0f}", (mean, position), xytext=(0, 7), textcoords="offset points", ha="center")
        if position == 0:
            dots.set_label("one training run")
            bar.set_label("their mean, 95 % t interval")
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.5, -0.7)
    # An interval over few runs can reach far beyond all scores; it is cut, rather than the dots pressed together.
    scores = [value for values in rows.values() for value in values]
    room = 0.35 * (max(scores) - min(scores)) + 10
    axis.set_xlim(min(scores) - room, max(scores) + room)
    axis.set_xlabel(unit)
    _legend_below(figure)
    return _save(figure, path)


def intervals(
    rows: Mapping[str, tuple[float, float | None, float | None]], unit: str, path: Path, line: float | None = None
) -> Path:
    """A line for each row, the first one on top: a value and the interval (low, high) that it has; a rule at `line`."""
    figure = _figure(8, 1.2 + 0.36 * len(rows))
    axis = figure.subplots()
    _tidy(axis)
    if line is not None:
        axis.axvline(line, color=_GRAY, linewidth=1)
    for position, (value, low, high) in enumerate(rows.values()):
        error = None if low is None or high is None else [[value - low], [high - value]]
        axis.errorbar(value, position, xerr=error, fmt="o", color=_BLUE, capsize=4, markersize=5)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(unit)
    return _save(figure, path)


def stacked(rows: Mapping[str, Mapping[str, float]], unit: str, path: Path) -> Path:
    """A horizontal bar for each row, of parts that share their names and colours."""
    figure = _figure(9, 1.5 + 0.6 * len(rows))
    axis = figure.subplots()
    _tidy(axis)
    axis.grid(visible=False, axis="y")
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    left = [0.0] * len(rows)
    for part, color in zip(parts, _COLORS, strict=False):
        widths = [row.get(part, 0.0) for row in rows.values()]
        axis.barh(list(rows), widths, left=left, color=color, label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axis.invert_yaxis()
    axis.set_xlabel(unit)
    _legend_below(figure)
    return _save(figure, path)


def curves(rows: Sequence[Mapping[str, tuple[str, str, Mapping[float, float]]]], path: Path) -> Path:
    """Rows of panels: title -> (label of x, label of y, {x: y}); x is logarithmic."""
    figure = _figure(4.2 * len(rows[0]), 3.2 * len(rows))
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, (title, (x_label, y_label, points)) in zip(line, row.items(), strict=True):
            _tidy(axis)
            axis.plot(list(points), list(points.values()), color=_BLUE, marker="o")
            axis.set_xscale("log")
            axis.set_xticks(list(points), [f"{x:,.0f}" for x in points], minor=False)
            axis.minorticks_off()
            axis.set_ylim(0, 1.1 * max(points.values()))
            axis.set_title(title, fontsize=11)
            axis.set_xlabel(x_label)
            axis.set_ylabel(y_label)
    return _save(figure, path)
