"""What is in a dataset, and what looks wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.datasets.coverage import Measures, References, measure
from offrl.datasets.health import find_problems
from offrl.replay._features import sample_vectors
from offrl.replay._windows import episode_bounds
from offrl.replay.sampling import Sampling, candidates_of, parse_sampling
from offrl.replay.store import FrameStore
from offrl.shards.layouts import Problem
from offrl.statistics import Interval, bootstrap_mean, has_spread

_NUM_BINS = 10
_BAR_WIDTH = 30
_MOST_FEATURES = 40


@dataclass(frozen=True)
class Drawn:
    """What a sampling strategy makes of a dataset.

    Attributes:
        sampling: the strategy, in words.
        share: of the transitions that are ever drawn, in 0..1.
        effective: so many transitions, drawn equally often, would vary as much: (sum w)**2 / sum w**2.
        mean_return: of the episodes of the transitions drawn.
        action_shares: float64 [A], how often each action is drawn.
    """

    sampling: str
    share: float
    effective: float
    mean_return: float
    action_shares: NDArray[np.float64]


@dataclass(frozen=True)
class Feature:
    """One number of the vectors that were logged, over all of them or, in large data, over some that are drawn evenly.

    Attributes:
        name: its name, or its number.
        mean: as logged, like the others.
        deviation: the standard deviation.
        lowest: the smallest value.
        highest: the largest one.
    """

    name: str
    mean: float
    deviation: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class DatasetSummary:
    """Statistics of a dataset of E episodes (segments, where the log does not hold episodes whole).

    Attributes:
        num_transitions: N.
        num_episodes: E.
        num_frames: kept once each.
        returns: float64 [E], undiscounted.
        lengths: int64 [E], in steps.
        action_names: of the task.
        action_counts: int64 [A].
        num_terminated: episodes that ended the task.
        num_truncated: episodes that were cut.
        mean_return: over episodes, with its 95 % bootstrap interval; fewer than five have none.
        largest_rounding_error: of float pixels against the uint8 kept, in gray levels.
        problems: what looks wrong.
        drawn: under another sampling strategy than the uniform one; else None.
        measures: TQ and SACo, where they were asked for; else None.
        features: of vectors; None for pixels.
    """

    num_transitions: int
    num_episodes: int
    num_frames: int
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    action_names: tuple[str, ...]
    action_counts: NDArray[np.int64]
    num_terminated: int
    num_truncated: int
    mean_return: Interval
    largest_rounding_error: float
    problems: tuple[Problem, ...]
    drawn: Drawn | None = None
    measures: Measures | None = None
    features: tuple[Feature, ...] | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The problems, one line each."""
        return tuple(map(str, self.problems))

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-ready."""
        values = dict(vars(self))
        for name in ("returns", "lengths"):
            values[name] = values[name].tolist()
        values["action_counts"] = dict(zip(self.action_names, self.action_counts.tolist(), strict=True))
        values["mean_return"] = self.mean_return._asdict()
        values["action_names"] = list(self.action_names)
        del values["problems"]
        values["warnings"] = list(self.warnings)
        if self.drawn is not None:
            shares = dict(zip(self.action_names, self.drawn.action_shares.tolist(), strict=True))
            values["drawn"] = {**vars(self.drawn), "action_shares": shares}
        if self.measures is not None:
            values["measures"] = self.measures.to_dict()
        if self.features is not None:
            values["features"] = [asdict(each) for each in self.features]
        return values

    def to_text(self) -> str:
        """A table for people: counts, a histogram of the returns, the use of each action, and the warnings."""
        warnings = [f"warning: {line}" for line in self.warnings]
        sections = (self._counts(), self._returns(), self._actions(), self._features(), self._drawn(), warnings)
        return "\n\n".join("\n".join(lines) for lines in sections if lines)

    def _mean_return_text(self) -> str:
        if self.mean_return.low is None:
            return f"{self.mean_return.mean:.1f}, {self.mean_return.bounds(self.num_episodes)}"
        return f"{self.mean_return}, with its 95 % interval"

    def _counts(self) -> list[str]:
        quartiles = np.percentile(self.returns, (0, 25, 50, 75, 100))
        return [
            f"transitions  {self.num_transitions:,} over {self.num_frames:,} frames",
            f"episodes     {self.num_episodes:,}: {self.num_terminated:,} terminated, {self.num_truncated:,} truncated",
            f"lengths      mean {self.lengths.mean():.1f}, {self.lengths.min()} to {self.lengths.max()} steps",
            f"returns      mean {self._mean_return_text()}",
            "             lowest {:.1f}, quartiles {:.1f} | {:.1f} | {:.1f}, highest {:.1f}".format(*quartiles),
            *([] if self.measures is None else self.measures.to_lines()),
        ]

    def _returns(self) -> list[str]:
        counts, edges = np.histogram(self.returns, bins=_NUM_BINS if has_spread(self.returns) else 1)
        bars = [_bar(f"{edge:>13.1f}", int(n), counts.max()) for n, edge in zip(counts, edges[1:], strict=True)]
        return ["return, up to     episodes", *bars]

    def _actions(self) -> list[str]:
        share = 100 / self.num_transitions
        most = self.action_counts.max()
        bars = [
            _bar(f"{index:>3} {name:<22.22}{n * share:5.1f} %", int(n), most)
            for index, (name, n) in enumerate(zip(self.action_names, self.action_counts, strict=True))
        ]
        return [f"{'action':<28}transitions", *bars]

    def _features(self) -> list[str]:
        if self.features is None:
            return []
        shown = [
            f"{each.name:<26.26}{each.mean:>12.5g}{each.deviation:>12.5g}{each.lowest:>12.5g}{each.highest:>12.5g}"
            for each in self.features[:_MOST_FEATURES]
        ]
        left = len(self.features) - len(shown)
        heads = f"{'feature':<26}{'mean':>12}{'deviation':>12}{'lowest':>12}{'highest':>12}"
        return [heads, *shown, *([f"and {left:,} more: --json has all"] if left else [])]

    def _drawn(self) -> list[str]:
        if self.drawn is None:
            return []
        logged = self.action_counts / self.num_transitions
        shares = zip(self.action_names, logged, self.drawn.action_shares, strict=True)
        return [
            f"{self.drawn.sampling} draws from {self.drawn.share:.1%} of the transitions, as varied as "
            f"{self.drawn.effective:,.0f} drawn equally often",
            f"mean return of their episodes {self.drawn.mean_return:.1f}",
            f"{'action':<29}in the data     drawn",
            *(f"{i:>3} {name:<22.22}{have:>13.1%} {drawn:>9.1%}" for i, (name, have, drawn) in enumerate(shares)),
        ]


def _bar(label: str, count: int, most: int) -> str:
    return f"{label} {count:>9,} {'#' * round(_BAR_WIDTH * count / max(most, 1))}".rstrip()


def inspect_dataset(
    store: FrameStore,
    sampling: Sampling | str = "uniform",
    *,
    references: References | None = None,
    progress: bool = False,
) -> DatasetSummary:
    """Counts, returns, action coverage and a health check of a dataset; and what a sampling strategy draws from it.

    Args:
        store: the dataset.
        sampling: the strategy.
        references: for TQ and SACo, which need all frames to be read; None leaves these out.
        progress: show a progress bar while they are read, where stderr is a terminal.

    Raises:
        ConfigError: an unknown strategy.
    """
    first, last = episode_bounds(store.segment_end)
    returns = store.episode_returns()
    action_counts = np.bincount(store.actions, minlength=store.spec.num_actions)
    return DatasetSummary(
        num_transitions=len(store),
        num_episodes=len(last),
        num_frames=len(store.frames),
        returns=returns,
        lengths=last - first + 1,
        action_names=store.spec.action_names,
        action_counts=action_counts,
        num_terminated=int(np.count_nonzero(store.terminated)),
        num_truncated=int(np.count_nonzero(store.truncated & ~store.terminated)),
        mean_return=bootstrap_mean(returns),
        largest_rounding_error=store.report.largest_rounding_error,
        problems=(*store.report.warnings, *find_problems(store)),
        drawn=_drawn(store, parse_sampling(sampling) if isinstance(sampling, str) else sampling),
        measures=None if references is None else measure(store, references, progress=progress),
        features=None if store.spec.is_pixels else tuple(_features(store)),
    )


def _features(store: FrameStore) -> Iterator[Feature]:
    values = sample_vectors(store)
    columns = (values.mean(axis=0), values.std(axis=0), values.min(axis=0), values.max(axis=0))
    for index, numbers in enumerate(zip(*columns, strict=True)):
        yield Feature(store.spec.feature(index), *map(float, numbers))


def _drawn(store: FrameStore, sampling: Sampling) -> Drawn | None:
    candidates = candidates_of(store)
    weights = sampling.weights(candidates)
    if weights is None:
        return None
    probability = weights / weights.sum()
    shares = np.bincount(candidates.action, weights=probability, minlength=store.spec.num_actions)
    return Drawn(
        sampling=str(sampling),
        share=float(np.mean(weights > 0)),
        effective=float(1 / np.square(probability).sum()),
        mean_return=float(probability @ candidates.episode_return[candidates.episode]),
        action_shares=shares.astype(np.float64),
    )


def sample_stacks(store: FrameStore, count: int, seed: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Observations and actions to look at, drawn evenly: uint8 [count, S, H, W] or float32 [count, D], and [count]."""
    rows = np.random.default_rng(seed).integers(len(store), size=count)
    return store.observations(rows), store.actions[rows]
