"""`offrl plot` and `offrl report`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click import argument, option

from offrl.cli.actors import load_actor
from offrl.cli.console import (
    DATA,
    PATH,
    device_option,
    environment_option,
    hud_option,
    json_option,
    output_options,
    show,
)
from offrl.cli.fields import setting_groups
from offrl.cli.names import ALGORITHMS, network_options
from offrl.cli.request import LENGTHS, Request, is_data_there, open_data, recorded_request
from offrl.cli.settings import format_value
from offrl.errors import ConfigError, OfflineRLError, SpecMismatchError

if TYPE_CHECKING:
    from offrl.replay.store import FrameStore


@click.command(short_help="Draw the curves of runs, or an episode from inside.")
@argument("runs", nargs=-1, required=True, type=PATH)
@option("--out", required=True, type=PATH, help="The PNG file.")
@option(
    "--metric",
    "metrics",
    multiple=True,
    default=["loss"],
    show_default=True,
    help="A column of metrics.csv; repeatable.",
)
@option("--episode", type=click.IntRange(0), metavar="SEED", help="Draw the q of one RUN along this episode instead.")
@environment_option
@hud_option
@network_options
@device_option
@json_option
def plot(
    runs: tuple[Path, ...],
    out: Path,
    metrics: tuple[str, ...],
    episode: int | None,
    environment: str | None,
    hud: str | None,
    algorithm: str | None,
    encoder: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Example: offrl plot runs/* --metric loss --metric q --out curves.png

    Compares RUNS, each a run or a directory of runs. Runs that differ in nothing but their seed share a line: their
    mean, and its 95 % bootstrap interval. With --episode: the best scores of one RUN at each step, the actions that
    it took, in words, and how many it chose from.
    """
    from offrl.report import plots
    from offrl.report.compare import find_runs, group_runs
    from offrl.report.metrics import read_metrics

    if episode is None:
        groups = group_runs([run for directory in runs for run in find_runs(directory)])
        tables = {label: [read_metrics(run / "metrics.csv") for run in group] for label, group in groups.items()}
        plots.plot_comparison(tables, metrics, out)
        shown = {label: [str(run) for run in group] for label, group in groups.items()}
        lines = "\n".join(f"{label}: {', '.join(group)}" for label, group in shown.items())
        show({"file": str(out), "groups": shown}, as_json, text=f"{out}\n{lines}")
        return
    from offrl.evaluation.trace import trace_episode

    if len(runs) > 1:
        raise ConfigError(f"{len(runs)} runs beside --episode", where="plot", expected="one")
    actor = load_actor(runs[0], algorithm=algorithm, encoder=encoder, device=device, environment=environment, hud=hud)
    trace = trace_episode(actor.policy, actor.make_env, episode)
    plots.plot_episode(trace.scores, trace.allowed, trace.actions, actor.policy.spec.action_names, out)
    show({"file": str(out), "seed": episode, "score": trace.score, "length": len(trace.actions)}, as_json)


@click.command(short_help="Write a page about a run, to read or to send.")
@argument("run", type=PATH)
@option("--out", type=PATH, help="The HTML file; default: RUN/report.html.")
@option("--data", type=DATA, help="The dataset's directory or URL, where the run does not say it, or it was moved.")
@output_options
def report(run: Path, out: Path | None, data: Path | str | None, as_json: bool, quiet: bool) -> None:
    """Example: offrl report runs/bcq-001

    Writes one HTML file that needs nothing beside itself: scores (of RUN/evaluation.json, which evaluate --out
    writes), curves, videos (of RUN/videos), the dataset, settings, machine, and what to type to make it again. RUN
    may also be a directory of runs, which are compared.
    """
    from offrl.report.compare import find_runs
    from offrl.report.page import write_report
    from offrl.training.runs import read_run_config

    runs = find_runs(run)
    requests = [recorded_request(path) for path in runs]
    inits = [read_run_config(path).get("init") for path in runs]
    commands = [training_command(request, init) for request, init in zip(requests, inits, strict=True)]
    dataset = _dataset(runs, data, quiet)
    path = write_report(run, out, dataset=dataset, commands=commands)
    show({"file": str(path), "megabytes": path.stat().st_size / 2**20, "with_dataset": dataset is not None}, as_json)


def _dataset(runs: Sequence[Path], data: Path | str | None, quiet: bool) -> FrameStore | None:
    """What the runs were trained on, where that is still there and still the same."""
    from dataclasses import replace

    from offrl.shards._file_systems import redacted
    from offrl.shards.manifest import MANIFEST_NAME
    from offrl.shards.remote import local_copy
    from offrl.training.runs import read_run_config

    request = recorded_request(runs[0])
    if data is not None:
        directory = local_copy(data, skip_bad_shards=request.skip_bad_shards, progress=not quiet)
        is_untold = request.data is None and not (directory / MANIFEST_NAME).exists()
        request = replace(request, data=str(data), task_given=request.task_given or is_untold)
    elif not is_data_there(request):
        return None
    try:
        replay = open_data(request, progress=not quiet)
        recorded = read_run_config(runs[0]).get("dataset")
        if replay.fingerprint != recorded:
            raise SpecMismatchError(
                f"is {replay.fingerprint}",
                where=redacted(request.data or ""),
                expected=f"{recorded}, which the run was trained on",
            )
        return replay.store
    except OfflineRLError as error:
        if data is not None:
            raise
        click.echo(f"warning: without the dataset: {error}", err=True)
        return None


def training_command(request: Request, init: str | None) -> str:
    """What to type to make the run again; settings that have their default are left out.

    Args:
        request: as `recorded_request` gives it.
        init: the checkpoint that the first weights came from.
    """
    words = ["offrl", "train", request.data or "DIRECTORY", "--algorithm", request.algorithm]
    if request.encoder is not None:
        words += ["--encoder", request.encoder]
    if request.task_given and request.environment is not None:
        words += ["--env", request.environment]
        if request.task is not None and request.task.hud is not None:
            words += ["--hud", request.task.hud]
    if init is not None:
        words += ["--init", init]
    if request.dones != "terminated":
        words += ["--dones", request.dones]
    if request.skip_bad_shards:
        words += ["--skip-bad-shards"]
    # The defaults of a class that a file names are not known: that class is not loaded.
    known = setting_groups(request.algorithm if request.algorithm in ALGORITHMS else "bcq")
    if request.algorithm not in ALGORITHMS:
        known["algorithm"] = {}
    for group, values in request.settings.items():
        for name, value in values.items():
            if name in known[group] and value == known[group][name].default:
                continue
            text = format_value(value)
            words += [f"--{name}", text] if name in LENGTHS else ["--set", f"{name}={text}"]
    return shlex.join(words)
