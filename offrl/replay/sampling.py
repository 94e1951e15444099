"""Which transitions are drawn how often: strategies that give each transition a weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from offrl.errors import ConfigError
from offrl.replay.store import FrameStore


class Candidates(NamedTuple):
    """The n transitions to draw from, and the E episodes that they are of.

    Attributes:
        action: int64 [n].
        episode: int64 [n], 0 .. E - 1.
        episode_return: float64 [E], undiscounted.
    """

    action: NDArray[np.int64]
    episode: NDArray[np.int64]
    episode_return: NDArray[np.float64]


def candidates_of(store: FrameStore, rows: NDArray[np.int64] | None = None) -> Candidates:
    """What a strategy sees of a store's transitions `rows` [n], None for all: episodes are numbered from 0."""
    chosen = slice(None) if rows is None else rows
    episodes, episode = np.unique(store.episode_of_rows()[chosen], return_inverse=True)
    return Candidates(store.actions[chosen], episode, store.episode_returns()[episodes])


class Sampling(Protocol):
    """How often each transition is drawn; `str()` of it is what a run records."""

    def weights(self, candidates: Candidates) -> NDArray[np.float64] | None:
        """Weights [n], not negative, not all 0; only their ratios matter. None draws all equally often."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Every transition equally often."""

    def weights(self, candidates: Candidates) -> None:
        """None."""

    def __str__(self) -> str:
        return "uniform"


@dataclass(frozen=True)
class TopReturns:
    """Only the transitions of the episodes with the highest returns, uniformly.

    Attributes:
        share: of the episodes, over 0, at most 1; of 7 episodes 0.2 keeps 2.

    Raises:
        ConfigError: another share.
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"{self.share}", where="TopReturns.share", expected="over 0, at most 1")

    def weights(self, candidates: Candidates) -> NDArray[np.float64]:
        """1 where the transition's episode is among the best, 0 elsewhere. [n]."""
        returns = candidates.episode_return
        is_best = np.zeros(len(returns))
        # The product of 0.28 and 25 is a little over 7 in floating point: that keeps 7, and not 8.
        num_best = max(1, math.ceil(round(self.share * len(returns), 9)))
        is_best[np.argsort(-returns, kind="stable")[:num_best]] = 1
        return is_best[candidates.episode]

    def __str__(self) -> str:
        return f"top-returns:{self.share:g}"


@dataclass(frozen=True)
class SoftmaxReturns:
    """The better the episode, the more often its transitions (return weighting, arXiv:2306.13085).

    A transition weighs exp(g / temperature), g being its episode's return between 0 for the worst episode's and 1 for
    the best one's.

    Attributes:
        temperature: over 0; the higher, the more uniform.

    Raises:
        ConfigError: another temperature.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"{self.temperature}", where="SoftmaxReturns.temperature", expected="a number over 0")

    def weights(self, candidates: Candidates) -> NDArray[np.float64]:
        """1 for the best episode's transitions, less for others. [n]."""
        returns = candidates.episode_return
        spread = float(np.ptp(returns))
        below_best = (returns - returns.max()) / (spread if spread > 0 else 1.0)
        weights: NDArray[np.float64] = np.exp(below_best / self.temperature)
        return weights[candidates.episode]

    def __str__(self) -> str:
        return f"softmax-returns:{self.temperature:g}"


@dataclass(frozen=True)
class BalancedActions:
    """Every action that occurs equally often."""

    def weights(self, candidates: Candidates) -> NDArray[np.float64]:
        """1 over the number of transitions with the same action. [n]."""
        weights: NDArray[np.float64] = 1.0 / np.bincount(candidates.action)[candidates.action]
        return weights

    def __str__(self) -> str:
        return "balanced-actions"


_KINDS: dict[str, Any] = {
    "uniform": Uniform,
    "top-returns": TopReturns,
    "softmax-returns": SoftmaxReturns,
    "balanced-actions": BalancedActions,
}


def parse_sampling(text: str) -> Sampling:
    """The strategy that a text names: "uniform", "top-returns:0.1", "softmax-returns:0.1" or "balanced-actions".

    Raises:
        ConfigError: another text.
    """
    name, colon, number = text.partition(":")
    try:
        strategy: Sampling = _KINDS[name](*([float(number)] if colon else []))
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{text!r}",
            where="sampling",
            expected="uniform, top-returns:SHARE, softmax-returns[:TEMPERATURE] or balanced-actions",
        ) from error
    return strategy
