"""The loop: replay -> learner -> logs and checkpoints."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from offrl.algorithms.algorithm import Algorithm
from offrl.checks import Checks
from offrl.errors import ConfigError
from offrl.replay.source import ReplaySource
from offrl.system.devices import resolve_device
from offrl.system.files import write_json
from offrl.system.workers import available_memory
from offrl.training._feed import gathered_ahead, plan_updates
from offrl.training.checkpoint import latest_checkpoint, load_learner, load_policy, save_checkpoint
from offrl.training.config import LearnerConfig
from offrl.training.learner import Learner
from offrl.training.loggers import ConsoleLogger, CSVLogger, Logger
from offrl.training.runs import claim_run, require_same_config, write_environment

_MOST_IN_A_BATCH = 2**24  # transitions; more is a slip of the pen


@dataclass(frozen=True)
class FitConfig:
    """Length and rhythm of a run.

    Attributes:
        updates: gradient steps; give either these or epochs.
        epochs: length in epochs of ceil(transitions / batch_size) updates; drawn with replacement, an epoch of batches
            holds about 63 % of the transitions.
        batch_size: transitions in an update.
        log_period: updates between two rows of metrics, which are means over that period.
        checkpoint_period: updates between two checkpoints; the last update always makes one.

    Raises:
        ConfigError: a setting outside what is allowed.
    """

    updates: int | None = None
    epochs: float | None = None
    batch_size: int = 128
    log_period: int = 100
    checkpoint_period: int = 1000

    def __post_init__(self) -> None:
        if (self.updates is None) == (self.epochs is None):
            raise ConfigError(
                f"updates={self.updates}, epochs={self.epochs}", where="FitConfig", expected="exactly one of the two"
            )
        checks = Checks(self)
        if self.updates is not None:
            checks.whole("updates", least=1)
        if self.epochs is not None:
            checks.number("epochs", "a positive number", lambda epochs: epochs > 0)
        checks.whole("batch_size", least=1, most=_MOST_IN_A_BATCH)
        checks.whole("log_period", "checkpoint_period", least=1)

    def total_updates(self, num_transitions: int) -> int:
        """The run's length in updates, for a dataset of that size."""
        if self.updates is not None:
            return self.updates
        assert self.epochs is not None
        return max(1, round(self.epochs * math.ceil(num_transitions / self.batch_size)))


def fit(
    algorithm: Algorithm,
    replay: ReplaySource,
    config: FitConfig,
    *,
    learner: LearnerConfig | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    init: str | Path | None = None,
    loggers: Sequence[Logger] | None = None,
    device: torch.device | str = "auto",
    notes: Mapping[str, Any] | None = None,
) -> Learner:
    """Trains `algorithm` on `replay`.

    Ctrl-C ends the run after the update in progress, with a checkpoint to resume from, and then raises
    KeyboardInterrupt; a second one ends it at once.

    Args:
        algorithm: trained in place.
        replay: where batches come from.
        config: how long, and how often to log and save.
        learner: how an update is made.
        run: the run's directory, new or empty; None writes nothing to disk.
        resume: go on with the run in `run`, which must have the same settings; the result equals a run that never
            stopped: on a CPU bit for bit, on the same machine and software; on a GPU up to rounding.
        init: a checkpoint's directory to take the first weights from.
        loggers: besides the run's CSV files; None shows progress on the console.
        device: "cpu", "cuda", ..., or "auto" for a GPU where there is one.
        notes: JSON-ready remarks for a new run's config.json, such as where the data lies.

    Returns:
        The learner; `learner.snapshot()` is the trained policy's algorithm.

    Raises:
        ConfigError: settings that contradict each other.
        SpecMismatchError: the data are of another task than the algorithm.
        RunError: the directory is taken, or cannot be resumed; the loss became infinite.
    """
    if not isinstance(replay, ReplaySource):
        raise ConfigError(
            f"{type(replay).__name__} is no replay",
            where="replay",
            expected="a subclass of offrl.ReplaySource",
            hint="derive your class from it: what it lacks has a default there",
        )
    algorithm.spec.require_same(
        replay.spec,
        where="replay",
        hint="construct the algorithm with the replay's spec, which has the legal actions too: Algorithm(replay.spec)",
    )
    if resume and (run is None or init is not None):
        raise ConfigError("resume", where="fit", expected="with `run` and without `init`")
    total = config.total_updates(len(replay))
    _require_memory(config.batch_size, replay)
    if init is not None:
        load_policy(algorithm, Path(init))
        algorithm.copy_to_targets()
    trainer = Learner(algorithm, learner, total_updates=total, device=resolve_device(device))
    replay = replay.to(trainer.device)
    directory = None if run is None else Path(run)
    if directory is not None:
        settings = _describe(trainer, replay, config, init)
        if resume:
            require_same_config(directory, settings)
            load_learner(trainer, latest_checkpoint(directory / "checkpoints"))
        else:
            claim_run(directory)
            try:
                trainer.autotune(replay.gather(replay.indices(0, config.batch_size)))
            except BaseException:  # a run that was refused leaves no empty directory behind
                directory.rmdir()
                raise
            tuned = {"precision": trainer.precision, "compile": trainer.compile}
            write_json(directory / "config.json", {**settings, "settled": tuned, "notes": dict(notes or {})})
            write_environment(directory, {"device": str(trainer.device), "dataset": settings["dataset"]})
            save_checkpoint(trainer, directory / "checkpoints")  # from the first moment on there is one to resume
    with ExitStack() as stack:
        outputs: list[Logger] = list(loggers) if loggers is not None else [ConsoleLogger(total, initial=trainer.step)]
        if directory is not None:
            outputs.append(CSVLogger(directory, resume_step=trainer.step if resume else None))
        for output in outputs:
            stack.callback(output.close)
        _loop(trainer, replay, config, total, outputs, directory)
    return trainer


