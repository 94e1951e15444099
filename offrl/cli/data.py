"""`offrl collect` and `offrl inspect`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click import argument, option

from offrl.cli.console import PATH, hud_option, output_options, say_on_interrupt, show, task_options, workers_option
from offrl.cli.names import CAR_RACING, environment_factory, named_behaviour, named_task

if TYPE_CHECKING:
    from offrl.replay.layouts import Dones

_NO_PROGRESS_STEPS = 150  # a car that stands still teaches little


@click.command(short_help="Collect transitions with a scripted or random behaviour.")
@argument("environment")
@argument("directory", type=PATH)
@option("--transitions", type=click.IntRange(1), required=True, help="At least so many; episodes are whole.")
@option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the whole dataset.")
@option("--behaviour", help="mixture, random or package.module:Class; default: a mixture where offrl has one.")
@hud_option
@workers_option(1)
@output_options
def collect(
    environment: str,
    directory: Path,
    transitions: int,
    seed: int,
    behaviour: str | None,
    hud: str | None,
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl collect CarRacing-v3 data/carracing --transitions 60000

    Plays ENVIRONMENT, a Gymnasium id, and writes a dataset into DIRECTORY. What is complete is not collected again;
    after ctrl-C the same command goes on. The data depends on the seed, not on the number of workers.
    """
    from offrl.collect import collect as collect_dataset

    extra = {"no_progress_steps": _NO_PROGRESS_STEPS} if environment == CAR_RACING else {}
    make_env = environment_factory(environment, hud, **extra)
    say_on_interrupt("interrupted; the same command goes on from here")
    manifest = collect_dataset(
        make_env,
        named_behaviour(behaviour, environment),
        directory,
        transitions=transitions,
        seed=seed,
        workers=workers,
        environment={"id": environment, **make_env.keywords},
        progress=not quiet,
    )
    result = {
        "directory": str(directory),
        "transitions": manifest.num_transitions,
        "episodes": sum(shard.num_episodes for shard in manifest.shards),
        "shards": len(manifest.shards),
    }
    show(result, as_json)


@click.command(short_help="Show what is in a dataset.")
@argument("directory", type=PATH)
@task_options
@output_options
def inspect(
    directory: Path, environment: str | None, hud: str | None, dones: Dones, as_json: bool, quiet: bool
) -> None:
    """Example: offrl inspect data/carracing

    Counts, returns, the use of every action and a health check of the shards in DIRECTORY, in either layout.
    """
    from offrl.replay.ingest import ingest
    from offrl.replay.inspect import inspect_dataset

    spec = named_task(environment, hud)
    summary = inspect_dataset(ingest(directory, spec=spec, dones=dones, tier="mmap", progress=not quiet))
    show(summary.to_dict(), as_json, text=summary.to_text())
