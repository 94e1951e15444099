"""`offrl collect`, `offrl fetch`, `offrl convert` and `offrl inspect`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import argument, option

from offrl.cli.behaviours import named_behaviour
from offrl.cli.console import (
    DATA,
    FILE,
    PATH,
    completing,
    hud_option,
    options,
    output_options,
    refuse_beside,
    say_on_interrupt,
    show,
    task_options,
    workers_option,
)
from offrl.cli.names import CAR_RACING, environment_factory, named_recipe, named_task
from offrl.errors import ConfigError
from offrl.system.files import parse_size

if TYPE_CHECKING:
    from offrl.datasets.conversion import Format
    from offrl.shards.layouts import Dones

_NO_PROGRESS_STEPS = 150  # a car that stands still teaches little


def _recipe_names() -> list[str]:
    from offrl.collection.recipes import RECIPES

    return list(RECIPES)


@click.command(short_help="Collect transitions: a standard dataset, or a behaviour of your choice.")
@argument("environment", metavar="DATASET|ENVIRONMENT", required=False, shell_complete=completing(_recipe_names))
@argument("directory", type=PATH, required=False)
@option(
    "--transitions",
    type=click.IntRange(1),
    help="At least so many; no shard of 4 whole episodes is cut short.",
)
@option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the dataset.")
@option(
    "--behaviour",
    help="mixture, random, in CarRacing driver:SKILL (0 to 1, or expert), or package.module:Class; "
    "default: a mixture where offrl has one.",
)
@option("--list", "list_datasets", is_flag=True, help="List the standard datasets, and collect nothing.")
@hud_option
@workers_option(1)
@output_options
def collect(
    environment: str | None,
    directory: Path | None,
    transitions: int | None,
    seed: int,
    behaviour: str | None,
    list_datasets: bool,
    hud: str | None,
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl collect carracing/mixed --transitions 60000

    Writes a standard DATASET (--list shows them) into DIRECTORY, by default data/carracing-mixed or the like; or
    plays ENVIRONMENT, a Gymnasium id. A complete dataset is not collected again; after ctrl-C the same command
    continues (not for carracing/replay). The data depends on the seed, not on the number of workers. Under torchrun all
    ranks play.
    """
    from offrl.collection.collector import collect as collect_dataset
    from offrl.system.torchrun import join

    if list_datasets:
        from offrl.collection.recipes import RECIPES

        show({recipe.name: recipe.description for recipe in RECIPES.values()}, as_json)
        return
    if environment is None:
        raise ConfigError(
            "no DATASET or ENVIRONMENT", where="collect", expected="one", hint="--list shows the datasets"
        )
    if transitions is None:
        raise ConfigError("no --transitions", where="collect", expected="how many", hint="add --transitions 60000, say")
    ranks = join()
    settings: dict[str, Any] = {
        "transitions": transitions,
        "seed": seed,
        "workers": workers if ranks.count == 1 else ranks.workers(workers) or 1,
        "progress": not quiet and ranks.is_first,
        "ranks": ranks,
    }
    recipe = named_recipe(environment)
    if recipe is not None:
        given = {"--behaviour": behaviour, "--hud": hud}
        refuse_beside(recipe.name, given, where="collect", expected="a dataset as it is")
        directory = directory or Path("data") / recipe.name.replace("/", "-")
        goes_on = recipe.behaviour is not None
        say_on_interrupt(f"interrupted; {'the same command continues from here' if goes_on else 'it cannot continue'}")
        manifest = recipe.collect(directory, **settings)
    else:
        if directory is None:
            raise ConfigError("no DIRECTORY", where="collect", expected=f"one to write {environment} into")
        extra = {"no_progress_steps": _NO_PROGRESS_STEPS} if environment == CAR_RACING else {}
        make_env = environment_factory(environment, hud, **extra)
        chosen = named_behaviour(behaviour, environment)
        about = {"id": environment, **make_env.keywords}
        say_on_interrupt("interrupted; the same command continues from here")
        manifest = collect_dataset(make_env, chosen, directory, environment=about, **settings)
    if not ranks.is_first:
        return
    result = {
        "directory": str(directory),
        "transitions": manifest.num_transitions,
        "episodes": sum(shard.num_episodes for shard in manifest.shards),
        "shards": len(manifest.shards),
    }
    show(result, as_json)


@click.command(short_help="Summarise and check a dataset.")
@argument("directory", metavar="DIRECTORY|URL", type=DATA)
@option("--html", type=FILE, help="Also write a page with plots, as one HTML file.")
@option("--sampling", default="uniform", help="Also show what this strategy samples, such as top-returns:0.1.")
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

    Shows counts, returns, the frequency of every action and a health check of the shards in DIRECTORY, in either
    layout, or at a URL such as s3://bucket/folder, which are fetched into the cache. The page also shows lengths,
    rewards and observations, and explains each warning; it is one self-contained file.
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
        from offrl.shards._file_systems import redacted

        title = directory.resolve().name if isinstance(directory, Path) else redacted(directory)
        write_dataset_page(store, html, title=title, summary=summary)
        text += f"\n\npage         {html}"
    show(summary.to_dict(), as_json, text=text)


