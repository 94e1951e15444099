"""The bar of what is fitted on the way to an estimate."""

from __future__ import annotations

from collections.abc import Mapping

from tqdm import tqdm

PERIOD = 50
"""Updates between two moves of the bar."""


class FittingBar:
    """A logger of `fit` that moves a bar and says nothing else.

    Args:
        title: What is fitted.
        total: Its updates.
        progress: Whether to show it; None shows it on a terminal only.
    """

    def __init__(self, title: str, total: int, progress: bool | None) -> None:
        hidden = None if progress is None else not progress
        self._bar = tqdm(total=total, desc=title, unit="update", disable=hidden, leave=False)

    def log(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Moves it to `step`."""
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Takes it away."""
        self._bar.close()
