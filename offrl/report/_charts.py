"""The report's charts: SVG whose colours and fonts are the page's, so that they are sharp, small, light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offrl.report._markup import Markup, element, join
from offrl.report.metrics import Curve, metric_curve, view_of
from offrl.statistics import Interval

# In SVG units; so narrow that the text can still be read where a phone shows the chart at 340 pixels.
_WIDTH, _HEIGHT = 460.0, 240.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 60.0, 14.0, 10.0, 46.0
_ROW_HEIGHT = 62.0
_INDENT = 20.0
_LABEL_HEIGHT = 22.0
_MOST_POINTS = 300

Columns: TypeAlias = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class _Axis:
    """Values low .. high, drawn from `start` to `end`; marked at multiples of `least_step` or more."""

    low: float
    high: float
    start: float
    end: float
    least_step: float = 0.0

    def __call__(self, values: ArrayLike) -> NDArray[np.float64]:
        share = (np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low)
        return np.asarray(self.start + share * (self.end - self.start))

    @property
    def step(self) -> float:
        """From one tick to the next: a round value, of which about five fit in."""
        rough = max((self.high - self.low) / 5, self.least_step)
        power = 10.0 ** math.floor(math.log10(rough))
        return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)

    @property
    def ticks(self) -> list[float]:
        """About five round values."""
        step = self.step
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1)]

    def to_ticks(self) -> _Axis:
        """The same, but that an end more than half a step beyond the last tick moves out to the next one."""
        step, (first, *_, last) = self.step, [*self.ticks, *self.ticks]
        low = first - step if first - self.low > step / 2 else self.low
        high = last + step if self.high - last > step / 2 else self.high
        return replace(self, low=low, high=high)


def line_chart(lines: Mapping[str, Sequence[Columns]], name: str, styles: Mapping[str, int]) -> Markup:
    """A metric over gradient steps: of one run as logged (faint), and smoothed; of several a band and their mean.

    The band reaches from the lowest to the highest run, smoothed, at the steps that all of them logged. Runs without
    a step in common are drawn as a line each.

    Args:
        lines: label -> the columns of each of its runs, which have `step` and `name`.
        name: the column.
        styles: label -> number of its colour.
    """
    drawn: list[tuple[str, Curve]] = []
    logged = [np.zeros(0)]
    for label, runs in lines.items():
        together = metric_curve(runs, name)
        drawn += [(label, together)] if len(together.steps) else [(label, metric_curve([run], name)) for run in runs]
        if len(runs) == 1:
            logged.append(runs[0][name][np.isfinite(runs[0][name])])
    # Smoothed values decide the height together with most of the logged ones: one spike must not flatten the rest.
    raw = np.concatenate(logged)
    ends = [each for _, curve in drawn for each in (curve.mean, curve.low, curve.high) if each is not None]
    seen = np.concatenate([*ends, np.quantile(raw, [0.01, 0.99]) if raw.size else raw])
    y_axis = _axis(seen, _HEIGHT - _BOTTOM, _TOP)
    x_axis = _axis(np.concatenate([curve.steps for _, curve in drawn]), _LEFT, _WIDTH - _RIGHT, margin=0)
    parts = [_y_grid(y_axis, y_axis.ticks), _x_labels(x_axis, _HEIGHT, "gradient steps")]
    for label, curve in drawn:
        if len(lines[label]) == 1:
            (run,) = lines[label]
            kept = np.isfinite(run[name])
            parts.append(_curve_path("raw", run["step"][kept], run[name][kept], x_axis, y_axis, styles[label]))
        parts += _curve_parts(curve, x_axis, y_axis, styles[label])
    return _svg(parts, _HEIGHT, f"{name.replace('_', ' ')} over gradient steps")


def score_chart(curves: Mapping[str, Curve], title: str, styles: Mapping[str, int]) -> Markup:
    """Scores while training over gradient steps: a dot for each evaluation, the line, and the band around it.

    Args:
        curves: label -> its scores.
        title: what is drawn, for screen readers.
        styles: label -> number of its colour.
    """
    x_axis = _axis(np.concatenate([curve.steps for curve in curves.values()]), _LEFT, _WIDTH - _RIGHT, margin=0.02)
    y_axis = _axis(np.asarray(view_of([*curves.values()])), _HEIGHT - _BOTTOM, _TOP)
    parts = [_y_grid(y_axis, y_axis.ticks), _x_labels(x_axis, _HEIGHT, "gradient steps")]
    for label, curve in curves.items():
        parts += _curve_parts(curve, x_axis, y_axis, styles[label])
        parts += [
            element("circle", cx=x, cy=y, r=2.6, class_=f"dot c{styles[label]}")
            for x, y in zip(x_axis(curve.steps), y_axis(curve.mean), strict=True)
        ]
    return _svg(parts, _HEIGHT, title)


def _curve_parts(curve: Curve, x_axis: _Axis, y_axis: _Axis, style: int) -> Iterator[Markup]:
    """The band, where there is one, and the line over it."""
    if curve.low is not None and curve.high is not None:
        around = np.concatenate([curve.steps, curve.steps[::-1]])
        yield _curve_path("band", around, np.concatenate([curve.high, curve.low[::-1]]), x_axis, y_axis, style)
    yield _curve_path("line", curve.steps, curve.mean, x_axis, y_axis, style)


def _curve_path(
    kind: str, x: NDArray[np.float64], y: NDArray[np.float64], x_axis: _Axis, y_axis: _Axis, style: int
) -> Markup:
    inside = np.clip(y, y_axis.low, y_axis.high)
    return element("path", d=_path(x_axis(x), y_axis(inside)), class_=f"{kind} c{style}")


def dot_chart(
    rows: Mapping[str, tuple[ArrayLike, Interval]],
    title: str,
    styles: Mapping[str, int],
    reference: float | None = None,
    x_label: str = "return of an episode",
) -> Markup:
    """Each policy's scores as dots in a row of their own, with their mean and its 95 % interval.

    Args:
        rows: label -> scores [N], N over 0, and their mean.
        title: what is drawn, for screen readers.
        styles: label -> number of its colour.
        reference: the dataset's mean return, drawn as a line.
        x_label: what a dot is.
    """
    scores = {label: np.asarray(values, dtype=np.float64) for label, (values, _) in rows.items()}
    dots = np.concatenate([*scores.values(), [] if reference is None else [reference]])
    # The interval of two training runs can be a dozen times as wide as the runs are apart: it may leave the picture,
    # so that the dots can be told from each other.
    known = [end for _, mean in rows.values() for end in (mean.low, mean.high) if end is not None]
    reach = 0.5 * float(np.ptp(dots))
    ends = np.clip(known, dots.min() - reach, dots.max() + reach) if reach else np.asarray(known)
    x_axis = _axis(np.concatenate([dots, ends]), _INDENT, _WIDTH - _RIGHT).to_ticks()
    height = _TOP + _ROW_HEIGHT * len(scores) + _BOTTOM
    parts = [_x_grid(x_axis, height), _x_labels(x_axis, height, x_label)]
    if reference is not None:
        x = float(x_axis(reference))
        for number in range(len(scores)):  # interrupted where a row's label stands
            top = _TOP + _ROW_HEIGHT * number
            ends_of_piece = {"y1": top + _LABEL_HEIGHT, "y2": top + _ROW_HEIGHT}
            parts.append(element("line", x1=x, x2=x, class_="reference", **ends_of_piece))
    for number, (label, values) in enumerate(scores.items()):
        top = _TOP + _ROW_HEIGHT * number
        middle = top + 38
        mean = rows[label][1]
        words = f"{label}: {mean.mean:,.1f}"
        if mean.low is not None and mean.high is not None:
            low, high = x_axis(np.clip([mean.low, mean.high], x_axis.low, x_axis.high)).tolist()
            parts.append(element("line", x1=low, x2=high, y1=middle, y2=middle, class_="interval"))
            words += f" [{mean.low:,.1f}, {mean.high:,.1f}]"
        heights = middle - 7 + 14 * (np.arange(len(values)) * 0.6180339887 % 1)  # spread, so that dots stay apart
        radius = 2.6 if len(values) > 10 else 3.8
        parts += [
            element("circle", cx=x, cy=y, r=radius, class_=f"dot c{styles[label]}")
            for x, y in zip(x_axis(values), heights, strict=True)
        ]
        parts.append(element("circle", cx=float(x_axis(mean.mean)), cy=middle, r=5, class_="mean"))
        parts.append(_text(_INDENT, top + 16, words, "label"))
    return _svg(parts, height, title)


def histogram(values: ArrayLike, title: str, x_label: str, *, log_counts: bool = False) -> Markup:
    """How values [N] are spread, N over 0, and their mean.

    Args:
        values: [N], all finite.
        title: what is drawn, for screen readers.
        x_label: what the values are.
        log_counts: draw the counts by their logarithm, so that a rare value can be seen beside a common one.
    """
    numbers = np.asarray(values, dtype=np.float64)
    bins = min(30, max(5, math.ceil(2 * numbers.size ** (1 / 3))))
    x_axis = _axis(numbers, _LEFT, _WIDTH - _RIGHT, margin=0)
    counts, edges = np.histogram(numbers, bins=bins, range=(x_axis.low, x_axis.high))
    # The ground of a logarithm lies half an order of magnitude below 1, so that a count of 1 has a height.
    ground = -0.5 if log_counts else 0.0
    heights = np.where(counts > 0, np.log10(np.maximum(counts, 1)), ground) if log_counts else counts
    y_axis = _Axis(ground, float(heights.max()) * 1.06, _HEIGHT - _BOTTOM, _TOP, least_step=1)
    labels = [10.0**tick for tick in y_axis.ticks] if log_counts else y_axis.ticks
    parts = [_y_grid(y_axis, labels), _x_labels(x_axis, _HEIGHT, x_label)]
    for height, left, right in zip(heights, x_axis(edges[:-1]), x_axis(edges[1:]), strict=True):
        top = float(y_axis(height))
        size = {"width": max(right - left - 1, 1), "height": y_axis.start - top}
        parts.append(element("rect", x=left + 0.5, y=top, class_="bar", **size))
    mean = float(x_axis(numbers.mean()))
    parts.append(element("line", x1=mean, x2=mean, y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="reference"))
    return _svg(parts, _HEIGHT, title)


def _axis(values: NDArray[np.float64], start: float, end: float, margin: float = 0.06) -> _Axis:
    """An axis around all values; one of length 1 where they are equal, or where there are none."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12):
        return _Axis(low - 0.5, high + 0.5, start, end)
    return _Axis(low - margin * (high - low), high + margin * (high - low), start, end)


