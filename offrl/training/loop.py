"""The loop: replay -> learner -> logs, checkpoints and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from offrl.algorithms._contract import require_contract
from offrl.algorithms.algorithm import Algorithm
from offrl.errors import ConfigError
from offrl.replay.source import ReplaySource
from offrl.runs._tables import METRICS_NAME, read_column
from offrl.runs.checkpoint import checkpoints, keep_only, load_policy, save_checkpoint
from offrl.runs.directory import find_to_resume, first_weights, working_on, write_environment
from offrl.runs.files import read_identity, write_run_config
from offrl.runs.loggers import ConsoleLogger, CSVLogger, Logger
from offrl.system.devices import resolve_device
from offrl.system.torchrun import describe as describe_ranks
from offrl.system.torchrun import join, was_begun_by_this_launcher
from offrl.training._arguments import (
    describe,
    json_ready,
    remarks,
    require_arguments,
    require_memory,
    require_recordable,
    require_selection,
)
from offrl.training._data_checks import check_data
from offrl.training._evaluations import Evaluations, Evaluator
from offrl.training._resume import continue_run
from offrl.training._starting import check_start, starting_checkpoint
from offrl.training._updates import Loop, Periods, Saving
from offrl.training.config import FitConfig, LearnerConfig, Period
from offrl.training.learner import Learner
from offrl.training.selection import Ratings, Selection, measure_statistics

_TRIED_TRANSITIONS = 2
"""How many transitions an algorithm is tried on before training; one would hide a loss that mixes up its axes."""


def fit(
    algorithm: Algorithm,
    replay: ReplaySource,
    config: FitConfig,
    *,
    learner: LearnerConfig | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    init: str | Path | None = None,
    evaluate_every: Period | None = None,
    evaluator: Evaluator | None = None,
    selection: Selection | None = None,
    loggers: Sequence[Logger] | None = None,
    device: torch.device | str = "auto",
    notes: Mapping[str, Any] | None = None,
) -> Learner:
    """Trains `algorithm` on `replay`.

    Ctrl-C, SIGTERM and SIGHUP end the run after the update in progress, with a checkpoint to resume from, and then
    raise `Interrupted`, a KeyboardInterrupt; a second one ends it at once, but for a checkpoint that is being written.

    Args:
        algorithm: Trained in place.
        replay: Where batches come from. Where it holds episodes out, their loss stands beside the training loss, as
            `held_out_loss` and the like: the mean over 512 transitions (more where batches do not divide 512, as they
            are whole), always the same ones, without augmentation.
        config: How long, and how often to log and save.
        learner: How an update is made.
        run: The run's directory, new or empty; None writes nothing to disk.
        resume: Go on with the run in `run`, which must have the same settings; the result equals a run that never
            stopped: on a CPU bit for bit, on the same machine and software; on a GPU up to rounding. But for networks
            of your own that draw random numbers, such as dropout: their draws are neither seeded nor saved. It goes on
            from the newest checkpoint that is whole, and begins again without one. The run may become longer, unless
            its learning rate follows a schedule that depends on the length.
        init: A run, or a checkpoint's directory, to take the first weights from; settings are not taken over.
        evaluate_every: How often to score the policy: so many updates, or a text such as "1epoch"; besides, after the
            last update. None for never. What it scores is saved before, as a checkpoint.
        evaluator: Scores the policy, such as `offrl.evaluation.EpisodeEvaluator(make_env)`, or a function of your own
            from an algorithm to {"score": ...}. The scores go to `evaluations.csv`, and the checkpoint with the
            highest one is `checkpoints/best`. On a CPU whose cores all train, training waits meanwhile; elsewhere it
            waits only where two evaluations are not done yet.
        selection: Statistics on the held-out transitions, of the weights that a checkpoint would evaluate; by the first
            of them, which checkpoints are kept, and whether the run ends before its last update. Then it ends with a
            checkpoint, and says why on the console and in `ended.json`; resuming it changes nothing.
        loggers: Besides the run's CSV files; None shows progress on the console.
        device: "cpu", "cuda", ..., or "auto" for a GPU where there is one.
        notes: JSON-ready remarks for a new run's config.json, beside those on the algorithm's class and the data.

    Returns:
        The learner; `learner.snapshot()` is the trained policy's algorithm.

    Raises:
        ConfigError: Arguments of another kind, settings that contradict each other, a replay without what the algorithm
            `needs`, or an algorithm of your own whose `forward` or `loss` returns something else than `Algorithm` says.
        SpecMismatchError: The data are of another task than the algorithm, or than the run of `init`.
        DatasetError: The algorithm learns nothing from the data. What it can learn in part only is a warning.
        RunError: The directory is taken, cannot be resumed or written; the loss became infinite.
        InUseError: Another process is working on the run.
    """
    require_arguments(algorithm, replay, config, learner, selection, evaluator, loggers)
    if run is not None:
        require_recordable(algorithm)
    algorithm.spec.require_same(
        replay.spec,
        where="replay",
        hint="construct the algorithm with the replay's spec, which has the legal actions too: Algorithm(replay.spec)",
    )
    if resume and (run is None or init is not None):
        raise ConfigError("resume", where="fit", expected="with `run` and without `init`")
    if (evaluate_every is None) != (evaluator is None):
        raise ConfigError(
            f"evaluate_every={evaluate_every!r} with evaluator={evaluator!r}", where="fit", expected="both or neither"
        )
    init = None if init is None else starting_checkpoint(init)
    if init is not None:
        check_start(init, replay)
    ranks = join()
    rows = ranks.rows(config.batch_size)
    total = config.total_updates(len(replay))
    periods = Periods(config, evaluate_every, len(replay))
    if selection is not None:
        require_selection(
            selection,
            replay,
            log=periods.log,
            checkpoint=periods.checkpoint,
            has_run=run is not None,
            has_evaluator=evaluator is not None,
        )
    require_memory(config.batch_size * ranks.num_local // ranks.count, replay)
    noted = {} if run is None else json_ready({**remarks(algorithm, replay), **(notes or {})}, "fit.notes")
    directory = None if run is None or not ranks.is_first else Path(run)
    # A command that torchrun starts again goes on with the run that it began.
    resume = ranks.first(resume or (directory is not None and was_begun_by_this_launcher(directory)))
    with ranks.ending_together(), ExitStack() as stack:
        if directory is not None:
            stack.enter_context(working_on(directory, resume=resume))
        begins_from = init
        if directory is not None and resume:
            found = find_to_resume(directory)
            begins_from = first_weights(directory, found)
        if begins_from is not None and ranks.is_first:  # the learner hands them on
            load_policy(algorithm, Path(begins_from))
            algorithm.copy_to_targets()
        placed = resolve_device(ranks.device(device))
        trainer = Learner(algorithm, learner, total_updates=total, device=placed, ranks=ranks)
        if not resume and (contents := replay.contents()) is not None:
            check_data(algorithm, contents, warn=ranks.is_first)
        replay = replay.to(trainer.device)
        if not resume:  # else it has been trained before, and the first batch may be far from the next
            require_contract(algorithm, replay.gather(replay.indices(0, config.batch_size)[:_TRIED_TRANSITIONS]))
        evaluations = None if evaluator is None else Evaluations(evaluator, directory, trainer.device, ranks)
        settings: dict[str, Any] = {}
        if directory is not None:  # what config.json cannot hold is said before anything is measured
            settings = describe(trainer, replay, config, init, selection)
            if evaluations is not None:
                settings["evaluation"] = {"every": evaluate_every, **evaluations.settings()}
            settings = json_ready(settings, "fit")
        files, identity = None, None
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        if run is not None and not resume:
            first = replay.gather(replay.indices(0, config.batch_size)[rows])
            is_shown = loggers is None or any(isinstance(logger, ConsoleLogger) for logger in loggers)
            with _announcing(is_shown=is_shown) as say:
                trainer.autotune(first, say)
        if directory is not None:
            if resume:
                drops_states = selection is None or selection.keep_best is None
                files = continue_run(
                    trainer, directory, found, settings, noted, len(replay), periods, drops_states=drops_states
                )
            else:
                tuned = {name: getattr(trainer, name) for name in ("precision", "compile", "threads")}
                write_run_config(directory, {**settings, "settled": tuned, "notes": noted})
                files = CSVLogger(directory)
            identity = read_identity(directory)
            if not (directory / "environment.json").exists():
                about = {"device": str(trainer.device), "dataset": settings["dataset"], **describe_ranks(ranks)}
                write_environment(directory, about)
            if not checkpoints(directory / "checkpoints"):  # from the first moment on there is one to resume
                save_checkpoint(trainer, directory / "checkpoints", run=identity)
        if resume:
            trainer.share_state()
        if not ranks.is_first:
            loggers = []
        outputs: list[Logger] = list(loggers) if loggers is not None else [ConsoleLogger(total, initial=trainer.step)]
        held_out = replay.held_out() if ranks.is_first else None
        if files is not None:  # first: who draws what the files have finds the newest row in them
            outputs.insert(0, files)
            if files.columns is not None and "held_out_loss" not in files.columns:
                held_out = None  # a run of an earlier version: its rows keep their columns
        ratings = None
        if selection is not None:
            rated = {} if directory is None else read_column(directory / METRICS_NAME, selection.column)
            ratings = Ratings(selection, periods.checkpoint, rated)
            keep = ratings.steps_to_keep()
            if directory is not None and resume and keep is not None and not found.damaged:
                keep_only(directory / "checkpoints", {*keep, trainer.step})  # it may have been killed before it did so
            if held_out is not None:  # what cannot be measured is refused before training
                few = held_out.gather(held_out.indices(0, config.batch_size)[:_TRIED_TRANSITIONS])
                measure_statistics(selection.statistics, trainer.snapshot(), [few])
        for output in outputs:
            stack.callback(output.close)
        if evaluations is not None:
            stack.enter_context(evaluations)
        saving = Saving(trainer, directory, files, identity, ratings)
        rest = (config.batch_size, total, periods, outputs, saving, evaluations, ratings, ranks)
        Loop(trainer, replay, held_out, *rest).run()
    return trainer


@contextmanager
def _announcing(*, is_shown: bool) -> Iterator[Callable[[str], None]]:
    """Shows on a terminal what is being waited for before the first update."""
    if not is_shown:
        yield lambda _: None
        return
    with tqdm(bar_format="{desc}", leave=False, disable=None) as line:  # disable=None: nothing without a terminal
        yield line.set_description_str
