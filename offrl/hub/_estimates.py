"""What `offrl ope` found of a run, for its card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from offrl.errors import RunError
from offrl.report.ope_page import OPE_NAME, estimate_text
from offrl.runs.files import read_run_json


def estimates_of(run: Path, checkpoint: Path) -> dict[str, Any]:
    """What a run's ope.json says, if it is of this checkpoint; else nothing.

    Raises:
        RunError: It is something else than estimates.
    """
    found = read_run_json(run, OPE_NAME)
    judged = (run / "checkpoints" / Path(str(found.get("policy", ""))).name).resolve()
    if not found or judged.name != checkpoint.resolve().name:
        return {}
    try:
        list(estimate_lines(found))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"damaged ({type(error).__name__}: {error})", where=run / OPE_NAME, expected="what `offrl ope --out` writes"
        ) from error
    return found


def estimate_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """A section in Markdown, with every remark against an estimate."""
    yield from ("## By logged data alone", "")
    yield (
        f"Discounted values ({found['discount']:g} a step) on {found['held_out_episodes']:,} episodes that were held "
        f"out, with 95 % intervals; the behaviour's {estimate_text(found['behaviour'])}. Nothing was played."
    )
    yield from (
        "",
        "| estimator | value | above the behaviour | effective episodes | remark |",
        "|---|---|---|---|---|",
    )
    for row in found["estimates"]:
        size = row["effective_size"]
        cells = [
            row["estimator"],
            estimate_text(row["value"]) or "undefined",
            estimate_text(row["difference_to_behaviour"], sign="+") or "-",
            "-" if size is None else f"{size:,.1f}",
            row["remark"] or "-",
        ]
        yield f"| {' | '.join(map(str, cells))} |"
    yield from ("", *(f"- {line}" for line in found["warnings"]), "")
