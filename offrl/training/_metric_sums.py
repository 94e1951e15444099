"""The metrics of many updates, summed on the device and read on the host once in a while."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from offrl.errors import ConfigError

_SKIPPED = "skipped_updates"


class MetricMeans(NamedTuple):
    """What the updates since the last reading came to.

    Attributes:
        means: Of each metric, over the updates that were applied; NaN where none was.
        num_skipped: Updates that were not, because something was not finite.
    """

    means: dict[str, float]
    num_skipped: float


def _summed_in(value: Tensor) -> torch.dtype:
    """The sum of 781,250 times 0.1, an epoch of 1e8 transitions, is 0.8 % too large in float32."""
    return torch.float32 if value.device.type == "mps" else torch.float64  # Apple's GPUs have no float64


class MetricSums:
    """Sums of metrics.

    Attributes:
        totals: By name, [] on the device; only ever changed in place, because a CUDA graph adds to these very tensors.
        count: Updates that were added; the caller counts, because a graph replays `add` without calling it.
    """

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.count = 0

    def add(self, metrics: Mapping[str, Tensor], skipped: Tensor) -> None:
        """Adds the metrics of an update, or, where `skipped` is 1.0, only that it was skipped.

        Raises:
            ConfigError: They are not those of the updates before: the mean of one that is missing now and then would be
                over updates that do not have it.
        """
        found = {**metrics, _SKIPPED: skipped}
        if self.totals and found.keys() != self.totals.keys():
            raise ConfigError(
                f"the metrics are {sorted(metrics)}",
                where="loss",
                expected=f"{sorted(self.totals.keys() - {_SKIPPED})}, as in the first update",
                hint="return the same metrics in every update",
            )
        totals = {}
        for name, value in found.items():
            counted = value if name == _SKIPPED else torch.where(skipped > 0, 0.0, value)
            total = self.totals.get(name)
            totals[name] = counted.to(_summed_in(value), copy=True) if total is None else total.add_(counted)
        self.totals = totals

    def num_skipped(self) -> float:
        """Updates that were skipped since the last reading; waits for the device."""
        return self.totals[_SKIPPED].item() if self.count else 0.0

    def read(self, *, keep: bool = False) -> MetricMeans:
        """The means since the last reading; waits for the device, and begins anew unless the sums are kept."""
        if not self.totals:
            return MetricMeans({}, 0.0)
        sums = dict(zip(self.totals, torch.stack([*self.totals.values()]).tolist(), strict=True))
        skipped = sums.pop(_SKIPPED)
        applied = self.count - skipped
        if not keep:
            self.forget()
        return MetricMeans({name: total / applied if applied else math.nan for name, total in sums.items()}, skipped)

    def load(self, totals: Mapping[str, Tensor], count: int, device: torch.device) -> None:
        """Goes on with these."""
        placed = {name: total.to(device) for name, total in totals.items()}
        self.totals = {name: total.to(_summed_in(total)) for name, total in placed.items()}  # once they were in float32
        self.count = count

    def forget(self) -> None:
        """Begins anew."""
        for total in self.totals.values():
            total.zero_()
        self.count = 0
