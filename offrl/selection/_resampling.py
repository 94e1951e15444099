"""How sure a choice is: the same statistics where the held-out episodes are drawn again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from offrl.selection._drawn import Drawn
from offrl.selection.reading import Log
from offrl.statistics import LEAST_VALUES

_MOST, _LEAST = 200, 20
_MOST_ROWS = 20_000_000
"""That all resamples of a candidate read together: a log of a million transitions is drawn as often as it takes."""


def resamples(log: Log, seed: int) -> Iterator[Drawn]:
    """As many episodes as there are, drawn with replacement, some 20 to 200 times (Efron 1979, the bootstrap).

    Under five episodes there are none: they would say nothing. The same seed draws the same ones.

    Args:
        log: Of E episodes.
        seed: Of the draws.
    """
    first = np.flatnonzero(log.is_first)
    if len(first) < LEAST_VALUES:
        return
    length = np.diff(np.r_[first, len(log.is_first)])
    generator = np.random.default_rng(seed)
    for _ in range(min(_MOST, max(_LEAST, _MOST_ROWS // len(log.is_first)))):
        episodes = generator.integers(len(first), size=len(first))
        lengths = length[episodes]
        start = lengths.cumsum() - lengths
        rows = np.arange(lengths.sum()) + np.repeat(first[episodes] - start, lengths)
        yield Drawn(rows, episodes)
