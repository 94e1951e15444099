"""CartPole's drivers, from hopeless to good."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from offrl.envs.behaviours import EpsilonGreedy


@dataclass
class CartPoleDriver:
    """Balances CartPole by a linear rule on (position, velocity, angle, angular velocity).

    Attributes:
        weights: it pushes right where their product with the observation is positive.
    """

    weights: tuple[float, ...] = (0.1, 0.3, 1.0, 1.0)

    def begin(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> None:
        """Nothing to draw."""

    def __call__(self, observation: NDArray[Any]) -> tuple[int, float]:
        """Push left (0) or right (1)."""
        return int(np.dot(self.weights, observation) > 0), 1.0


@dataclass
class CartPoleMixture:
    """CartPole drivers from hopeless to good, one per episode, with exact probabilities."""

    def begin(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> None:
        """Draws the skill (how much of the good rule is kept) and the noise of this episode."""
        skill = math.sqrt(rng.random())
        weights = skill * np.array((0.1, 0.3, 1.0, 1.0)) + (1 - skill) * rng.normal(size=4)
        epsilon = float(rng.choice((0.1, 0.3, 0.6, 1.0)))
        self._behaviour = EpsilonGreedy(CartPoleDriver(tuple(weights)), epsilon)
        self._behaviour.begin(env, rng)

    def __call__(self, observation: NDArray[Any]) -> tuple[int, float]:
        """The drawn driver's action."""
        return self._behaviour(observation)
