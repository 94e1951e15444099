"""`offrl convert`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import argument, option

from offrl.cli.console import output_options, say_on_interrupt, show, task_options
from offrl.cli.names import named_task
from offrl.errors import ConfigError

if TYPE_CHECKING:
    from offrl.datasets.conversion import Format
    from offrl.shards.layouts import Dones


@click.command(short_help="Write a dataset anew: frames, stacked, Minari's or d3rlpy's format.")
@argument("source")
@argument("target")
@option("--to", type=click.Choice(["frames", "stacked", "minari", "d3rlpy"]), help="The target's format.")
@option("--dedupe", is_flag=True, help="Hold each frame that stacks share once: --to frames.")
@option("--compress/--no-compress", default=True, show_default=True, help="Deflate the target (never Minari's).")
@task_options
@output_options
def convert(
    source: str,
    target: str,
    to: Format | None,
    dedupe: bool,
    compress: bool,
    environment: str | None,
    hud: str | None,
    dones: Dones,
    skip_bad_shards: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl convert data/course-shards data/frames --to frames

    SOURCE is a directory of shards in either layout, a dataset of Minari's (its directory, or minari:ID), or an HDF5
    file of d3rlpy's; the last two become frames first. The frames layout holds each frame that stacks share once.
    TARGET must be new, and is whole or not there. Shows the sizes before and after.
    """
    from offrl.datasets.conversion import convert as convert_dataset

    if dedupe and to not in (None, "frames"):
        raise ConfigError(f"--dedupe beside --to {to}", where="convert", expected="--to frames", hint="leave one out")
    if dedupe:
        to = "frames"
    if to is None:
        raise ConfigError("no format", where="convert", expected="--to or --dedupe", hint="add --to frames, say")
    spec = named_task(environment, hud)
    about = None
    if environment is not None and spec is not None:
        about = {"id": environment, **({} if spec.hud is None else {"hud": spec.hud})}
    say_on_interrupt("interrupted; nothing was written")
    found = convert_dataset(
        source,
        target,
        to,
        spec=spec,
        dones=dones,
        skip_bad_shards=skip_bad_shards,
        environment=about,
        compress=compress,
        progress=not quiet,
    )
    show(found.to_dict(), as_json, text=found.to_text())
