"""The frame of every page: one file that holds all that it shows and asks for nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from offrl._version import __version__
from offrl.report._markup import Markup, element
from offrl.system.files import replacing


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