def _path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """A line through the points, thinned out where there are more than can be seen."""
    if not len(x):
        return ""
    shown = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_POINTS)).astype(int))
    return "M" + " ".join(f"{x[i]:.1f},{y[i]:.1f}" for i in shown)


def _y_grid(axis: _Axis, labels: Sequence[float]) -> Markup:
    """A line at each tick, and what it is called."""
    parts = []
    for label, y in zip(labels, axis(axis.ticks), strict=True):
        parts.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(_text(_LEFT - 6, y + 4, _number(label), "tick", anchor="end"))
    return join(parts)


def _x_grid(axis: _Axis, height: float) -> Markup:
    xs = [float(x) for x in axis(axis.ticks)]
    return join(element("line", x1=x, x2=x, y1=_TOP, y2=height - _BOTTOM, class_="grid") for x in xs)


def _x_labels(axis: _Axis, height: float, label: str) -> Markup:
    ticks = zip(axis.ticks, axis(axis.ticks), strict=True)
    marks = [_text(x, height - _BOTTOM + 20, _number(tick), "tick", anchor="middle") for tick, x in ticks]
    return join([*marks, _text((axis.start + axis.end) / 2, height - 6, label, "axis", anchor="middle")])


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> Markup:
    return element("text", words, x=x, y=y, class_=kind, text_anchor=anchor)


def _number(value: float) -> str:
    return f"{value:,.10g}" if abs(value) < 1e6 and (value == 0 or abs(value) >= 1e-4) else f"{value:.0e}"


def _svg(parts: Sequence[Markup], height: float, title: str) -> Markup:
    return element(
        "svg", element("title", title), *parts, viewBox=f"0 0 {_WIDTH:g} {height:g}", role="img", class_="chart"
    )
