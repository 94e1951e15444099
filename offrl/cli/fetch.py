"""`offrl fetch`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

import json
from pathlib import Path

import click
from click import argument, option

from offrl.cli.console import PATH, output_options, say_on_interrupt, show
from offrl.system.files import parse_size


def size(text: str) -> int:
    """Bytes, from 500M or 1.5G."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


@click.command(short_help="Bring a dataset from an address or a path into a directory.")
@argument("source", metavar="URL|PATH")
@argument("directory", type=PATH)
@option("--sha256", help="Checksum of the file, verified before it is unpacked.")
@option("--max-size", type=size, default="10G", show_default=True, help="Refuse a larger file.")
@option("--max-unpacked", type=size, default="100G", show_default=True, help="Refuse more after unpacking.")
@option("--max-members", type=click.IntRange(1), default=100_000, show_default=True, help="Refuse more files.")
@option("--max-ratio", type=float, default=200.0, show_default=True, help="Refuse to unpack to more times the size.")
@output_options
def fetch(
    source: str,
    directory: Path,
    sha256: str | None,
    max_size: int,
    max_unpacked: int,
    max_members: int,
    max_ratio: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl fetch https://example.org/carracing.zip data/carracing

    Downloads, checks and unpacks a zip or tar archive (also .gz, .bz2, .xz), or copies an .npz file or a directory.
    DIRECTORY is whole or not there, and ready for offrl inspect. What is there already is not fetched again; after
    ctrl-C, the same command goes on.
    """
    from offrl.shards.download import MARKER_NAME
    from offrl.shards.download import fetch as fetch_dataset

    say_on_interrupt("interrupted; the same command goes on from here")
    found = fetch_dataset(
        source,
        directory,
        sha256=sha256,
        max_bytes=max_size,
        max_unpacked_bytes=max_unpacked,
        max_members=max_members,
        max_ratio=max_ratio,
        progress=not quiet,
    )
    marker = json.loads((found / MARKER_NAME).read_text(encoding="utf-8"))
    show({"directory": str(directory), **marker}, as_json)
