"""`offrl train`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import click
from click import argument, option

from offrl.cli.console import DATA, PATH, device_option, output_options, say_on_interrupt, show, task_options
from offrl.cli.names import named_task, network_options
from offrl.cli.request import (
    MOST_THREADS,
    Request,
    build_algorithm,
    data_location,
    find_checkpoint,
    open_data,
    parse_training,
    read_request,
    recorded_environment,
    require_same_task,
)
from offrl.errors import ConfigError


@click.command(short_help="Train a policy on a dataset.")
@argument("directory", metavar="[DIRECTORY|URL]", type=DATA, required=False)
@network_options
@option("--updates", type=click.IntRange(1), help="Gradient steps; give these or --epochs.")
@option("--epochs", type=float, help="Epochs of transitions / batch_size updates, such as 10 or 0.5.")
@option("--set", "assignments", multiple=True, metavar="FIELD=VALUE", help="Any setting; repeatable.")
@option("--run", type=PATH, help="A new directory; default: the next free runs/ALGORITHM-NNN.")
@option("--resume", type=PATH, metavar="RUN", help="Go on with a run that was stopped; all else is as it was.")
@option("--init", type=PATH, metavar="POLICY", help="A run or checkpoint to take the first weights from.")
@task_options
@device_option
@option("--threads", type=click.IntRange(1, MOST_THREADS), help="Number of torch threads; default: torch's own choice.")
@output_options
def train(
    directory: Path | str | None,
    algorithm: str | None,
    encoder: str | None,
    updates: int | None,
    epochs: float | None,
    assignments: tuple[str, ...],
    run: Path | None,
    resume: Path | None,
    init: Path | None,
    environment: str | None,
    hud: str | None,
    dones: str,
    skip_bad_shards: bool,
    device: str | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl train data/carracing --updates 7000 --set n_step=10

    Trains discrete BCQ, or another --algorithm, on the shards in DIRECTORY, in either layout, or at a URL such as
    s3://bucket/folder, which are fetched into the cache. --set takes the fields of the algorithm's config, of
    LearnerConfig (learning_rate, schedule, ...), of FitConfig (batch_size, ...) and of the replay (n_step, discount,
    reward_scale, sampling, held_out, seed, tier, ...); an unknown one lists them all. Ctrl-C stops the run with a
    checkpoint to resume from.
    """
    import torch

    from offrl.training.checkpoint import checkpoints, latest_checkpoint
    from offrl.training.config import LearnerConfig
    from offrl.training.loop import FitConfig, fit
    from offrl.training.runs import create_run

    lengths = [f"{name}={value}" for name, value in (("updates", updates), ("epochs", epochs)) if value is not None]
    settings = [*lengths, *assignments]
    if resume is not None:
        other_dones = None if dones == "terminated" else dones
        _refuse_settings(
            {
                "--run": run,
                "--init": init,
                "--env": environment,
                "--hud": hud,
                "--dones": other_dones,
                "--skip-bad-shards": skip_bad_shards or None,
            },
            settings,
        )
        request = read_request(resume, algorithm, encoder)
        if directory is not None:  # the data was moved; fit checks that it is the same
            request = replace(request, data=data_location(directory))
    elif directory is None:
        raise ConfigError("no DIRECTORY", where="train", expected="a dataset", hint="name the directory of its shards")
    else:
        algorithm = algorithm or "bcq"
        task = named_task(environment, hud)
        request = Request(
            algorithm=algorithm,
            encoder=encoder,
            settings=parse_training(algorithm, settings),
            data=data_location(directory),
            environment=environment
            or recorded_environment(directory, skip_bad_shards=skip_bad_shards, progress=not quiet),
            task=task,
            task_given=task is not None,
            dones=dones,
            skip_bad_shards=skip_bad_shards,
        )
    if threads or request.threads:
        torch.set_num_threads(threads or request.threads or 1)
    request = replace(request, device=device or request.device, threads=torch.get_num_threads())
    config, learner_config = FitConfig(**request.settings["fit"]), LearnerConfig(**request.settings["learner"])
    replay = open_data(request, progress=not quiet)
    model = build_algorithm(request, replay.spec)
    checkpoint = None if init is None else find_checkpoint(init)
    if checkpoint is not None:
        require_same_task(checkpoint, replay.spec)

    named = resume or run
    target = named or create_run("runs", model.name)
    try:
        learner = fit(
            model,
            replay,
            config,
            learner=learner_config,
            run=target,
            resume=resume is not None,
            init=checkpoint,
            loggers=[] if quiet else None,
            device=request.device,
            notes=request.notes(),
        )
    except KeyboardInterrupt:
        if checkpoints(target / "checkpoints"):
            say_on_interrupt(f"interrupted; go on with: offrl train --resume {target}")
        raise
    finally:
        for made in () if named else (target, target.parent):  # stays empty where fit refuses its settings
            with suppress(OSError):
                made.rmdir()
    result = {
        "run": str(target),
        "checkpoint": str(latest_checkpoint(target / "checkpoints")),
        "updates": learner.step,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    show({**result, **_last_metrics(target / "metrics.csv")}, as_json)


def _refuse_settings(options: Mapping[str, object], settings: Sequence[str]) -> None:
    """A resumed run keeps its settings."""
    given = [*(name for name, value in options.items() if value is not None), *settings]
    if given:
        raise ConfigError(
            f"{', '.join(given)} beside --resume",
            where="train",
            expected="the run's own settings",
            hint="leave them out, or start a new run with --init",
        )


def _last_metrics(path: Path) -> dict[str, float]:
    """The last row of a run's metrics.csv."""
    with path.open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return {name: float(value) for name, value in last.items() if name != "step"}