_table_options = options(
    option("--episode-column", "episode", help="Tables: the episode of a row; default: episode."),
    option("--observation-columns", "observations", help="Tables: a list or a pattern; default: 'observation_*'."),
    option("--action-column", "action", help="Tables: a number from 0 or a name; default: action."),
    option("--reward-column", "reward", help="Tables: default: reward."),
    option("--step-column", "step", help="Tables: the order of an episode's rows; default: step, where it exists."),
    option("--probability-column", "probability", help="Tables: of the action, when it was chosen; default: likewise."),
    option("--legal-columns", "legal", help="Tables: a list or a pattern; default: 'legal_*', where they exist."),
    option("--terminated-column", "terminated", help="Tables: whether the row ended the task; default: likewise."),
    option("--truncated-column", "truncated", help="Tables: whether it was cut (a time limit); default: likewise."),
)


@click.command(short_help="Rewrite a dataset as frames, stacked, or in Minari's or d3rlpy's format.")
@argument("source")
@argument("target")
@option("--to", type=click.Choice(["frames", "stacked", "minari", "d3rlpy"]), help="The target's format.")
@option("--dedupe", is_flag=True, help="Store each frame that stacks share once; same as --to frames.")
@option("--stack", type=click.IntRange(1), help="Frames of Minari's or d3rlpy's in an observation; default: 4.")
@option("--action-names", help="A list, for data that does not say its task; default: the table's, or action 0, ...")
@option("--compress/--no-compress", default=True, show_default=True, help="Compress the target (never Minari's).")
@task_options
@_table_options
@output_options
def convert(
    source: str,
    target: str,
    to: Format | None,
    dedupe: bool,
    stack: int | None,
    action_names: str | None,
    compress: bool,
    environment: str | None,
    hud: str | None,
    dones: Dones,
    skip_bad_shards: bool,
    as_json: bool,
    quiet: bool,
    **columns: str | None,
) -> None:
    """Example: offrl convert data/course-shards data/frames --to frames

    SOURCE is a directory of shards in either layout, a dataset of Minari's (its directory, or minari:ID), an HDF5 file
    of d3rlpy's, or a table (.csv, .parquet); the last three become frames first. The frames layout holds each frame
    that stacks share once. TARGET must be new; no partial target is left behind. Shows the sizes before and after.

    Nothing in a file of d3rlpy's says of which environment it is: with --env, the dataset does, and train
    --evaluate-every and evaluate need not be told again. Without it, single frames become stacks of --stack, and the
    actions are as many as occur.

    A row of a table is one decision. With neither a terminated nor a truncated column, every episode terminates in its
    last row. A truncated episode loses its last step, unless one more row, with an empty action, says what it led to.
    """
    from offrl.datasets.conversion import convert as convert_dataset
    from offrl.datasets.tables import TableColumns

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
    given: dict[str, Any] = {name: column for name, column in columns.items() if column is not None}
    say_on_interrupt("interrupted; nothing was written")
    found = convert_dataset(
        source,
        target,
        to,
        spec=spec,
        dones=dones,
        columns=TableColumns(**given) if given else None,
        stack=stack,
        action_names=None if action_names is None else tuple(map(str.strip, action_names.split(","))),
        skip_bad_shards=skip_bad_shards,
        environment=about,
        compress=compress,
        progress=not quiet,
    )
    show(found.to_dict(), as_json, text=found.to_text())


def size(text: str) -> int:
    """Bytes, from 500M or 1.5G."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


@click.command(short_help="Download a dataset, or copy it from a path.")
@argument("source", metavar="URL|PATH")
@argument("directory", type=PATH)
@option("--sha256", help="Checksum of the file, verified before it is unpacked.")
@option("--max-size", type=size, default="10G", show_default=True, help="Refuse a larger file.")
@option("--max-unpacked", type=size, default="100G", show_default=True, help="Refuse a larger unpacked size.")
@option("--max-members", type=click.IntRange(1), default=100_000, show_default=True, help="Refuse more files.")
@option(
    "--max-ratio",
    type=float,
    default=200.0,
    show_default=True,
    help="Refuse a larger ratio of the two sizes.",
)
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
    DIRECTORY appears only when it is complete. A complete download is not repeated; after ctrl-C, the same command
    continues.
    """
    from offrl.shards.download import MARKER_NAME
    from offrl.shards.download import fetch as fetch_dataset
    from offrl.system.json_files import read_json

    say_on_interrupt("interrupted; the same command continues from here")
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
    marker = read_json(found / MARKER_NAME)
    show({"directory": str(directory), **marker}, as_json)
