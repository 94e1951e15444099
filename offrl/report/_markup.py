"""HTML and SVG from plain calls: whatever is not markup already is escaped."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offrl._version import __version__
from offrl.system.files import replacing

_VOID = frozenset({"br", "circle", "img", "line", "meta", "path", "rect"})


class Markup(str):
    """Text that is HTML; any other text is escaped where it enters a page."""

    __slots__ = ()


NOTHING = Markup("")


def element(tag: str, *children: str, **attributes: str | float | bool | None) -> Markup:
    """An element.

    Args:
        tag: its name.
        children: Markup as it is, other text escaped.
        attributes: for `class` write `class_`, for hyphens underscores; True gives the bare name, None leaves it out.
    """
    opening = "".join([tag, *(_attribute(name, value) for name, value in attributes.items() if value is not None)])
    return Markup(f"<{opening}/>" if tag in _VOID else f"<{opening}>{join(children)}</{tag}>")


def join(children: Iterable[str]) -> Markup:
    """Several pieces as one."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))


def section(title: str, *children: str) -> Markup:
    """A part of the page under its heading."""
    return element("section", element("h2", title), *children)


def row(name: str, cells: Sequence[str], class_: str | None = None) -> Markup:
    """A table's row: its heading, and cells of numbers."""
    return element("tr", element("th", name), *(element("td", cell, class_="number") for cell in cells), class_=class_)


def fact(name: str, value: str, detail: str) -> Markup:
    """A card of one figure."""
    pieces = {"name": name, "value": value, "detail": detail}
    return element("div", *(element("div", text, class_=kind) for kind, text in pieces.items()), class_="card fact")


def note(text: str, class_: str = "note") -> Markup:
    """A remark in small print."""
    return element("p", text, class_=class_)


def data_uri(content: bytes, kind: str) -> str:
    """A file of that media type as an address that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _attribute(name: str, value: str | float | bool) -> str:
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{escape(value if isinstance(value, str) else f"{value:.6g}")}"'


def write_document(path: Path, title: str, *parts: str) -> None:
    """Writes an HTML file, whole or not at all, of these parts and a footer."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # No network, no scripts, whatever the data says.
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:",
        ),
        element("title", title),
        element("style", Markup(files("offrl.report").joinpath("style.css").read_text(encoding="utf-8"))),
    )
    footer = element("footer", f"Written by offrl {__version__}. This file holds all that it shows.")
    body = element("body", element("main", *parts, footer))
    with replacing(path) as partial:
        partial.write_text(f"<!doctype html>\n{element('html', head, body, lang='en')}\n", encoding="utf-8")


def gray_png(image: NDArray[np.uint8]) -> bytes:
    """A gray picture [H, W] as PNG (ISO/IEC 15948): too little to need an imaging library."""
    height, width = image.shape
    lines = np.hstack([np.zeros((height, 1), np.uint8), image]).tobytes()  # each line begins with its filter: none
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
        b"IDAT": zlib.compress(lines, 9),
        b"IEND": b"",
    }
    framed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)
