"""Mean and standard deviation of features, over episodes that pass by once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from offrl.shards.episode import Episode
from offrl.spec import TaskSpec


class Moments:
    """The mean and the summed squared distances from it of each feature, over all steps seen so far.

    What the last step of an episode led to is left out: a table may only repeat an observation there.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self.squares = np.zeros(size)

    def watch(self, episodes: Iterator[Episode]) -> Iterator[Episode]:
        """The same episodes, each counted as it passes."""
        for episode in episodes:
            values = episode.observations[: len(episode)].astype(np.float64)
            count, mean = len(values), values.mean(axis=0)
            apart, total = mean - self.mean, self.count + len(values)
            # Chan et al. 1979: the squares of two parts, each about its own mean, joined without loss of digits.
            self.squares += np.square(values - mean).sum(axis=0) + np.square(apart) * self.count * count / total
            self.mean += apart * count / total
            self.count = total
            yield episode

    def standardise(self, spec: TaskSpec) -> TaskSpec:
        """The task, of which networks see each feature less its mean, divided by its standard deviation.

        One that does not vary beyond float32's last digits is seen as 0.
        """
        deviation = np.sqrt(self.squares / max(self.count, 1))
        deviation[deviation <= np.abs(self.mean) * np.finfo(np.float32).eps] = 0
        return spec.standardised(self.mean.tolist(), deviation.tolist())
