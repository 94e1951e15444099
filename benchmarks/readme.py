"""The README's table of results, made from benchmarks/results/*/evaluation.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from offrl.statistics import Interval

ROOT = Path(__file__).parent.parent
_PLACE = re.compile(r"(<!-- results -->\n).*?(<!-- end of results -->)", re.DOTALL)


def results_text(results: Path) -> str:
    """Markdown: the CarRacing table of each size that was measured, CartPole, and where."""
    lines = []
    for name, title in (("demo", "`make demo`"), ("full", "`make demo ARGS=--full`")):
        path = results / name / "evaluation.json"
        if path.exists():
            lines += [*_car_racing(title, json.loads(path.read_text(encoding="utf-8"))), ""]
    path = results / "cartpole" / "evaluation.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        lines += [
            f"CartPole, from data that the library collects: dataset {found['dataset_mean']['mean']:.0f}, BCQ "
            f"{found['BCQ']['mean']:.0f} of 500 over {found['BCQ']['episodes']} episodes, "
            f"{found['seconds']:.0f} seconds in all (`{found['command']}`)."
        ]
    return "\n".join(lines).strip() + "\n"


def _car_racing(title: str, found: dict[str, Any]) -> list[str]:
    machine = found["machine"]
    rows = {"dataset": found["dataset"], **found["policies"]}
    lines = [
        f"{title}: {found['size']['transitions']:,} transitions, {found['size']['updates']:,} updates each, "
        f"{found['minutes_from_an_empty_folder']:.0f} minutes from an empty folder "
        f"({machine['cores']} cores, {machine['processor']}, torch {machine['versions']['torch']}, "
        f"Gymnasium {machine['versions']['gymnasium']}).",
        "",
        "| | mean score | 95 % interval | finished laps |",
        "|---|---|---|---|",
    ]
    for name, row in rows.items():
        bounds = Interval(row["mean"], *(row["interval_95"] or (None, None))).bounds(row["episodes"])
        finished = f"{row.get('finished', 0)} of {row['episodes']}"
        lines.append(f"| {name} | {row['mean']:.1f} | {bounds} | {finished} |")
    difference = Interval(**found["bcq_minus_bc"])
    bounds = difference.bounds(len(found["policies"]["BCQ"]["per_episode"]), form="+.1f")
    lines += [
        "",
        f"BCQ - BC, paired by seed: {difference.mean:+.1f} ({bounds}).",
    ]
    return lines


def updated(readme: str, results: Path) -> str:
    """The README with today's results in their place."""
    return _PLACE.sub(lambda match: f"{match[1]}\n{results_text(results)}\n{match[2]}", readme)


@click.command()
def readme() -> None:
    """Writes the README's results."""
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text(encoding="utf-8"), ROOT / "benchmarks" / "results"), encoding="utf-8")
