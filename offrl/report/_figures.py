"""Figures of one style: colours, sizes, axes, and how they are saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offrl.errors import missing_dependency
from offrl.system.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_BLUE, _VERMILION, _GRAY = "#0072B2", "#D55E00", "#595959"
_COLORS = (_BLUE, _VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


_LINE_STYLES = ("-", "--", ":")


_DPI = 120


def _figure(width: float, height: float) -> Figure:
    """An empty figure of its own, in inches; pyplot, which keeps figures in global state, is never imported."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_dependency("matplotlib", extra="plot", purpose="offrl.report.plots") from error
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: str | Path) -> Path:
    from matplotlib.text import Text

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name with dollar signs is no formula
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=_DPI, bbox_inches="tight")
    return path


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(visible=True, color="#DDDDDD", linewidth=0.8)
    axis.set_axisbelow(True)


def _legend_below(figure: Figure) -> None:
    """A legend under the axes, where it hides no data, in as many columns as fit into the figure's width.

    Args:
        figure: whose axes have labelled lines.
    """
    labels = [label for axis in figure.axes for label in axis.get_legend_handles_labels()[1]]
    inches = [0.6 + 0.075 * len(label) for label in labels]  # a line's sample, and letters of 10 points
    is_one_row = sum(inches) <= figure.get_figwidth()
    num_columns = len(labels) if is_one_row else int(figure.get_figwidth() / max(inches))
    figure.legend(loc="outside lower center", ncols=max(1, num_columns), frameon=False)


def _spread(values: NDArray[np.float64], width: float = 0.3) -> NDArray[np.float64]:
    """Sideways offsets that keep dots of similar height apart: golden-ratio steps in order of height. [N] -> [N]."""
    rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.asarray(((rank * 0.6180339887) % 1 - 0.5) * width, dtype=np.float64)
