"""Trained policies that may be taken, and what they say of logged transitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from offrl.algorithms.algorithm import Algorithm
from offrl.checks import Checks, is_number
from offrl.errors import ConfigError
from offrl.replay import Replay
from offrl.selection.reading import Reading, read_candidate


@dataclass(frozen=True)
class Candidate:
    """A trained policy that may be taken.

    Attributes:
        name: Such as its checkpoint's path.
        load: Gives its algorithm, when its turn comes.
        thresholds: That it may act with, in [0, 1); each is ranked by itself. None is the algorithm's own.
        reward_scale: That it was trained with; finite and not 0.

    Raises:
        ConfigError: Another threshold or scale, no thresholds, or an algorithm in place of a function.
    """

    name: str
    load: Callable[[], Algorithm]
    thresholds: Sequence[float] | None = None
    reward_scale: float = 1.0

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.that(isinstance(self.name, str), "name", "a text, such as the checkpoint's path")
        if isinstance(self.load, Algorithm) or not callable(self.load):
            raise ConfigError(
                f"a {type(self.load).__name__}",
                where="Candidate.load",
                expected="a function that gives the algorithm",
                hint="pass lambda: algorithm",
            )
        if self.thresholds is not None:
            is_list = isinstance(self.thresholds, Sequence | np.ndarray) and not isinstance(self.thresholds, str)
            known = is_list and all(is_number(each) and 0 <= each < 1 for each in self.thresholds)
            checks.that(known and len(self.thresholds) > 0, "thresholds", "one or more numbers in [0, 1), or None")
        checks.number("reward_scale", "a finite number other than 0", lambda scale: scale != 0)


def read_candidates(
    candidates: Sequence[Candidate], replay: Replay, *, with_values: bool, title: str, progress: bool | None
) -> Iterator[tuple[str, float, Reading]]:
    """What each policy says of a part of the data, with its name and threshold; a network at a time is in memory.

    Args:
        candidates: Loaded when their turn comes.
        replay: The part.
        with_values: Whether values are read, which not every algorithm learns.
        title: Of the bar.
        progress: Whether to show a bar; None shows it on a terminal only.

    Raises:
        ConfigError: `load` gives no algorithm.
        OfflineRLError: Values of a candidate that learns none.
        SpecMismatchError: A candidate is of another task, or its policy may take no action at some transition.
    """
    hidden = None if progress is None else not progress
    for candidate in tqdm(candidates, title, unit="candidate", disable=hidden, leave=False):
        algorithm = candidate.load()
        if not isinstance(algorithm, Algorithm):
            raise ConfigError(
                f"load gives a {type(algorithm).__name__}", where=candidate.name, expected="an offrl.Algorithm"
            )
        algorithm.eval()
        algorithm.spec.require_same(
            replay.spec, candidate.name, hint="select among policies of the data's task", legal_actions=False
        )
        thresholds = [algorithm.threshold] if candidate.thresholds is None else [*candidate.thresholds]
        readings = read_candidate(
            algorithm,
            replay,
            thresholds,
            with_values=with_values,
            reward_scale=candidate.reward_scale,
            name=candidate.name,
        )
        for threshold, reading in zip(thresholds, readings, strict=True):
            yield candidate.name, threshold, reading
