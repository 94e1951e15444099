"""`offrl plot`, `offrl record` and `offrl report`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from numpy.typing import NDArray

    from offrl.replay.store import FrameStore

_NUM_ENVS = 20  # as `offrl evaluate` plays by default: a batch of another size rounds differently


@click.command(short_help="Plot learning curves of runs, or one episode step by step.")
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


@click.command(short_help="Record an episode as a video.")
@argument("policy", type=PATH)
@argument("out", metavar="OUT.mp4", type=PATH)
@option("--seed", type=click.IntRange(0), help="Of the episode; default: the first one that evaluate plays.")
@option("--max-steps", type=click.IntRange(1), help="Stop there; default: play to the end.")
@option("--plain", is_flag=True, help="The picture alone, without what the policy thinks.")
@environment_option
@hud_option
@network_options
@device_option
@output_options
def record(
    policy: Path,
    out: Path,
    seed: int | None,
    max_steps: int | None,
    plain: bool,
    environment: str | None,
    hud: str | None,
    algorithm: str | None,
    encoder: str | None,
    device: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl record runs/bcq-001 runs/bcq-001/videos/first.mp4 --seed 2000000

    POLICY is a run (its latest checkpoint), a checkpoint's directory, or an ONNX file. Films one episode in the
    environment's own speed, with the score that evaluate gives for its seed. Beside the picture: the action in words,
    and a bar for the score (q) of each action, hatched where the policy does not allow the action. All bars have one
    scale, for which the episode is played once before.
    """
    from tqdm import tqdm

    from offrl.envs.seeds import SCORE_SEEDS
    from offrl.report.overlay import ActionPanel
    from offrl.report.video import record_episode

    seed = SCORE_SEEDS.start if seed is None else seed
    actor = load_actor(
        policy,
        algorithm=algorithm,
        encoder=encoder,
        device=device,
        environment=environment,
        hud=hud,
        pictures=True,
    )
    panel = None if plain else ActionPanel.of_episode(actor.policy, actor.make_env, seed, max_steps=max_steps)
    with tqdm(desc="record", unit=" steps", disable=True if quiet else None) as bar:

        def act(observation: NDArray[Any]) -> NDArray[Any]:
            bar.update()
            return actor.policy(observation)

        recording = record_episode(
            act, actor.make_env, seed, out, fps=actor.fps, max_steps=max_steps, num_envs=_NUM_ENVS, panel=panel
        )
    show({"file": str(out), "seed": seed, **recording._asdict()}, as_json)


@click.command(short_help="Write an HTML report of a run.")
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
