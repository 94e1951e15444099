"""How good a dataset is and how much of the task it covers: TQ and SACo of Schweighofer et al. 2022 (arXiv:2111.04714).

Together they tell which algorithms have a chance. In the paper's experiments imitation (BC) follows TQ, DQN and its kin
need a high SACo, and algorithms that keep to the behaviour (BCQ, CQL, CRR) do well where either is high or both are
moderate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from offrl.checks import is_whole
from offrl.datasets._pairs import cells, feature_ranges, frame_hashes, stack_hashes, unique_pairs
from offrl.errors import ConfigError, DatasetError
from offrl.replay.store import FrameStore
from offrl.shards.manifest import MANIFEST_NAME, Manifest


def trajectory_quality(returns: ArrayLike, random_return: float, best_return: float) -> float:
    """TQ, the mean return of a dataset, 0 for that of random actions and 1 for that of the best online policy.

    TQ(D) = (g(D) - g_min) / (g_max - g_min), where g(D) is the mean undiscounted return of the episodes of D
    (arXiv:2111.04714, section 3).

    Args:
        returns: of the dataset's episodes, [E].
        random_return: g_min, the mean return of random actions.
        best_return: g_max, the mean return of the best policy found online.

    Raises:
        ConfigError: no returns, or a best return that is not over the random one.
    """
    found = np.asarray(returns, np.float64)
    if not found.size:
        raise ConfigError("no returns", where="trajectory_quality", expected="one or more")
    if not best_return > random_return:
        raise ConfigError(
            f"best_return {best_return:g} and random_return {random_return:g}",
            where="trajectory_quality",
            expected="a best return over the random one",
            hint="let the online learner play for longer, or with other settings",
        )
    return float((found.mean() - random_return) / (best_return - random_return))


def state_action_coverage(num_pairs: int, num_reference_pairs: int) -> float:
    """SACo, how many different state-action pairs a dataset has, relative to a reference dataset.

    SACo(D) = u(D) / u(D_ref), where u counts the unique pairs of state and action (arXiv:2111.04714, section 3); the
    reference is the replay dataset, all that an online agent saw.

    Args:
        num_pairs: u(D), see `count_pairs`.
        num_reference_pairs: u(D_ref), over 0.

    Raises:
        ConfigError: a count that is none.
    """
    if num_pairs < 0 or num_reference_pairs < 1:
        raise ConfigError(
            f"{num_pairs} pairs of {num_reference_pairs}",
            where="state_action_coverage",
            expected="0 or more pairs, and 1 or more in the reference dataset",
        )
    return num_pairs / num_reference_pairs


@dataclass(frozen=True)
class References:
    """What TQ and SACo refer to; None for what is not known.

    Attributes:
        random_return: mean return of random actions.
        best_return: mean return of the best policy found online.
        num_pairs: unique state-action pairs of the replay dataset.
        feature_low: of vectors, the lowest value of each feature in the replay dataset, [D].
        feature_high: likewise the highest, [D].
    """

    random_return: float | None = None
    best_return: float | None = None
    num_pairs: int | None = None
    feature_low: tuple[float, ...] | None = None
    feature_high: tuple[float, ...] | None = None

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> References:
        """Those that a dataset of `offrl.collection.collect_protocol` records; none for any other dataset.

        Raises:
            DatasetError: the manifest has something else in their place.
        """
        recorded: dict[str, Any] = {name: (manifest.protocol or {}).get(name) for name in _REFERENCES}
        for name, kind in _REFERENCES.items():
            value = recorded[name]
            if value is not None and not kind(value):
                expected = "numbers" if kind is _are_numbers else "a number"
                raise DatasetError(f"protocol.{name} is {value!r}", where=MANIFEST_NAME, expected=expected)
        lists = {name: tuple(recorded[name] or ()) or None for name in ("feature_low", "feature_high")}
        low, high = lists.values()
        if len(low or ()) != len(high or ()):
            raise DatasetError(
                f"protocol.feature_high is of {len(high or ())} features",
                where=MANIFEST_NAME,
                expected=f"{len(low or ())}, as feature_low is",
            )
        return cls(**{**recorded, **lists})

    @classmethod
    def of_directory(cls, directory: Path | str) -> References:
        """Those that the manifest of the dataset in this directory records, if it has one.

        Raises:
            DatasetError: a damaged manifest.
        """
        if not (Path(directory) / MANIFEST_NAME).exists():
            return cls()
        return cls.of_manifest(Manifest.load(directory))

    def to_dict(self) -> dict[str, Any]:
        """As `of_manifest` reads it, JSON-ready."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def of_store(cls, store: FrameStore, *, progress: bool = False) -> References:
        """The pairs and the features of a dataset that is to be the reference; its returns say nothing here.

        Raises:
            DatasetError: the store was changed since it was written.
        """
        low, high = (None, None) if store.spec.is_pixels else feature_ranges(store)
        ranges = cls(feature_low=low, feature_high=high)
        return replace(ranges, num_pairs=count_pairs(store, ranges, progress=progress))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_numbers(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_number, value))


