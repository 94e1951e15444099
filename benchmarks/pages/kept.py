"""What pages of the documentation say of benchmarks/results/: reading a result, and how numbers look."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offrl.statistics import Interval

RESULTS = Path(__file__).parents[1] / "results"
LEADERBOARDS = (
    "leaderboard",
    *(f"leaderboard-{kind}" for kind in ("bold", "varied", "medium", "replay", "expert", "random")),
)
CHARTS: dict[str, tuple[str, ...]] = {
    **{name: (f"carracing/{name}.png",) for name in LEADERBOARDS},
    "growth": ("growth/growth.png",),
    "inference": ("inference/inference.png",),
    "profile": ("profile/profile.png",),
    "data": ("data.png",),
    "precision": ("precision.png",),
    "quick": ("quick.png",),
}


def kept(name: str) -> dict[str, Any] | None:
    """A result that a benchmark wrote, or None if this checkout has none."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def all_kept(folder: str) -> dict[str, dict[str, Any]]:
    """The results in a folder, by name."""
    return {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted((RESULTS / folder).glob("*.json"))}


def is_there(name: str) -> bool:
    """Whether this checkout has that file among its results."""
    return (RESULTS / name).is_file()


def missing(command: str) -> str:
    """What a page says where there is no result."""
    return f"This checkout has no result. Produce it with `python -m benchmarks {command}`."


def charts_of(name: str, text: str) -> str:
    """The charts of a benchmark, as far as this checkout has them."""
    drawn = [chart for chart in CHARTS[name] if is_there(chart)]
    return "\n\n".join(f"![{text}](benchmarks/{chart})" for chart in drawn)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def interval_text(ends: Sequence[float | None], count: int, unit: str = "episode", form: str = ".1f") -> str:
    """An interval in words, or why there is none."""
    bounds = Interval(math.nan, *ends).bounds(count, unit, form)
    return bounds if ends[0] is None else f"95 % interval {'over the runs ' if unit == 'run' else ''}{bounds}"


def ratio_text(ratio: Mapping[str, float]) -> str:
    """The median of a ratio, its lowest and its highest."""
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def interval_of(mean: Mapping[str, Any]) -> dict[str, list[float] | None]:
    """The ends of an interval as results of runs have them."""
    return {"interval_95": None if mean["low"] is None else [mean["low"], mean["high"]]}


def mean_and_interval(cell: Mapping[str, Any], form: str = ".1f") -> str:
    """A mean and the ends of its interval, where it has one."""
    if cell["interval_95"] is None:
        return f"{cell['mean']:{form}}"
    low, high = cell["interval_95"]
    return f"{cell['mean']:{form}} ({low:{form}} to {high:{form}})"


def machine_text(machine: Mapping[str, Any], device: str = "auto") -> str:
    """Where a number was measured: processor or GPU, and versions."""
    where = (device != "cpu" and machine["gpu"]) or f"{machine['cores']} cores ({machine['processor']})"
    names = ("offrl", "torch", "gymnasium", "numpy")
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in names if name in machine["versions"])
    return f"{where}; Python {machine['python']}, {versions}"


def difference_text(found: Mapping[str, Any], star: str = "") -> str:
    """A difference of means and the ends of its interval, where it has one."""
    if found["low"] is None:
        return f"{found['mean']:+.1f}"
    return f"{found['mean']:+.1f}{star} ({found['low']:+.1f} to {found['high']:+.1f})"
