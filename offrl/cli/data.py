"""`offrl collect` and `offrl inspect`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import argument, option

from offrl.cli.console import (
    DATA,
    FILE,
    PATH,
    hud_option,
    output_options,
    refuse_beside,
    say_on_interrupt,
    show,
    task_options,
    workers_option,
)
from offrl.cli.names import CAR_RACING, environment_factory, named_behaviour, named_recipe, named_task
from offrl.errors import ConfigError

if TYPE_CHECKING:
    from offrl.shards.layouts import Dones

_NO_PROGRESS_STEPS = 150  # a car that stands still teaches little


def _list_recipes(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if not is_asked or ctx.resilient_parsing:
        return
    from offrl.collection.recipes import RECIPES

    show({recipe.name: recipe.description for recipe in RECIPES.values()}, as_json=False)
    ctx.exit()


@click.command(short_help="Collect transitions: a standard dataset, or a behaviour of your choice.")
@argument("environment", metavar="DATASET|ENVIRONMENT")
@argument("directory", type=PATH, required=False)
@option("--transitions", type=click.IntRange(1), required=True, help="At least so many; episodes are whole.")
@option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the whole dataset.")
@option(
    "--behaviour",
    help="mixture, random, in CarRacing driver:SKILL (0 to 1, or expert), or package.module:Class; "
    "default: a mixture where offrl has one.",
)
@option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_recipes, help="Show the datasets.")
@hud_option
@workers_option(1)
@output_options
def collect(
    environment: str,
    directory: Path | None,
    transitions: int,
    seed: int,
    behaviour: str | None,
    hud: str | None,
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl collect carracing/mixed --transitions 60000

    Writes a standard DATASET (--list shows them) into DIRECTORY, by default data/carracing-mixed or the like; or
    plays ENVIRONMENT, a Gymnasium id. What is complete is not collected again; after ctrl-C the same command goes on
    (not for carracing/replay). The data depends on the seed, not on the number of workers.
    """
    from offrl.collection.collector import collect as collect_dataset

    settings: dict[str, Any] = {
        "transitions": transitions,
        "seed": seed,
        "workers": workers,
        "progress": not quiet,
    }
    recipe = named_recipe(environment)
    if recipe is not None:
        given = {"--behaviour": behaviour, "--hud": hud}
        refuse_beside(recipe.name, given, where="collect", expected="a dataset as it is")
        directory = directory or Path("data") / recipe.name.replace("/", "-")
        goes_on = recipe.behaviour is not None
        say_on_interrupt(f"interrupted; {'the same command goes on from here' if goes_on else 'it cannot go on'}")
        manifest = recipe.collect(directory, **settings)
    else:
        if directory is None:
            raise ConfigError("no DIRECTORY", where="collect", expected=f"one to write {environment} into")
        extra = {"no_progress_steps": _NO_PROGRESS_STEPS} if environment == CAR_RACING else {}
        make_env = environment_factory(environment, hud, **extra)
        chosen = named_behaviour(behaviour, environment)
        about = {"id": environment, **make_env.keywords}
        say_on_interrupt("interrupted; the same command goes on from here")
        manifest = collect_dataset(make_env, chosen, directory, environment=about, **settings)
    result = {
        "directory": str(directory),
        "transitions": manifest.num_transitions,
        "episodes": sum(shard.num_episodes for shard in manifest.shards),
        "shards": len(manifest.shards),
    }
    show(result, as_json)


@click.command(short_help="Show what is in a dataset.")
@argument("directory", metavar="DIRECTORY|URL", type=DATA)
@option("--html", type=FILE, help="Write it as a page too, with pictures: one HTML file.")
@option("--sampling", default="uniform", help="Show too what this draws, such as top-returns:0.1.")
@task_options
@output_options
def inspect(
    directory: Path | str,
    html: Path | None,
    sampling: str,
    environment: str | None,
    hud: str | None,
    dones: Dones,
    skip_bad_shards: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl inspect data/carracing --html carracing.html

    Counts, returns, the use of every action and a health check of the shards in DIRECTORY, in either layout; or at a
    URL such as s3://bucket/folder, which are fetched into the cache. The page also shows lengths, rewards and what
    the frames look like, and says of each doubt what it means; it needs nothing beside itself.
    """
    from offrl.datasets.summary import inspect_dataset
    from offrl.replay.ingestion import ingest

    spec = named_task(environment, hud)
    reading: dict[str, Any] = {"dones": dones, "skip_bad_shards": skip_bad_shards, "progress": not quiet}
    store = ingest(directory, spec=spec, tier="mmap", **reading)
    summary = inspect_dataset(store, sampling)
    text = summary.to_text()
    if html is not None:
        from offrl.report.dataset_page import write_dataset_page
        from offrl.shards.addresses import redacted

        title = directory.resolve().name if isinstance(directory, Path) else redacted(directory)
        write_dataset_page(store, html, title=title, summary=summary)
        text += f"\n\npage         {html}"
    show(summary.to_dict(), as_json, text=text)