_REFERENCES: dict[str, Callable[[object], bool]] = {
    "random_return": _is_number,
    "best_return": _is_number,
    "num_pairs": is_whole,
    "feature_low": _are_numbers,
    "feature_high": _are_numbers,
}


def count_pairs(store: FrameStore, references: References | None = None, *, progress: bool = False) -> int:
    """How many different pairs of state and action a dataset has; states are observations, stacks as a whole.

    Of vectors each feature is told apart in 100 equal bins from its lowest to its highest value in the reference
    dataset, and one for what lies under and over them: no two states of CartPole, say, are ever quite equal.

    Pairs are told apart by 8 bytes of BLAKE2b, in 8 bytes of memory each: of n pairs about n**2 / 2**65 are taken for
    another, far less than one even of a hundred million. The frames are read once, a few thousand at a time.

    Args:
        store: the dataset.
        references: with the range of each feature; default: the dataset's own.
        progress: show a progress bar, where stderr is a terminal.

    Raises:
        DatasetError: the references are of vectors of another length, or the store was changed since it was written.
    """
    known = References() if references is None else references
    if store.spec.is_pixels:
        return unique_pairs(store, partial(stack_hashes, store, frame_hashes(store, progress)))
    low, high = known.feature_low, known.feature_high
    if low is None or high is None:
        low, high = feature_ranges(store)
    if {len(low), len(high)} != {store.frames.shape[1]}:
        raise DatasetError(
            f"references for vectors of {len(low)} features",
            where=store.path,
            expected=f"{store.frames.shape[1]}, as the data has",
            hint="name a reference dataset of the same task",
        )
    return unique_pairs(store, partial(cells, store, np.array(low), np.array(high)))


@dataclass(frozen=True)
class Measures:
    """TQ and SACo of a dataset.

    Attributes:
        num_pairs: unique state-action pairs.
        references: what the measures refer to.
        tq: see `trajectory_quality`; None where the references are not known, or the best return is not over random's.
        saco: see `state_action_coverage`; None where the replay dataset's pairs are not known.
    """

    num_pairs: int
    references: References
    tq: float | None
    saco: float | None

    @property
    def is_complete(self) -> bool:
        """Whether both are known."""
        return self.tq is not None and self.saco is not None

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-ready."""
        known = self.references
        references = {name: getattr(known, name) for name in ("random_return", "best_return", "num_pairs")}
        return {"tq": self.tq, "saco": self.saco, "num_pairs": self.num_pairs, "references": references}

    def to_lines(self) -> list[str]:
        """What is known, in words."""
        known = self.references
        lines = []
        if self.tq is not None:
            lines.append(
                f"TQ           {self.tq:.2f}: the mean return, where 0 is random ({known.random_return:,.1f}) "
                f"and 1 the best online policy ({known.best_return:,.1f})"
            )
        elif known.best_return is not None and known.random_return is not None:
            lines.append(
                f"TQ           not defined: the best online policy ({known.best_return:,.1f}) is not better than "
                f"random actions ({known.random_return:,.1f})"
            )
        if self.saco is not None:
            lines.append(
                f"SACo         {self.saco:.2f}: {self.num_pairs:,} unique state-action pairs, of the replay dataset's "
                f"{known.num_pairs:,}"
            )
        else:
            lines.append(
                f"unique       {self.num_pairs:,} state-action pairs; --reference REPLAY, a dataset that offrl collect "
                "--kind replay makes, gives TQ and SACo"
            )
        if self.is_complete:
            lines.append(f"             {READING}")
        return lines


READING = "in arXiv:2111.04714, BC needs a high TQ, DQN a high SACo; BCQ does well with either, or both moderate"
"""What the paper that defines TQ and SACo found for algorithms."""


def measure(store: FrameStore, references: References, *, progress: bool = False) -> Measures:
    """TQ and SACo of a dataset, as far as what they refer to is known.

    Args:
        store: the dataset.
        references: see `References`.
        progress: show a progress bar, where stderr is a terminal.

    Raises:
        DatasetError: the store was changed since it was written.
    """
    num_pairs = count_pairs(store, references, progress=progress)
    low, high = references.random_return, references.best_return
    tq = None
    if low is not None and high is not None and high > low:
        tq = trajectory_quality(store.episode_returns(), low, high)
    saco = None
    if references.num_pairs is not None:
        saco = state_action_coverage(num_pairs, references.num_pairs)
    return Measures(num_pairs, references, tq, saco)
