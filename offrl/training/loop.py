"""The loop: replay -> learner -> logs, checkpoints and scores."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from offrl.algorithms._contract import require_contract
from offrl.algorithms.algorithm import Algorithm
from offrl.errors import ConfigError, OfflineRLError
from offrl.replay.source import ReplaySource
from offrl.system.devices import resolve_device
from offrl.system.ranks import Ranks
from offrl.system.signals import StopRequest, stopping_on_signals
from offrl.system.torchrun import describe, join, was_begun_by_this_launcher
from offrl.system.workers import available_memory
from offrl.training._clock import Clock, RateWatch
from offrl.training._data_checks import check_data
from offrl.training._evaluations import Evaluations, Evaluator
from offrl.training._feed import gathered_ahead, plan_updates
from offrl.training._run_files import read_identity
from offrl.training.checkpoint import checkpoints, load_policy, save_checkpoint
from offrl.training.config import FitConfig, LearnerConfig, Period
from offrl.training.learner import Learner
from offrl.training.loggers import ConsoleLogger, CSVLogger, Logger
from offrl.training.runs import (
    continue_run,
    find_to_resume,
    first_weights,
    working_on,
    write_environment,
    write_run_config,
)

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
    _require_arguments(algorithm, replay, config, learner)
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
    _require_memory(config.batch_size * ranks.num_local // ranks.count, replay)
    remarks = {**_remarks(algorithm, replay), **(notes or {})}
    directory = None if run is None or not ranks.is_first else Path(run)
    # A command that torchrun starts again goes on with the run that it began.
    resume = ranks.first(resume or (directory is not None and was_begun_by_this_launcher(directory)))
    with ExitStack() as stack:
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
            settings = _describe(trainer, replay, config, init)
            if evaluations is not None:
                settings["evaluation"] = {"every": evaluate_every, **evaluations.settings()}
            if resume:
                files = continue_run(trainer, directory, found, settings, len(replay), periods.log)
            else:
                tuned = {name: getattr(trainer, name) for name in ("precision", "compile", "threads")}
                write_run_config(directory, {**settings, "settled": tuned, "notes": remarks})
                files = CSVLogger(directory)
            identity = read_identity(directory)
            if not (directory / "environment.json").exists():
                about = {"device": str(trainer.device), "dataset": settings["dataset"], **describe(ranks)}
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
        for output in outputs:
            stack.callback(output.close)
        if evaluations is not None:
            stack.enter_context(evaluations)
        saving = _Saving(trainer, directory, files, identity)
        _Loop(trainer, replay, held_out, config.batch_size, total, periods, outputs, saving, evaluations, ranks).run()
    return trainer


def _require_arguments(algorithm: object, replay: object, config: object, learner: object) -> None:
    if not isinstance(algorithm, Algorithm):
        raise ConfigError(
            f"the class {algorithm.__name__}" if isinstance(algorithm, type) else f"a {type(algorithm).__name__}",
            where="fit.algorithm",
            expected="an offrl.Algorithm",
            hint="construct it: DiscreteBCQ(replay.spec), say",
        )
    if isinstance(replay, str | Path):
        raise ConfigError(
            repr(str(replay)), where="fit.replay", expected="a replay", hint=f"pass offrl.open_replay({str(replay)!r})"
        )
    if not isinstance(replay, ReplaySource):
        raise ConfigError(
            f"{type(replay).__name__} is no replay",
            where="replay",
            expected="a subclass of offrl.ReplaySource",
            hint="derive your class from it: what it lacks has a default there",
        )
    if not isinstance(config, FitConfig):
        length = config if isinstance(config, int) else 1000
        hint = f"pass FitConfig(updates={length})"
        raise ConfigError(f"{config!r}", where="fit.config", expected="a FitConfig", hint=hint)
    if not isinstance(learner, LearnerConfig | None):
        raise ConfigError(f"a {type(learner).__name__}", where="fit.learner", expected="a LearnerConfig")


def _remarks(algorithm: Algorithm, replay: ReplaySource) -> dict[str, Any]:
    """What is needed to make the run again, and no setting: the algorithm's class, where the data lies."""
    kind = type(algorithm)
    is_own = not kind.__module__.startswith("offrl.")
    environment = {} if replay.environment is None else {"environment": replay.environment}
    return {
        "algorithm": f"{kind.__module__}:{kind.__qualname__}" if is_own else algorithm.name,
        **replay.origin,
        **environment,
    }


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


