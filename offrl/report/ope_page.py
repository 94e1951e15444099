"""What offline estimators say of a policy, as a section of a run's page and as a page of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offrl.errors import RunError
from offrl.report._markup import NOTHING, Markup, element, note, section, write_document
from offrl.statistics import number_text

OPE_NAME = "ope.json"
"""Where a run keeps them: `offrl ope RUN --out RUN/ope.json`."""
_HEADS = ("estimator", "value", "95 % interval", "above the behaviour", "effective episodes")


def write_ope_page(found: Mapping[str, Any], path: str | Path) -> Path:
    """Writes a page that holds all that it shows.

    Args:
        found: `offrl.ope.Estimates.to_dict()`.
        path: the HTML file.

    Returns:
        The file's path.

    Raises:
        RunError: `found` is something else.
    """
    path = Path(path)
    header = element("header", element("h1", "Judged by logged data"), element("p", str(found.get("policy", ""))))
    write_document(path, "offline estimates", header, ope_section(found, where=path))
    return path


def ope_section(found: Mapping[str, Any], *, where: Path) -> Markup:
    """The table of estimators, and under it what to beware of; nothing where there are none.

    Args:
        found: see `write_ope_page`; empty where nobody asked.
        where: the file that it was read from, for errors.

    Raises:
        RunError: it is something else.
    """
    if not found:
        return NOTHING
    try:
        rows = [_row(each) for each in found["estimates"]]
        fitted = found.get("behaviour_fitted")
        beyond = (
            "" if fitted is None else f", and {estimate_text(fitted)} by fitted Q, beyond where the log is cut, too"
        )
        about = (
            f"Read on {found['held_out_episodes']:,} held-out episodes; models were fitted on "
            f"{found['training_episodes']:,} others. Values are discounted returns of an episode "
            f"({found['discount']:g} a step); the behaviour's is {estimate_text(found['behaviour'])}{beyond}. Its "
            f"probabilities are {found['behaviour_probabilities']}. The behaviour takes {found['support']:.0%} of the "
            "policy's actions, too."
        )
        remarks = [f"{each['estimator']}: {each['remark']}." for each in found["estimates"] if each["remark"]]
        warnings = [*remarks, *map(str, found["warnings"])]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"damaged ({type(error).__name__}: {error})", where=where, expected="what `offrl ope --out` writes"
        ) from error
    first, *others = _HEADS
    heads = [element("th", first), *(element("th", name, class_="number") for name in others)]
    head = element("thead", element("tr", *heads))
    table = element("table", head, element("tbody", *rows))
    beware = element("ul", *(element("li", each) for each in warnings)) if warnings else NOTHING
    card = element("div", element("div", table, class_="scroll"), beware, class_="card")
    return section("By logged data alone", note(about), card)


def _row(each: Mapping[str, Any]) -> Markup:
    size, value = each["effective_size"], each["value"]
    cells = [
        "undefined" if value["mean"] is None else number_text(value["mean"], beside=value["interval_95"] or ()),
        _bounds(value),
        estimate_text(each["difference_to_behaviour"], sign="+"),
        "" if size is None else f"{size:,.1f}",
    ]
    numbers = [element("td", cell, class_="number") for cell in cells]
    return element("tr", element("th", str(each["estimator"])), *numbers)


def _bounds(value: Mapping[str, Any], sign: str = "") -> str:
    mean, ends = value["mean"], value["interval_95"]
    if ends is None:
        return ""
    low, high = ends
    beside = [low, high] if mean is None else [mean, low, high]
    return f"{number_text(low, beside=beside, sign=sign)} to {number_text(high, beside=beside, sign=sign)}"


def estimate_text(value: Mapping[str, Any], sign: str = "") -> str:
    """A value with its 95 % interval, of `Interval.to_dict()`; "" where it is undefined."""
    bounds = _bounds(value, sign)
    if value["mean"] is None:
        return ""
    shown = number_text(value["mean"], beside=value["interval_95"] or (), sign=sign)
    return shown + (f" [{bounds}]" if bounds else "")
