"""The loop: replay -> learner -> logs, checkpoints and scores."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from offrl.algorithms._contract import require_contract
from offrl.algorithms.algorithm import Algorithm
from offrl.errors import ConfigError, OfflineRLError
from offrl.replay.source import ReplaySource
from offrl.runs._tables import METRICS_NAME, read_column
from offrl.runs.checkpoint import checkpoints, keep_only, load_policy, save_checkpoint
from offrl.runs.directory import find_to_resume, first_weights, working_on, write_environment
from offrl.runs.files import END_NAME, read_identity, write_run_config, write_run_json
from offrl.runs.loggers import ConsoleLogger, CSVLogger, Logger
from offrl.system.devices import resolve_device
from offrl.system.ranks import Ranks
from offrl.system.signals import StopRequest, stopping_on_signals
from offrl.system.torchrun import describe as describe_ranks
from offrl.system.torchrun import join, was_begun_by_this_launcher
from offrl.training._arguments import describe, remarks, require_arguments, require_memory, require_selection
from offrl.training._clock import Clock, RateWatch
from offrl.training._data_checks import check_data
from offrl.training._evaluations import Evaluations, Evaluator
from offrl.training._feed import gathered_ahead, plan_updates
from offrl.training._resume import continue_run
from offrl.training.config import FitConfig, LearnerConfig, Period
from offrl.training.learner import Learner
from offrl.training.selection import Ratings, Selection, measure_statistics

_TRIED_TRANSITIONS = 2
"""How many transitions an algorithm is tried on before training; one would hide a loss that mixes up its axes."""
_HELD_OUT_TRANSITIONS = 512
"""How many held-out transitions a row of metrics looks at: a few percent of an update's time in a hundred updates."""


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
            `held_out_loss` and the like: the mean over 512 transitions, always the same ones, without augmentation.
        config: How long, and how often to log and save.
        learner: How an update is made.
        run: The run's directory, new or empty; None writes nothing to disk.
        resume: Go on with the run in `run`, which must have the same settings; the result equals a run that never
            stopped: on a CPU bit for bit, on the same machine and software; on a GPU up to rounding. It goes on from
            the newest checkpoint that is whole, and begins again without one. The run may become longer, unless its
            learning rate follows a schedule that depends on the length.
        init: A checkpoint's directory to take the first weights from.
        evaluate_every: How often to score the policy: so many updates, or a text such as "1epoch"; besides, after the
            last update. None for never. What it scores is saved before, as a checkpoint.
        evaluator: Scores the policy, such as `offrl.evaluation.EpisodeEvaluator(make_env)`, or a function of your own
            from an algorithm to {"score": ...}. The scores go to `evaluations.csv`, and the checkpoint with the
            highest one is `checkpoints/best`. On a CPU whose cores all train, training waits meanwhile.
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
        SpecMismatchError: The data are of another task than the algorithm.
        DatasetError: The algorithm learns nothing from the data. What it can learn in part only is a warning.
        RunError: The directory is taken, cannot be resumed or written; the loss became infinite.
        InUseError: Another process is working on the run.
    """
    require_arguments(algorithm, replay, config, learner)
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
    ranks = join()
    rows = ranks.rows(config.batch_size)
    total = config.total_updates(len(replay))
    periods = _Periods(config, evaluate_every, len(replay))
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
    noted = {**remarks(algorithm, replay), **(notes or {})}
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
        files, identity = None, None
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        if run is not None and not resume:
            first = replay.gather(replay.indices(0, config.batch_size)[rows])
            is_shown = loggers is None or any(isinstance(logger, ConsoleLogger) for logger in loggers)
            with _announcing(is_shown=is_shown) as say:
                trainer.autotune(first, say)
        if directory is not None:
            settings = describe(trainer, replay, config, init, selection)
            if evaluations is not None:
                settings["evaluation"] = {"every": evaluate_every, **evaluations.settings()}
            if resume:
                drops_states = selection is None or selection.keep_best is None
                files = continue_run(
                    trainer, directory, found, settings, len(replay), periods.log, drops_states=drops_states
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
        saving = _Saving(trainer, directory, files, identity, ratings)
        rest = (config.batch_size, total, periods, outputs, saving, evaluations, ratings, ranks)
        _Loop(trainer, replay, held_out, *rest).run()
    return trainer


@contextmanager
def _announcing(*, is_shown: bool) -> Iterator[Callable[[str], None]]:
    """Shows on a terminal what is being waited for before the first update."""
    if not is_shown:
        yield lambda _: None
        return
    with tqdm(bar_format="{desc}", leave=False, disable=None) as line:  # disable=None: nothing without a terminal
        yield line.set_description_str


class _Periods:
    """The rhythm of a run, in updates."""

    def __init__(self, config: FitConfig, evaluate_every: Period | None, num_transitions: int) -> None:
        self.log = config.updates_in(config.log_period, num_transitions)
        self.checkpoint = config.updates_in(config.checkpoint_period, num_transitions)
        self.evaluate = None if evaluate_every is None else config.updates_in(evaluate_every, num_transitions)


class _Loop:
    """The updates of a run, and what happens between them."""

    def __init__(
        self,
        learner: Learner,
        replay: ReplaySource,
        held_out: ReplaySource | None,
        batch_size: int,
        total: int,
        periods: _Periods,
        loggers: Sequence[Logger],
        saving: _Saving,
        evaluations: Evaluations | None,
        ratings: Ratings | None,
        ranks: Ranks,
    ) -> None:
        self._learner, self._replay, self._batch_size, self._total = learner, replay, batch_size, total
        self._periods, self._loggers, self._saving, self._evaluations = periods, loggers, saving, evaluations
        self._held_out, self._ratings, self._ranks = held_out, ratings, ranks
        self._end: str | None = None
        self._clock = Clock(learner.step)
        # What a GPU does is not seen in the seconds that the host took to ask for it.
        self._rate = RateWatch() if learner.device.type == "cpu" else None

    def run(self) -> None:
        """All updates that are left.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; what was done until then is saved.
        """
        learner, total = self._learner, self._total
        rhythm = (self._periods.log, self._periods.checkpoint, self._periods.evaluate)
        periods = [period for period in rhythm if period is not None]
        plan = plan_updates(learner.step, total, periods, max(learner.updates_per_graph, 1))
        ahead = gathered_ahead(self._replay, plan, self._batch_size, learner.device, self._ranks)
        with stopping_on_signals() as stop, ahead as batches:
            self._find_end()
            self._evaluate_what_is_missing(stop)
            while learner.step < total and self._end is None and not self._is_stopped(stop):
                start = time.perf_counter()
                try:
                    with self._clock.waiting():
                        batch, count = next(batches)
                except OfflineRLError:  # the data is out of reach; what was learned is not lost with it
                    if self._ranks.count == 1:
                        self._saving.save(stop)
                    raise
                learning_rate = learner.learning_rate_at(learner.step + count - 1)
                learner.update(batch, count)
                if self._rate is not None:
                    slow = self._rate.add(count, time.perf_counter() - start, self._clock.last_wait)
                    if slow is not None:
                        warnings.warn(slow, stacklevel=3)
                if self._is_due(self._periods.log):
                    self._log(learning_rate)
                    self._find_end()
                if learner.step % self._periods.checkpoint == 0:
                    self._saving.save(stop)
                if self._evaluations is not None and self._is_due(self._periods.evaluate):
                    self._saving.save(stop)
                    self._evaluate(learner.step, learner.snapshot(), stop)
            self._saving.save(stop)
            if self._end is not None and not stop:
                self._say_why()
            if self._evaluations is not None and not stop:
                with stop.at_once():
                    self._report_scores(wait=True)
        if stop:
            raise stop.error(is_agreed=True)

    def _is_stopped(self, stop: StopRequest) -> bool:
        """Whether a signal has come, to any rank: all end after the same update. Collective."""
        number = self._ranks.largest(stop.error().exit_code - 128 if stop else 0)
        if number:
            stop.set(int(number))
        return number > 0  # not `stop`: a signal that came since the others spoke waits for the next time

    def _is_due(self, period: int | None) -> bool:
        return period is not None and (self._learner.step % period == 0 or self._learner.step == self._last_step)

    @property
    def _last_step(self) -> int:
        return self._total if self._end is None else self._learner.step

    def _find_end(self) -> None:
        """Looks whether the run ends here, before its last update. Collective."""
        if self._ratings is not None and self._ratings.selection.patience is not None:
            self._end = self._ranks.first(self._ratings.reason_to_end())

    def _say_why(self) -> None:
        assert self._end is not None
        self._saving.write_end(self._end)
        for logger in self._loggers:
            if hasattr(logger, "log_end"):  # a logger need not have it
                logger.log_end(self._learner.step, self._end)

    def _log(self, learning_rate: float) -> None:
        learner = self._learner
        # The row after the last update is one too many where the run becomes longer: then its sums go on.
        metrics = learner.read_metrics(keep=learner.step % self._periods.log != 0)
        if self._held_out is not None:
            metrics |= self._measure_held_out(self._held_out)
        timings = self._clock.read(learner.step)
        for logger in self._loggers:
            logger.log(learner.step, {**metrics, "learning_rate": learning_rate}, timings)
        if self._ratings is not None and self._held_out is not None:
            self._ratings.add(learner.step, metrics)
        self._report_scores()

    def _measure_held_out(self, held_out: ReplaySource) -> dict[str, float]:
        size = min(self._batch_size, _HELD_OUT_TRANSITIONS)
        rows = [held_out.indices(step, size) for step in range(_HELD_OUT_TRANSITIONS // size)]
        found = self._learner.measure(held_out.gather(each) for each in rows)
        if self._ratings is not None:
            statistics = self._ratings.selection.statistics
            if twice := [each.name for each in statistics if each.name in found]:
                raise ConfigError(
                    f"a statistic {twice[0]}, as the loss has a metric", where="fit.selection", expected="another name"
                )
            snapshot = self._learner.snapshot()
            found |= measure_statistics(statistics, snapshot, (held_out.gather(each) for each in rows))
        return {f"held_out_{name}": value for name, value in found.items()}

    def _evaluate_what_is_missing(self, stop: StopRequest) -> None:
        """Scores checkpoints that a run left behind unscored when it was stopped."""
        if self._evaluations is None or self._periods.evaluate is None:
            return
        for step, algorithm in self._evaluations.missing(self._learner, self._periods.evaluate, self._last_step):
            if self._is_stopped(stop):
                return
            self._evaluate(step, algorithm, stop)

    def _evaluate(self, step: int, algorithm: Algorithm, stop: StopRequest) -> None:
        assert self._evaluations is not None
        if self._ranks.count == 1:
            with self._clock.paused(), stop.at_once():
                self._evaluations.start(step, algorithm)
                self._report_scores()
            return
        share = None
        with self._clock.paused():
            with stop.at_once():  # but no signal cuts what the ranks tell each other
                share = self._evaluations.play_share(algorithm)
            self._evaluations.add_shares(step, share)
            self._report_scores()

    def _report_scores(self, *, wait: bool = False) -> None:
        if self._evaluations is not None:
            for step, scores in self._evaluations.finished(wait=wait):
                for logger in self._loggers:
                    if hasattr(logger, "log_evaluation"):  # a logger need not have it
                        logger.log_evaluation(step, scores)
                self._evaluations.keep_best()


class _Saving:
    """Writes checkpoints of a run, each step's once."""

    def __init__(
        self,
        learner: Learner,
        directory: Path | None,
        files: CSVLogger | None,
        identity: str | None,
        ratings: Ratings | None,
    ) -> None:
        self._learner, self._directory, self._files, self._identity = learner, directory, files, identity
        self._ratings = ratings
        self._saved = learner.step

    def save(self, stop: StopRequest) -> None:
        """Checks the weights and saves them, whatever signals come; without a directory it only checks."""
        if self._saved == self._learner.step:
            return
        self._learner.share_metrics()
        self._learner.require_finite()
        self._learner.require_sound_weights()
        if self._directory is not None:
            with stop.shielded():
                # First the rows that the checkpoint counts on.
                logs = None if self._files is None else self._files.sync()
                keep = None if self._ratings is None else self._ratings.steps_to_keep()
                save_checkpoint(self._learner, self._directory / "checkpoints", logs, self._identity, keep=keep)
        self._saved = self._learner.step

    def write_end(self, reason: str) -> None:
        """Says in the run's directory why it ended before its last update."""
        if self._directory is not None:
            write_run_json(self._directory, END_NAME, {"step": self._learner.step, "reason": reason})
