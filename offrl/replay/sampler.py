"""(seed, step) -> indices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offrl.errors import ConfigError


class Sampler:
    """Draws transitions with replacement, as a pure function of (seed, step).

    With no other state, a resumed run draws what the run would have drawn, and every rank can draw the global batch.
    The counter-based generator is Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

    Args:
        size: transitions to draw from, at least 1.
        seed: 0 .. 2**64 - 1.
        weights: [size], how often each is drawn in proportion to the others; not negative, not all 0. None draws all
            equally often.

    Raises:
        ConfigError: a setting outside what is allowed.
    """

    def __init__(self, size: int, seed: int, weights: NDArray[np.float64] | None = None) -> None:
        if size < 1:
            raise ConfigError(f"{size}", where="Sampler.size", expected="1 or more")
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
            raise ConfigError(f"{seed}", where="Sampler.seed", expected="0 .. 2**64 - 1")
        self.size = size
        self.seed = int(seed)
        self._cumulative = None if weights is None else _cumulative(weights, size)

    def indices(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """The transitions of update `step` (0 or more), int64 [batch_size].

        Raises:
            ConfigError: a negative step or a batch size below 1.
        """
        _require_update(step, batch_size)
        generator = _generator(self.seed, step)
        if self._cumulative is None:
            return generator.integers(self.size, size=batch_size, dtype=np.int64)
        drawn = generator.random(batch_size) * self._cumulative[-1]
        # To the right: what weighs nothing is passed over.
        found: NDArray[np.int64] = np.searchsorted(self._cumulative, drawn, side="right").astype(np.int64)
        return found


def _cumulative(weights: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    total = np.cumsum(weights, dtype=np.float64)
    if weights.shape != (size,) or not np.isfinite(weights).all() or weights.min() < 0 or not 0 < total[-1] < np.inf:
        raise ConfigError(
            f"weights {weights.dtype} {list(weights.shape)}",
            where="Sampler.weights",
            expected=f"[{size}] finite numbers, none negative, not all 0",
        )
    return total


def _generator(seed: int, step: int, stream: int = 0) -> np.random.Generator:
    """A generator for each (seed, step, stream); streams lie 2**192 numbers apart."""
    key = np.array([seed, step], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], np.uint64)))


def _require_update(step: int, batch_size: int) -> None:
    if step < 0:
        raise ConfigError(f"{step}", where="Sampler.indices step", expected="0 or more")
    if batch_size < 1:
        raise ConfigError(f"{batch_size}", where="Sampler.indices batch_size", expected="1 or more")
