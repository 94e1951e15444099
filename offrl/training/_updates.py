"""The updates of a run: batch, update, log, save, evaluate, until the end or a signal."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from offrl.algorithms.algorithm import Algorithm
from offrl.errors import ConfigError
from offrl.replay.source import ReplaySource
from offrl.runs.checkpoint import save_checkpoint
from offrl.runs.files import END_NAME, write_run_json
from offrl.runs.loggers import CSVLogger, Logger
from offrl.system.ranks import Ranks
from offrl.system.signals import StopRequest, stopping_on_signals
from offrl.training._clock import Clock, RateWatch
from offrl.training._evaluations import Evaluations
from offrl.training._feed import gathered_ahead, plan_updates
from offrl.training.config import FitConfig, Period
from offrl.training.learner import Learner
from offrl.training.selection import Ratings, measure_statistics

_HELD_OUT_TRANSITIONS = 512
"""How many held-out transitions a row of metrics looks at: a few percent of an update's time in a hundred updates."""


class Periods:
    """The rhythm of a run, in updates."""

    def __init__(self, config: FitConfig, evaluate_every: Period | None, num_transitions: int) -> None:
        self.log = config.updates_in(config.log_period, num_transitions)
        self.checkpoint = config.updates_in(config.checkpoint_period, num_transitions)
        self.evaluate = None if evaluate_every is None else config.updates_in(evaluate_every, num_transitions)


class Loop:
    """The updates of a run, and what happens between them."""

    def __init__(
        self,
        learner: Learner,
        replay: ReplaySource,
        held_out: ReplaySource | None,
        batch_size: int,
        total: int,
        periods: Periods,
        loggers: Sequence[Logger],
        saving: Saving,
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
                with self._saving_on_errors(stop), self._clock.waiting():  # the data may be out of reach
                    batch, count = next(batches)
                learning_rate = learner.learning_rate_at(learner.step + count - 1)
                learner.update(batch, count)
                if self._rate is not None:
                    slow = self._rate.add(count, time.perf_counter() - start, self._clock.last_wait)
                    if slow is not None:
                        warnings.warn(slow, stacklevel=3)
                if self._is_due(self._periods.log):
                    self._log(learning_rate)
                    with self._saving_on_errors(stop):
                        self._report_scores()
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

    @contextmanager
    def _saving_on_errors(self, stop: StopRequest) -> Iterator[None]:
        """What was learned is not lost with an error that is none of the update's."""
        try:
            yield
        except Exception:
            if self._ranks.count == 1:
                self._saving.save(stop)
            raise

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

    def _measure_held_out(self, held_out: ReplaySource) -> dict[str, float]:
        size = min(self._batch_size, _HELD_OUT_TRANSITIONS)
        rows = [held_out.indices(step, size) for step in range(-(-_HELD_OUT_TRANSITIONS // size))]
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


class Saving:
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
