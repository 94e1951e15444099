"""The settings of an update and of a run."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch

from offrl.checks import Checks, is_whole
from offrl.errors import ConfigError
from offrl.system.workers import MOST_THREADS

_UNSUITABLE_OPTIMIZERS = {"LBFGS": "it needs the loss as a function", "SparseAdam": "it needs sparse gradients"}
_UNSUITABLE_SETTINGS = {
    "lr": "learning_rate in place of 'lr'",
    "params": "no 'params': the algorithm says what is trained",
    "differentiable": "no 'differentiable': no gradient of an update is ever taken",
}

Precision = Literal["auto", "fp32", "bf16"]
Compile = Literal["auto", "on", "off"]
Schedule = Literal["constant", "cosine"]
NonFinite = Literal["stop", "skip"]
Threads = int | Literal["auto"]
Period = int | str
"""So many updates, or a text such as "1epoch" or "0.5epochs"."""

_MOST_IN_A_BATCH = 2**24  # transitions; more is a slip of the pen
_EPOCHS = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?epochs?")


@dataclass(frozen=True)
class LearnerConfig:
    """Settings of the update.

    Attributes:
        optimizer: the name of a class in torch.optim.
        optimizer_settings: its further keyword arguments, such as {"weight_decay": 0.01}.
        learning_rate: at the first update.
        schedule: "constant", or "cosine" (arXiv:1608.03983), which would reach 0 after the last update.
        polyak: how far targets move towards their online networks, in (0, 1].
        target_period: every how many updates they move; polyak 1 with a longer period is the hard copy of DQN.
        average_decay: of the averaged weights that evaluation and export use, in [0, 1); 0 uses the plain weights.
            After t updates it is at most t / (t + 10), so that the first weights are soon forgotten.
        precision: of the networks; "auto" takes bf16 where a short measurement shows it faster; "fp32" is exact on a
            GPU too (no TF32).
        compile: whether torch.compile works on the loss; "auto" only in runs long enough to repay its warm-up, and
            where a measurement shows it faster.
        threads: of torch on a CPU, for the whole process while it trains; "auto" takes fewer than torch has at the
            start where a measurement shows an update much faster with fewer, as beside another busy process; only in
            runs long enough to repay it. Results of another number of threads differ by rounding.
        updates_per_graph: updates that a CUDA device replays as one CUDA graph, with Adam or AdamW; 0 runs each
            kernel by itself. Without effect on other devices.
        non_finite: what an update does whose loss or a gradient is infinite or NaN: it changes no trained weight, and
            at the next reading of the metrics the run stops ("stop") or counts it as `skipped_updates` ("skip").
            Targets go on following; running statistics, if the networks have any, have seen it.
        augment_shift: pictures move at random by up to so many pixels, in x and y apart (`offrl.training._augment`).
        augment_brightness: pictures become brighter or darker at random by up to so many of the 256 gray levels.
        augment_seed: of the augmentation.

    Raises:
        ConfigError: a setting outside what is allowed.
    """

    optimizer: str = "Adam"
    optimizer_settings: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 3e-4
    schedule: Schedule = "constant"
    polyak: float = 0.005
    target_period: int = 1
    average_decay: float = 0.0
    precision: Precision = "auto"
    compile: Compile = "auto"
    threads: Threads = "auto"
    updates_per_graph: int = 10
    non_finite: NonFinite = "stop"
    augment_shift: int = 0
    augment_brightness: int = 0
    augment_seed: int = 0

    def __post_init__(self) -> None:
        checks = Checks(self)
        kind = getattr(torch.optim, self.optimizer, None) if isinstance(self.optimizer, str) else None
        is_optimizer = inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)
        checks.that(is_optimizer, "optimizer", "a class of torch.optim, such as 'Adam', 'AdamW' or 'SGD'")
        unsuitable = _UNSUITABLE_OPTIMIZERS.get(self.optimizer)
        checks.that(unsuitable is None, "optimizer", f"another one: {unsuitable}")
        checks.that(
            isinstance(self.optimizer_settings, Mapping), "optimizer_settings", "a mapping from names to values"
        )
        for name, instead in _UNSUITABLE_SETTINGS.items():
            checks.that(name not in self.optimizer_settings, "optimizer_settings", instead)
        checks.number("learning_rate", "a positive number", lambda rate: rate > 0)
        checks.choice("schedule", get_args(Schedule))
        checks.number("polyak", "0 < polyak <= 1", lambda polyak: 0 < polyak <= 1)
        checks.whole("target_period", least=1)
        checks.number("average_decay", "0 <= average_decay < 1", lambda decay: 0 <= decay < 1)
        checks.choice("precision", get_args(Precision))
        checks.choice("compile", get_args(Compile))
        checks.choice("non_finite", get_args(NonFinite))
        if self.threads != "auto":
            checks.whole("threads", least=1, most=MOST_THREADS)
        checks.whole("updates_per_graph", "augment_shift", least=0)
        checks.whole("augment_brightness", least=0, most=255)
        checks.whole("augment_seed", least=0, most=2**64 - 1)


@dataclass(frozen=True)
class FitConfig:
    """Length and rhythm of a run.

    An epoch is ceil(transitions / batch_size) updates. Batches are drawn with replacement, so an epoch of them holds
    about 63 % of the transitions; of streamed data it holds all.

    Attributes:
        updates: Length of the run in gradient steps; give either these or epochs.
        epochs: Length of the run in epochs, such as 10 or 0.5.
        batch_size: Transitions in an update.
        log_period: Updates between two rows of metrics, which are means over that period; or "1epoch" and the like:
            three epochs with a row for each give three rows.
        checkpoint_period: Updates between two checkpoints, or "1epoch" and the like; the last update always makes one.

    Raises:
        ConfigError: A setting outside what is allowed.
    """

    updates: int | None = None
    epochs: float | None = None
    batch_size: int = 128
    log_period: Period = 100
    checkpoint_period: Period = 1000

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
            if self.epochs == int(self.epochs):  # 1 and 1.0 are one setting, written in one way
                object.__setattr__(self, "epochs", int(self.epochs))
        checks.whole("batch_size", least=1, most=_MOST_IN_A_BATCH)
        for name in ("log_period", "checkpoint_period"):
            require_period(getattr(self, name), f"FitConfig.{name}")

    def total_updates(self, num_transitions: int) -> int:
        """The run's length in updates, for a dataset of that size."""
        if self.updates is not None:
            return self.updates
        assert self.epochs is not None
        return self._of_epochs(self.epochs, num_transitions)

    def updates_in(self, period: Period, num_transitions: int) -> int:
        """A period in updates, for a dataset of that size.

        Raises:
            ConfigError: It is no period.
        """
        epochs = require_period(period, "period")
        return int(period) if epochs is None else self._of_epochs(epochs, num_transitions)

    def _of_epochs(self, epochs: float, num_transitions: int) -> int:
        return max(1, round(epochs * math.ceil(num_transitions / self.batch_size)))


def require_period(period: object, where: str) -> float | None:
    """Checks that this is a period, and returns the epochs of one that is given in epochs, None for updates.

    Raises:
        ConfigError: It is neither a positive whole number nor a text such as "1epoch".
    """
    if is_whole(period) and period >= 1:  # type: ignore[operator]  # a whole number
        return None
    found = _EPOCHS.fullmatch(period) if isinstance(period, str) else None
    if found is None or float(found[1]) == 0:
        raise ConfigError(f"{period!r}", where=where, expected='updates, 1 or more, or epochs such as "1epoch"')
    return float(found[1])
