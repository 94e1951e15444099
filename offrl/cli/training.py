"""`offrl train`."""

# ruff: noqa: D415  (the help of a command begins with an example)

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click import argument, option

from offrl.cli.console import DATA, PATH, device_option, output_options, say_on_interrupt, show, task_options
from offrl.cli.logged import data_location, open_training_data
from offrl.cli.names import STATISTICS, named_task, network_options
from offrl.cli.request import (
    Request,
    build_algorithm,
    build_selection,
    episode_evaluator,
    parse_training,
    read_request,
)
from offrl.cli.settings import complete_setting
from offrl.cli.side_by_side import CHOSEN, Seeds, refuse_other_seeds, train_side_by_side
from offrl.errors import ConfigError, RunError
from offrl.system.torchrun import join, stay_alone, was_begun_by_this_launcher, with_rank
from offrl.system.workers import MOST_THREADS

if TYPE_CHECKING:
    from offrl.runs.loggers import Logger

_EPISODES = 20


@click.command(short_help="Train a policy on a dataset.")
@argument("directory", metavar="[DIRECTORY|URL]", type=DATA, required=False)
@network_options
@option("--updates", type=click.IntRange(1), help="Gradient steps; give these or --epochs.")
@option("--epochs", type=float, help="Epochs of transitions / batch_size updates, such as 10 or 0.5.")
@option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FIELD=VALUE",
    shell_complete=complete_setting,
    help="Any setting; repeatable.",
)
@option("--stream", metavar="SIZE", help="For data larger than the disk: a cache of so many bytes, such as 20G.")
@option(
    "--evaluate-every",
    metavar="PERIOD",
    help="Play episodes while training, every so many updates or 1epoch; on seeds for tuning.",
)
@option("--evaluate-episodes", type=click.IntRange(1), help=f"Default: {_EPISODES}.")
@option(
    "--select",
    "statistics",
    metavar="NAMES",
    help=f"Statistics on held-out episodes for metrics.csv, of which the first chooses: {', '.join(STATISTICS)}.",
)
@option("--keep-best", type=click.IntRange(1), help="Keep only so many checkpoints by --select, and the newest two.")
@option("--patience", type=click.IntRange(1), help="End the run after so many rows of metrics without a better one.")
@option("--logger", "logger_names", multiple=True, type=click.Choice(["tensorboard", "wandb"]), help="Log there, too.")
@option("--run", type=PATH, help="A new directory, such as runs/bcq-{time}; default: the next free runs/ALGORITHM-NNN.")
@option("--resume", type=PATH, metavar="RUN", help="Continue a run; it may become longer, all else is as it was.")
@option("--algorithm-seed", type=click.IntRange(0), help="Of the first weights; default: that of --set seed=SEED.")
@option("--init", type=PATH, metavar="POLICY", help="A run or checkpoint to take the first weights from.")
@task_options
@device_option
@option("--threads", type=click.IntRange(1, MOST_THREADS), help="Of torch; default: what is measured to be fastest.")
@option("--seeds", type=Seeds(), help="Several runs side by side, such as 0,1,2; --run names their folder.")
@option("--continue", "goes_on", is_flag=True, hidden=True)  # with --run: whether or not it is there already
@output_options
def train(
    directory: Path | str | None,
    algorithm: str | None,
    encoder: str | None,
    updates: int | None,
    epochs: float | None,
    assignments: tuple[str, ...],
    stream: str | None,
    evaluate_every: str | None,
    evaluate_episodes: int | None,
    statistics: str | None,
    keep_best: int | None,
    patience: int | None,
    logger_names: tuple[str, ...],
    run: Path | None,
    resume: Path | None,
    algorithm_seed: int | None,
    init: Path | None,
    environment: str | None,
    hud: str | None,
    dones: str,
    skip_bad_shards: bool,
    device: str | None,
    threads: int | None,
    seeds: tuple[int, ...] | None,
    goes_on: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Example: offrl train data/carracing --updates 7000 --set n_step=3

    Trains discrete BCQ, or another --algorithm, on the shards in DIRECTORY, in either layout, or at a URL such as
    s3://bucket/folder, which are fetched into the cache. --set takes the fields of the algorithm's config, of
    LearnerConfig (learning_rate, schedule, ...), of FitConfig (batch_size, ...) and of the replay (n_step, discount,
    reward_scale, sampling, held_out, seed, tier, ...); an unknown one lists them all. With --stream the shards pass
    through a cache of limited size, and never lie here all at once. Ctrl-C stops the run with a
    checkpoint to resume from. With --evaluate-every, scores go to RUN/evaluations.csv, the best policy is
    RUN/checkpoints/best, and RUN/plots/progress.png draws scores and losses as they come. With --select (and --set
    held_out=0.1) nothing is played: the first statistic decides which checkpoints are kept and when the run ends.
    """
    if isinstance(directory, Path):
        from offrl.shards.arrays import require_directory

        require_directory(directory)  # before torch is loaded

    run, assignments = _with_rank(run, assignments)
    ranks = join()
    if seeds is not None:
        refuse_other_seeds(algorithm_seed, assignments, resume, ranks)
    from offrl.runs._tables import read_scores
    from offrl.runs.checkpoint import checkpoints, latest_checkpoint, step_of
    from offrl.runs.directory import create_run, with_time
    from offrl.runs.files import END_NAME, read_run_json
    from offrl.system.devices import resolve_device
    from offrl.training.config import FitConfig, LearnerConfig
    from offrl.training.learner import Learner
    from offrl.training.loop import fit

    lengths = [f"{name}={value}" for name, value in (("updates", updates), ("epochs", epochs)) if value is not None]
    settings = [*lengths, *assignments, *([] if stream is None else [f"stream={stream}"])]
    if resume is not None:
        other_dones = None if dones == "terminated" else dones
        _refuse_settings(
            {
                "--run": run,
                "--algorithm-seed": algorithm_seed,
                "--init": init,
                "--hud": hud,
                "--dones": other_dones,
                "--skip-bad-shards": skip_bad_shards or None,
                "--stream": stream,
                "--evaluate-every": evaluate_every,
                "--evaluate-episodes": evaluate_episodes,
                "--select": statistics,
                "--keep-best": keep_best,
                "--patience": patience,
            },
            assignments,
        )
        request = read_request(resume, algorithm, encoder).longer(updates, epochs)
        _refuse_other_environment(environment, request.environment)
        if directory is not None:  # the data was moved; fit checks that it is the same
            request = replace(request, data=data_location(directory))
    elif directory is None:
        raise ConfigError("no DIRECTORY", where="train", expected="a dataset", hint="name the directory of its shards")
    else:
        algorithm = algorithm or "bcq"
        task = named_task(environment, hud)
        if evaluate_episodes is not None and evaluate_every is None:
            raise ConfigError("--evaluate-episodes", where="train", expected="--evaluate-every beside it")
        if statistics is None and (keep_best is not None or patience is not None):
            raise ConfigError(
                "--keep-best or --patience", where="train", expected="--select beside it", hint="add --select td_error"
            )
        chosen = None if statistics is None else statistics.split(",")
        request = Request(
            algorithm=algorithm,
            encoder=encoder,
            settings=parse_training(algorithm, settings),
            data=data_location(directory),
            environment=environment,
            task=task,
            task_given=task is not None,
            dones=dones,
            skip_bad_shards=skip_bad_shards,
            evaluate_every=int(evaluate_every) if evaluate_every and evaluate_every.isdecimal() else evaluate_every,
            evaluate_episodes=evaluate_episodes or _EPISODES,
            algorithm_seed=algorithm_seed,
            selection=None if chosen is None else {"statistics": chosen, "keep_best": keep_best, "patience": patience},
        )
    request = replace(request, device=device or request.device).with_threads(threads)
    selection = build_selection(request, resume)
    config, learner_config = FitConfig(**request.settings["fit"]), LearnerConfig(**request.settings["learner"])
    with ranks.first_here("data"):
        replay = open_training_data(request, progress=not quiet and ranks.local_rank == 0)
    request = replace(request, environment=request.environment or replay.environment)
    total = config.total_updates(len(replay))
    model = build_algorithm(request, replay.spec)
    if seeds is not None:
        folder = create_run("runs", model.name) if run is None else run.with_name(with_time(run.name))
        # One thread each: those of several processes wait for each other at every barrier.
        number = threads or 1

        def measure() -> dict[str, str]:
            device = resolve_device(request.device)
            learner = Learner(model, replace(learner_config, threads=number), total_updates=total, device=device)
            placed = replay.to(device)  # as the runs have it: what is compiled here they take from torch's cache
            learner.autotune(placed.gather(placed.indices(0, config.batch_size)))
            return {name: getattr(learner, name) for name in CHOSEN}

        try:
            train_side_by_side(folder, seeds, number, total, measure, as_json=as_json, quiet=quiet)
        finally:
            with suppress(OSError):
                folder.rmdir()  # where it stayed empty
        return
    checkpoint = None if init is None else _checkpoint(init)

    evaluator = (
        None
        if request.evaluate_every is None
        else episode_evaluator(request, replay.spec, directory or resume or "", named=environment)
    )
    begun = _begun_before(run, model.name) if ranks.is_first and resume is None else None
    if goes_on and run is not None and (run / "config.json").exists():
        begun = run
    named = resume or begun or (None if run is None else run.with_name(with_time(run.name)))
    is_made, resumes = named is None and ranks.is_first, (resume or begun) is not None
    target = Path(ranks.first(str(create_run("runs", model.name) if is_made else named)))
    try:
        learner = fit(
            model,
            replay,
            config,
            learner=learner_config,
            run=target,
            resume=resume is not None or (goes_on and begun is not None),
            init=None if goes_on and begun is not None else checkpoint,
            evaluate_every=request.evaluate_every,
            evaluator=evaluator,
            selection=selection,
            loggers=_loggers(target, logger_names, total, request, quiet=quiet, resume=resumes)
            if ranks.is_first
            else [],
            device=request.device,
            notes=request.notes(),
        )
    except KeyboardInterrupt:
        if ranks.is_first and checkpoints(target / "checkpoints"):
            say_on_interrupt(f"interrupted; go on with: offrl train --resume {target}")
        raise
    finally:
        for made in (target, target.parent) if is_made else ():  # stays empty where fit refuses its settings
            with suppress(OSError):
                made.rmdir()
    if not ranks.is_first:
        return
    result = {
        "run": str(target),
        "checkpoint": str(latest_checkpoint(target / "checkpoints")),
        "updates": learner.step,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    if (best := target / "checkpoints" / "best").exists():
        scores = read_scores(target)
        result |= {"best": str(best), "best_score": scores[step_of(best.resolve())]}
    if selection is not None and learner.step < total and (ended := read_run_json(target, END_NAME)):
        result["ended"] = ended["reason"]
    show({**result, **_last_metrics(target / "metrics.csv")}, as_json)


def _refuse_other_environment(named: str | None, recorded: str | None) -> None:
    """A resumed run keeps its environment; to name it again says that its module may be imported."""
    if named is not None and named != recorded:
        raise ConfigError(
            f"{named} beside --resume",
            where="--env",
            expected=f"{recorded or 'none'}, as the run has it",
            hint="leave it out",
        )


def _with_rank(run: Path | None, assignments: tuple[str, ...]) -> tuple[Path | None, tuple[str, ...]]:
    """The settings with this process's rank in them; where they ask for that, every process trains a run of its own."""
    own = tuple(with_rank(assignment) for assignment in assignments)
    own_run = None if run is None else run.with_name(with_rank(run.name))
    if own == assignments and own_run == run:
        return run, assignments
    if own_run is not None and own_run == run:
        raise ConfigError(
            f"{run} for the runs of all processes",
            where="--run",
            expected="a name for each",
            hint=f"take --run {run}-{{rank}}",
        )
    stay_alone()
    return own_run, own


def _begun_before(run: Path | None, name: str) -> Path | None:
    """The run that this very command has begun, where torchrun has started it again."""
    root = Path("runs") if run is None else run.parent
    pattern = f"{name}-*" if run is None else run.name.replace("{time}", "*")
    return next((path for path in sorted(root.glob(pattern)) if was_begun_by_this_launcher(path)), None)


def _checkpoint(path: Path) -> Path:
    from offrl.hub.loading import find_policy

    found = find_policy(path)
    if found.is_file():
        raise RunError("is an ONNX file", where=path, expected="a run or a checkpoint", hint="name the run it is from")
    return found


def _loggers(
    run: Path, names: Sequence[str], total: int, request: Request, *, quiet: bool, resume: bool
) -> list[Logger]:
    """What the run's numbers are shown by, besides its CSV files."""
    from offrl.report.progress import ProgressPlot
    from offrl.runs.checkpoint import step_of
    from offrl.runs.directory import find_to_resume
    from offrl.runs.loggers import ConsoleLogger, TensorBoardLogger, WandbLogger

    found = find_to_resume(run).checkpoint if resume else None
    step = step_of(found) if found is not None else 0 if resume else None
    loggers: list[Logger] = [] if quiet else [ConsoleLogger(total, initial=step or 0)]
    if "tensorboard" in names:
        loggers.append(TensorBoardLogger(run / "tensorboard", resume_step=step))
    if "wandb" in names:
        loggers.append(WandbLogger(project="offrl", name=run.name, config={**request.settings}))
    if request.evaluate_every is not None and find_spec("matplotlib") is not None:
        loggers.append(ProgressPlot(run))
    return loggers


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
