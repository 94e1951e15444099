"""What other processes take of the cores that this one may use."""

from __future__ import annotations

import os
import time
from pathlib import Path

from offrl.system.workers import num_cores


class OtherLoad:
    """The cores that other processes kept busy since the last reading, as Linux counts them; None elsewhere."""

    def __init__(self) -> None:
        self._last = self._now()

    def cores(self) -> float | None:
        """Of the cores that this process may use, how many others kept busy on average since the last call."""
        last, self._last = self._last, self._now()
        if last is None or self._last is None:
            return None
        others, seconds = (now - before for now, before in zip(self._last, last, strict=True))
        return min(max(others / max(seconds, 1e-9), 0.0), float(num_cores()))

    @staticmethod
    def _now() -> tuple[float, float] | None:
        """Seconds that the cores were busy for others, and the time."""
        try:
            lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
            ticks = os.sysconf("SC_CLK_TCK")
            ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        except (OSError, ValueError, AttributeError):
            return None
        busy = 0
        for name, *counts in (line.split() for line in lines):
            if name in ours:
                user, nice, system, _idle, _waiting, *rest = map(int, counts)
                busy += user + nice + system + sum(rest[:3])  # interrupts, and what the host took for other machines
        own = os.times()
        return busy / ticks - sum(own[:4]), time.monotonic()