def _require_memory(batch_size: int, replay: ReplaySource) -> None:
    spec = replay.spec
    size = math.prod(spec.observation_shape) * (1 if spec.is_pixels else 4)
    if 2 * batch_size * size > available_memory():
        raise ConfigError(
            f"{batch_size}, whose observations alone need {2 * batch_size * size / 2**30:.0f} GiB",
            where="FitConfig.batch_size",
            expected="a batch that fits into memory",
        )


def _loop(
    learner: Learner,
    replay: ReplaySource,
    config: FitConfig,
    total: int,
    loggers: Sequence[Logger],
    directory: Path | None,
) -> None:
    clock = _Clock(learner.step)
    periods = [config.log_period, *([] if directory is None else [config.checkpoint_period])]
    plan = plan_updates(learner.step, total, periods, max(learner.updates_per_graph, 1))
    saved = learner.step

    def save() -> None:
        nonlocal saved
        learner.require_sound_weights()
        if directory is not None and saved != learner.step:
            save_checkpoint(learner, directory / "checkpoints")
            saved = learner.step

    ahead = gathered_ahead(replay, plan, config.batch_size, learner.device)
    with _interruptible() as interrupted, ahead as batches:
        while learner.step < total and not interrupted.is_set():
            with clock.waiting():
                batch, count = next(batches)
            learning_rate = learner.learning_rate_at(learner.step + count - 1)
            learner.update(batch, count)
            if learner.step % config.log_period == 0 or learner.step == total:
                metrics = {**learner.read_metrics(), "learning_rate": learning_rate}
                timings = clock.read(learner.step)
                for logger in loggers:
                    logger.log(learner.step, metrics, timings)
            if learner.step % config.checkpoint_period == 0:
                learner.require_finite()
                save()
        learner.require_finite()
        save()
    if interrupted.is_set():
        raise KeyboardInterrupt


class _Clock:
    """Measures updates per second and the share of time spent waiting for data."""

    def __init__(self, step: int) -> None:
        self._step, self._start, self._waited = step, time.perf_counter(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def read(self, step: int) -> dict[str, float]:
        """The figures since the last reading."""
        now = time.perf_counter()
        seconds = now - self._start
        figures = {"updates_per_second": (step - self._step) / seconds, "data_wait": self._waited / seconds}
        self._step, self._start, self._waited = step, now, 0.0
        return figures


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turns the first ctrl-C into an event, so that no update is cut in half; the second one raises as usual."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # only the main thread may handle signals
        return

    def handle(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)


def _describe(learner: Learner, replay: ReplaySource, config: FitConfig, init: str | Path | None) -> dict[str, Any]:
    """What a run was made with: everything that its result depends on, beside software and machine."""
    encoder = getattr(learner.algorithm, "encoder", None)
    return {
        "algorithm": learner.algorithm.name,
        "encoder": None if encoder is None else f"{type(encoder).__module__}:{type(encoder).__qualname__}",
        "algorithm_config": {} if learner.algorithm.config is None else asdict(learner.algorithm.config),
        "learner": asdict(learner.config),
        "fit": asdict(config),
        "replay": replay.settings(),
        "dataset": replay.fingerprint,
        "init": None if init is None else str(init),
        "spec": learner.algorithm.spec.to_dict(),
    }