def _require_memory(batch_size: int, replay: ReplaySource) -> None:
    spec = replay.spec
    size = math.prod(spec.observation_shape) * (1 if spec.is_pixels else 4)
    if 2 * batch_size * size > available_memory():
        raise ConfigError(
            f"{batch_size}, whose observations alone need {2 * batch_size * size / 2**30:.0f} GiB",
            where="FitConfig.batch_size",
            expected="a batch that fits into memory",
        )


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
        ranks: Ranks,
    ) -> None:
        self._learner, self._replay, self._batch_size, self._total = learner, replay, batch_size, total
        self._periods, self._loggers, self._saving, self._evaluations = periods, loggers, saving, evaluations
        self._held_out, self._ranks = held_out, ranks
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
            self._evaluate_what_is_missing(stop)
            while learner.step < total and not self._is_stopped(stop):
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
                if learner.step % self._periods.checkpoint == 0:
                    self._saving.save(stop)
                if self._evaluations is not None and self._is_due(self._periods.evaluate):
                    self._saving.save(stop)
                    self._evaluate(learner.step, learner.snapshot(), stop)
            self._saving.save(stop)
            if self._evaluations is not None and not stop:
                with stop.at_once():
                    self._report_scores(wait=True)
        if stop:
            raise stop.error()

    def _is_stopped(self, stop: StopRequest) -> bool:
        """Whether a signal has come, to any rank: all end after the same update. Collective."""
        number = self._ranks.largest(stop.error().exit_code - 128 if stop else 0)
        if number:
            stop.set(int(number))
        return number > 0  # not `stop`: a signal that came since the others spoke waits for the next time

    def _is_due(self, period: int | None) -> bool:
        return period is not None and (self._learner.step % period == 0 or self._learner.step == self._total)

    def _log(self, learning_rate: float) -> None:
        learner = self._learner
        # The row after the last update is one too many where the run becomes longer: then its sums go on.
        metrics = learner.read_metrics(keep=learner.step % self._periods.log != 0)
        if self._held_out is not None:
            size = min(self._batch_size, _HELD_OUT_TRANSITIONS)
            rows = (self._held_out.indices(step, size) for step in range(_HELD_OUT_TRANSITIONS // size))
            found = learner.measure(self._held_out.gather(each) for each in rows)
            metrics |= {f"held_out_{name}": value for name, value in found.items()}
        timings = self._clock.read(learner.step)
        for logger in self._loggers:
            logger.log(learner.step, {**metrics, "learning_rate": learning_rate}, timings)
        self._report_scores()

    def _evaluate_what_is_missing(self, stop: StopRequest) -> None:
        """Scores checkpoints that a run left behind unscored when it was stopped."""
        if self._evaluations is None or self._periods.evaluate is None:
            return
        for step, algorithm in self._evaluations.missing(self._learner, self._periods.evaluate, self._total):
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

    def __init__(self, learner: Learner, directory: Path | None, files: CSVLogger | None, identity: str | None) -> None:
        self._learner, self._directory, self._files, self._identity = learner, directory, files, identity
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
                save_checkpoint(self._learner, self._directory / "checkpoints", logs, self._identity)
        self._saved = self._learner.step


def _describe(learner: Learner, replay: ReplaySource, config: FitConfig, init: str | Path | None) -> dict[str, Any]:
    """What a run was made with: everything that its result depends on, beside software and machine."""
    encoder = getattr(learner.algorithm, "encoder", None)
    return {
        "algorithm": learner.algorithm.name,
        "encoder": None if encoder is None else f"{type(encoder).__module__}:{type(encoder).__qualname__}",
        "algorithm_config": {} if learner.algorithm.config is None else asdict(learner.algorithm.config),
        # Without a meaning where the first weights are another run's.
        "algorithm_seed": learner.algorithm.seed if init is None else None,
        "learner": asdict(learner.config),
        "fit": asdict(config),
        "replay": replay.settings(),
        "dataset": replay.fingerprint,
        "init": None if init is None else str(init),
        "spec": learner.algorithm.spec.to_dict(),
    }
