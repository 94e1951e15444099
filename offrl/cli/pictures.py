"""`offrl plot` and `offrl report`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
    refuse_beside,
    show,
    warn,
)
from offrl.cli.logged import is_data_there, named_store, recorded_store
from offrl.cli.names import ALGORITHMS, network_options
from offrl.cli.request import LENGTHS, Request, recorded_request
from offrl.cli.settings import format_value, setting_groups
from offrl.errors import ConfigError, OfflineRLError, RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from offrl.replay.store import FrameStore


@click.command(short_help="Plot learning curves of runs, or one episode step by step.")
@argument("runs", nargs=-1, required=True, type=PATH)
@option("--out", required=True, type=PATH, help="The PNG file.")
@option(
    "--metric",
    "metrics",
    multiple=True,
    default=["loss"],
    show_default=True,
    help="A column of metrics.csv, or score, that of train --evaluate-every (evaluations.csv); repeatable.",
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
    """Example: offrl plot runs/* --metric score --metric loss --out curves.png

    Compares RUNS, each a run or a directory of runs. Runs that differ in nothing but their seed share a line, their
    mean, and a band from the lowest to the highest of them. --metric score draws the return against updates, as train
    --evaluate-every played it (on seeds for tuning), with the 95 % t interval over training seeds. Runs with the same
    seed count once, and runs without a metric are left out; both are named.

    With --episode: the best scores of one RUN at each step, the actions that it took, in words, and how many it chose
    from.
    """
    from offrl.report import plots, progress

    if out.suffix.lower() != ".png":
        name = out.with_suffix(".png").name
        raise ConfigError(f"a picture named {out.name}", where="--out", expected="a PNG", hint=f"name it {name}")
    if episode is None:
        given = {"--env": environment, "--hud": hud, "--device": device}
        given |= {"--algorithm": algorithm, "--encoder": encoder}
        refuse_beside("curves", given, where="plot", expected="--episode, which plays")
        compared = _compare(runs, metrics)
        progress.plot_comparison(compared.tables, metrics, out, evaluations=compared.evaluations)
        lines = [f"{label}: {', '.join(group)}" for label, group in compared.groups.items()]
        found = {"file": str(out), "groups": compared.groups, "left_out": compared.left_out}
        show(found, as_json, text="\n".join([str(out), *lines, *compared.left_out]))
        return
    from offrl.evaluation.trace import trace_episode

    if len(runs) > 1:
        raise ConfigError(f"{len(runs)} runs beside --episode", where="plot", expected="one")
    actor = load_actor(runs[0], algorithm=algorithm, encoder=encoder, device=device, environment=environment, hud=hud)
    trace = trace_episode(actor.policy, actor.make_env, episode)
    plots.plot_episode(trace.scores, trace.allowed, trace.actions, actor.policy.spec.action_names, out)
    show({"file": str(out), "seed": episode, "score": trace.score, "length": len(trace.actions)}, as_json)


class _Compared(NamedTuple):
    tables: dict[str, list[dict[str, NDArray[Any]]]]
    evaluations: dict[str, list[dict[str, NDArray[Any]]]]
    groups: dict[str, list[str]]
    left_out: list[str]


def _compare(directories: Sequence[Path], metrics: Sequence[str]) -> _Compared:
    """The runs in these directories in groups, with their metrics; and a line for each that is not drawn."""
    from offrl.report.compare import find_runs, group_runs, one_run_per_seed
    from offrl.report.metrics import read_metrics

    found, left_out = [], []
    for directory in directories:
        if len(directories) > 1 and directory.is_file():  # runs/* names report.html, too
            continue
        try:
            found += find_runs(directory)
        except RunError as error:  # ... and a folder of plots
            if len(directories) == 1:
                raise
            left_out.append(f"{error}: left out")
    if not found:
        raise RunError("no runs here", where=", ".join(map(str, directories)), expected="one run or more")
    runs, repeated = one_run_per_seed(found)
    left_out += [_repeated_text(run, taken) for run, taken in repeated.items()]
    tables, evaluations = (
        {run: read_metrics(run / name) if (run / name).exists() else {} for run in runs}
        for name in ("metrics.csv", "evaluations.csv")
    )
    for run in runs:
        missing = [metric for metric in metrics if metric not in {**tables[run], **evaluations[run]}]
        if missing:
            where = "out" if len(missing) == len(metrics) else "out of that panel"
            left_out.append(f"{run} has no {' and no '.join(map(repr, missing))}: left {where}")
    drawn = [run for run in runs if any(metric in {**tables[run], **evaluations[run]} for metric in metrics)] or runs
    groups = group_runs(drawn)
    return _Compared(
        {label: [tables[run] for run in group] for label, group in groups.items()},
        {label: [evaluations[run] for run in group] for label, group in groups.items()},
        {label: [str(run) for run in group] for label, group in groups.items()},
        left_out,
    )


def _repeated_text(run: Path, taken: Path) -> str:
    return f"{run} has the settings and the seed of {taken}, which is newer: left out"


@click.command(short_help="Write an HTML report of a run.")
@argument("run", type=PATH)
@option("--out", type=PATH, help="The HTML file; default: RUN/report.html.")
@option("--data", type=DATA, help="The dataset's directory or URL, where the run does not say it, or it was moved.")
@output_options
def report(run: Path, out: Path | None, data: Path | str | None, as_json: bool, quiet: bool) -> None:
    """Example: offrl report runs/bcq-001

    Writes one HTML file that needs nothing beside itself: scores (of RUN/evaluation.json, which evaluate --out
    writes), curves, videos (of RUN/videos), the dataset, settings, machine, and the commands to reproduce it. RUN
    may also be a directory of runs, which are compared: those that differ in nothing but their seed are one row, with
    the mean over their training seeds and its 95 % interval. The table of scores and the paired differences are
    printed as well.
    """
    from offrl.report.compare import find_runs, one_run_per_seed
    from offrl.report.page import write_report
    from offrl.report.scores import score_table
    from offrl.runs.files import read_run_config

    runs, repeated = one_run_per_seed(find_runs(run))
    left_out = [_repeated_text(each, taken) for each, taken in repeated.items()]
    for line in left_out:
        warn(line)
    requests = [recorded_request(path) for path in runs]
    inits = [read_run_config(path).get("init") for path in runs]
    commands = [training_command(request, init) for request, init in zip(requests, inits, strict=True)]
    dataset = _dataset(runs, data, quiet)
    path = write_report(run, out, dataset=dataset, commands=commands)
    table = score_table(run, dataset=dataset)
    megabytes = path.stat().st_size / 2**20
    found = {"file": str(path), "megabytes": megabytes, "with_dataset": dataset is not None}
    about = f"{path}  {max(megabytes, 0.1):.1f} MB, {'with' if dataset is not None else 'without'} the dataset"
    shown = {**found, **table.to_dict(), **({"left_out": left_out} if as_json else {})}
    show(shown, as_json, text=f"{table.to_text()}\n\n{about}")


def _dataset(runs: Sequence[Path], data: Path | str | None, quiet: bool) -> FrameStore | None:
    """What all runs were trained on: as the user names it, or where it is still there and still the same."""
    from offrl.runs.files import read_run_config

    request = recorded_request(runs[0])
    if len({read_run_config(path).get("dataset") for path in runs}) > 1:
        warn("without the dataset: the runs were trained on different ones")
        return None
    if data is not None:
        return named_store(request, data, runs[0], progress=not quiet)
    if not is_data_there(request):
        why = "the run does not say where its data is" if request.data is None else f"{request.data} is not there"
        warn(f"without the dataset: {why}; name it with --data")
        return None
    try:
        return recorded_store(request, runs[0], progress=not quiet)
    except OfflineRLError as error:
        warn(f"without the dataset: {error}")
        return None


def training_command(request: Request, init: str | None) -> str:
    """What to type to make the run again; settings that have their default are left out.

    Args:
        request: as `recorded_request` gives it.
        init: the checkpoint that the first weights came from.
    """
    words = ["offrl", "train", request.data or "DIRECTORY", "--algorithm", _importable(request.algorithm)]
    if request.encoder is not None:
        words += ["--encoder", _importable(request.encoder)]
    if request.task_given and request.environment is not None:
        words += ["--env", request.environment]
        if request.task is not None and request.task.hud is not None:
            words += ["--hud", request.task.hud]
    if init is not None:
        words += ["--init", init]
    if request.algorithm_seed not in (None, request.settings["replay"].get("seed", 0)):
        words += ["--algorithm-seed", str(request.algorithm_seed)]
    if request.dones != "terminated":
        words += ["--dones", request.dones]
    if request.skip_bad_shards:
        words += ["--skip-bad-shards"]
    # An evaluator of the user's own, in Python, plays what it likes: the command line has none of these.
    if request.evaluate_every is not None and request.evaluate_episodes > 0:
        words += ["--evaluate-every", str(request.evaluate_every)]
        words += ["--evaluate-episodes", str(request.evaluate_episodes)]
    if request.selection is not None and isinstance(names := request.selection.get("statistics"), list):
        words += ["--select", ",".join(map(str, names))]
        for option_name, name in (("--keep-best", "keep_best"), ("--patience", "patience")):
            if (value := request.selection.get(name)) is not None:
                words += [option_name, str(value)]
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


def _importable(name: str) -> str:
    """A class as it is named on the command line; of one from a script or notebook the module is left to the user."""
    return re.sub("^__main__:", "MODULE:", name)
