"""`offrl fetch`, `offrl convert` and `offrl inspect`."""

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
    options,
    output_options,
    say_on_interrupt,
    show,
    task_options,
)
from offrl.cli.names import named_task, task_of
from offrl.errors import ConfigError
from offrl.system.files import parse_size

if TYPE_CHECKING:
    from offrl.datasets.conversion import Format
    from offrl.datasets.coverage import References
    from offrl.replay.store import FrameStore
    from offrl.shards.layouts import Dones


@click.command(short_help="Summarise and check a dataset.")
@argument("directory", metavar="DIRECTORY|URL", type=DATA)
@option("--html", type=FILE, help="Also write a page with plots, as one HTML file.")
@option("--sampling", default="uniform", help="Also show what this strategy samples, such as top-returns:0.1.")
@option("--reference", type=DATA, help="The replay dataset that TQ and SACo refer to; default: as DIRECTORY says.")
@task_options
@output_options
def inspect(
    directory: Path | str,
    html: Path | None,
    sampling: str,
    reference: Path | str | None,
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
    rewards and observations, and explains each warning; it is one self-contained file. TQ and SACo (arXiv:2111.04714)
    compare the return with random actions and with the best policy found online, and the state-action pairs with those
    of the --reference; the datasets of collect --kind know both.
    """
    from offrl.datasets.coverage import References
    from offrl.datasets.summary import inspect_dataset
    from offrl.replay.ingestion import ingest
    from offrl.shards.remote import local_copy

    spec = named_task(environment, hud)
    reading: dict[str, Any] = {"dones": dones, "skip_bad_shards": skip_bad_shards, "progress": not quiet}
    store = ingest(directory, spec=spec, tier="mmap", **reading)
    references = References.of_directory(local_copy(directory, skip_bad_shards=skip_bad_shards, progress=not quiet))
    if reference is not None:
        references = _references(reference, store, progress=not quiet)
    summary = inspect_dataset(store, sampling, references=references, progress=not quiet)
    text = summary.to_text()
    if html is not None:
        from offrl.report.dataset_page import write_dataset_page
        from offrl.shards._file_systems import redacted

        title = directory.resolve().name if isinstance(directory, Path) else redacted(directory)
        write_dataset_page(store, html, title=title, summary=summary)
        text += f"\n\npage         {html}"
    show(summary.to_dict(), as_json, text=text)


def _references(reference: Path | str, store: FrameStore, *, progress: bool) -> References:
    """What the dataset `reference` says of itself, and its state-action pairs, counted where it does not say them.

    Raises:
        DatasetError: no dataset, or a damaged one.
        SpecMismatchError: it is of another task than `store`.
    """
    from offrl.datasets.coverage import References
    from offrl.replay.ingestion import ingest
    from offrl.shards.remote import local_copy

    other = ingest(reference, tier="mmap", progress=progress)
    store.spec.require_same(other.spec, where=reference, hint="name a dataset of the same task", legal_actions=False)
    known = References.of_directory(local_copy(reference, progress=progress))
    return References.of_store(other, progress=progress) if known.num_pairs is None else known


_table_options = options(
    option("--episode-column", "episode", help="Tables: the episode of a row; default: episode."),
    option("--observation-columns", "observations", help="Tables: a list or a pattern; default: 'observation_*'."),
    option("--action-column", "action", help="Tables: a number from 0 or a name; default: action."),
    option("--reward-column", "reward", help="Tables: default: reward."),
    option("--step-column", "step", help="Tables: the order of an episode's rows; default: step, where it exists."),
    option(
        "--probability-column",
        "probability",
        help="Tables: of the action taken; default: probability, where it exists.",
    ),
    option("--legal-columns", "legal", help="Tables: a list or a pattern; default: 'legal_*', where they exist."),
    option(
        "--terminated-column",
        "terminated",
        help="Tables: the task ended there; default: terminated, where it exists.",
    ),
    option(
        "--truncated-column",
        "truncated",
        help="Tables: a time limit cut it there; default: truncated, where it exists.",
    ),
)


@click.command(short_help="Rewrite a dataset as frames, stacked, or in Minari's or d3rlpy's format.")
@argument("source")
@argument("target")
@option(
    "--to", type=click.Choice(["frames", "stacked", "minari", "d3rlpy"]), help="The target's format; default: frames."
)
@option("--dedupe", is_flag=True, help="Store each frame that stacks share once; same as --to frames.")
@option("--stack", type=click.IntRange(1), help="Frames of Minari's or d3rlpy's in an observation; default: 4.")
@option("--action-names", help="A list, for data that does not say its task; default: the table's, or action 0, ...")
@option("--like", type=DATA, metavar="DATASET|RUN", help="Take the task of it: names, order and scale of features.")
@option("--standardise", is_flag=True, help="Let policies see vectors by each feature's mean and deviation.")
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
    like: Path | str | None,
    standardise: bool,
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
    of d3rlpy's, or a table (.csv, .parquet, or a directory of them); the last three become frames first. The frames
    layout holds each frame that stacks share once. TARGET must be new; no partial target is left behind. Shows the
    sizes before and after.

    Nothing in a file of d3rlpy's says of which environment it is: with --env, the dataset does, and train
    --evaluate-every and evaluate need not be told again. Without it, single frames become stacks of --stack, and the
    actions are as many as occur.

    --standardise leaves vectors as they are and writes down what networks make of them: each feature less its mean,
    divided by its standard deviation over all steps. Policies do so by themselves, also in ONNX files. Data that
    is logged later becomes the same task with --like DATASET, also where its columns stand in another order.

    A row of a table is one decision. With neither a terminated nor a truncated column, every episode terminates in its
    last row. A truncated episode loses its last step, unless one more row, with an empty action, says what it led to.
    """
    from offrl.datasets.conversion import convert as convert_dataset
    from offrl.datasets.tables import TableColumns

    if dedupe and to not in (None, "frames"):
        raise ConfigError(f"--dedupe beside --to {to}", where="convert", expected="--to frames", hint="leave one out")
    if like is not None and environment is not None:
        raise ConfigError("--like beside --env", where="convert", expected="one of them", hint="leave one out")
    spec = named_task(environment, hud) if like is None else task_of(like)
    about = None
    if environment is not None and spec is not None:
        about = {"id": environment, **({} if spec.hud is None else {"hud": spec.hud})}
    given: dict[str, Any] = {name: column for name, column in columns.items() if column is not None}
    say_on_interrupt("interrupted; nothing was written")
    found = convert_dataset(
        source,
        target,
        to or "frames",
        spec=spec,
        dones=dones,
        columns=TableColumns(**given) if given else None,
        stack=stack,
        action_names=None if action_names is None else tuple(map(str.strip, action_names.split(","))),
        skip_bad_shards=skip_bad_shards,
        environment=about,
        standardise=standardise,
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
    marker.pop("files", None)  # as many lines as there are files
    known = {name: value for name, value in marker.items() if value is not None}
    show({"directory": str(directory), **(marker if as_json else known)}, as_json)
