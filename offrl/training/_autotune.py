"""Choices made by measuring: which of several ways to do the same is the fastest here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import torch

_ROUNDS = 6  # the first ones pay for warm-up, others may be disturbed by what else runs


def shortest_seconds(ways: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """The shortest time that each way took, in seconds, over a few rounds in which all take their turn."""
    seconds = dict.fromkeys(ways, math.inf)
    for _ in range(_ROUNDS):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds
