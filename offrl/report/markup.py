"""HTML and SVG from plain calls: whatever is not markup already is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_VOID = frozenset({"br", "circle", "img", "line", "meta", "path", "rect"})


class Markup(str):
    """Text that is HTML; any other text is escaped where it enters a page."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str | float | bool | None) -> Markup:
    """An element.

    Args:
        tag: its name.
        children: Markup as it is, other text escaped.
        attributes: for `class` write `class_`, for hyphens underscores; True gives the bare name, None leaves it out.
    """
    opening = "".join([tag, *(_attribute(name, value) for name, value in attributes.items() if value is not None)])
    return Markup(f"<{opening}>" if tag in _VOID else f"<{opening}>{join(children)}</{tag}>")


def join(children: Iterable[str]) -> Markup:
    """Several pieces as one."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))


def _attribute(name: str, value: str | float | bool) -> str:
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{escape(value if isinstance(value, str) else f"{value:.6g}")}"'
