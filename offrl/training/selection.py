"""Choosing among a run's checkpoints while it trains, by statistics on held-out episodes and without playing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from offrl.algorithms.algorithm import Algorithm
from offrl.batch import Batch, FrameBatch
from offrl.checks import Checks
from offrl.errors import ConfigError
from offrl.system.devices import exact_convolutions
from offrl.training._augment import Augmentation, Preparation


@dataclass(frozen=True)
class Statistic:
    """A number that tells something of how good a policy is, without playing.

    Attributes:
        name: Of its column in metrics.csv: `held_out_NAME`.
        function: From an algorithm in evaluation mode and a prepared float32 batch of held-out transitions to the mean
            over the batch, a 0-d tensor. `offrl.selection` has some: `td_error`, `agreement`.
        more_is_better: Whether the larger of two numbers speaks for a policy; else the smaller does.
    """

    name: str
    function: Callable[[Algorithm, Batch], Tensor]
    more_is_better: bool

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.that(isinstance(self.name, str) and self.name.isidentifier(), "name", "a word, such as 'td_error'")
        checks.that(callable(self.function), "function", "a function of an algorithm and a batch")
        checks.that(isinstance(self.more_is_better, bool), "more_is_better", "True or False")


@dataclass(frozen=True)
class Selection:
    """What `fit` measures on held-out transitions with each row of metrics, and what follows from it.

    Attributes:
        statistics: Columns of metrics.csv. The first one decides.
        keep_best: How many of the checkpoints are kept, with what is needed to resume, besides the newest two: those of
            the best statistic, the earlier of equals. None keeps all checkpoints, the older ones without that.
        patience: The run ends when the statistic has not become better for so many rows of metrics. None trains to the
            end.

    Raises:
        ConfigError: A setting outside what is allowed.
    """

    statistics: Sequence[Statistic]
    keep_best: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        checks = Checks(self)
        known = isinstance(self.statistics, Sequence) and all(isinstance(each, Statistic) for each in self.statistics)
        checks.that(known and len(self.statistics) > 0, "statistics", "one or more of offrl.training.Statistic")
        names = [each.name for each in self.statistics]
        checks.that(len({*names}) == len(names), "statistics", "statistics of different names")
        object.__setattr__(self, "statistics", tuple(self.statistics))
        for name in ("keep_best", "patience"):
            if getattr(self, name) is not None:
                checks.whole(name, least=1)

    @property
    def column(self) -> str:
        """The column of metrics.csv that decides."""
        return f"held_out_{self.statistics[0].name}"

    def settings(self) -> dict[str, Any]:
        """For a run's config.json."""
        names = [each.name for each in self.statistics]
        return {"statistics": names, "keep_best": self.keep_best, "patience": self.patience}


def measure_statistics(
    statistics: Sequence[Statistic], algorithm: Algorithm, batches: Iterable[Batch | FrameBatch]
) -> dict[str, float]:
    """The mean of each statistic over batches of equal size, by name; in float32, without augmentation.

    Args:
        statistics: What is measured.
        algorithm: In evaluation mode.
        batches: Raw ones, of held-out transitions.

    Raises:
        ConfigError: A statistic is no 0-d tensor.
        OfflineRLError: The algorithm lacks what a statistic reads, such as values.
    """
    device = next(algorithm.parameters()).device
    prepare = Preparation(algorithm.spec, Augmentation(), device)
    found: dict[str, list[float]] = {each.name: [] for each in statistics}
    with torch.no_grad(), exact_convolutions(device):
        for batch in batches:
            prepared = prepare(batch.to(device), torch.empty(0), "fp32")
            for each in statistics:
                value = each.function(algorithm, prepared)
                if not isinstance(value, Tensor) or value.dim() != 0:
                    got = f"the shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
                    raise ConfigError(
                        got,
                        where=f"Statistic {each.name}",
                        expected="a 0-d tensor",
                        hint="return the mean of the batch",
                    )
                found[each.name].append(float(value))
    return {name: sum(values) / len(values) for name, values in found.items()}


class Ratings:
    """What the deciding statistic said of each row of metrics, and what follows; a function of these rows alone.

    So a run that was stopped and goes on, which reads them in metrics.csv, decides as one that never stopped.

    Args:
        selection: The settings.
        checkpoint_period: In updates; the checkpoints of other steps are never among the best.
        rated: Step -> statistic, of a resumed run.
    """

    def __init__(self, selection: Selection, checkpoint_period: int, rated: Mapping[int, float]) -> None:
        self.selection = selection
        self._period = checkpoint_period
        self._rated = dict(rated)

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes a row of metrics."""
        self._rated[step] = metrics[self.selection.column]

    def steps_to_keep(self) -> set[int] | None:
        """The steps of the checkpoints that are kept beside the newest one; None for all."""
        if self.selection.keep_best is None:
            return None
        # One that a signal made between two rows is gone when the next one is there, as if it had never been made.
        steps = [step for step in sorted(self._rated) if step % self._period == 0]
        return {*sorted(steps, key=self._rank)[: self.selection.keep_best], *steps[-2:]}

    def best_step(self) -> int | None:
        """The step of the best row; the earliest of several; None without a row."""
        return min(self._rated, key=self._rank, default=None)

    def reason_to_end(self) -> str | None:
        """Why the run ends before its last update; None where it does not."""
        patience, best = self.selection.patience, self.best_step()
        if patience is None or best is None or sum(step > best for step in self._rated) < patience:
            return None
        return (
            f"{self.selection.column} has not become better in {patience} rows of metrics, since it was "
            f"{self._rated[best]:.4g} at update {best}"
        )

    def _rank(self, step: int) -> tuple[bool, float, int]:
        """Less is better; NaN is worse than any number."""
        value = self._rated[step]
        is_nan = value != value
        return is_nan, 0.0 if is_nan else -value if self.selection.statistics[0].more_is_better else value, step
