"""What a behaviour is, random actions, and noise for other behaviours."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from offrl.envs._arguments import require_share
from offrl.errors import ConfigError


class Behaviour(Protocol):
    """What `collect` asks for actions. Picklable; all its randomness comes from the generator of the episode.

    A behaviour may take a second parameter, `action_mask: NDArray | None = None`: where the environment states which
    actions are legal (`info["action_mask"]`), it is given them, bool [A], and must keep to them.
    """

    def begin(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> None:
        """A new episode of `env` has been reset; this episode's parameters are drawn from `rng`."""
        ...

    def __call__(self, observation: NDArray[Any]) -> tuple[int, float]:
        """The action, and how likely this behaviour was to choose it (NaN where unknown)."""
        ...


@dataclass
class RandomBehaviour:
    """Uniformly random actions, legal ones where the environment states which are."""

    def begin(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> None:
        """Takes the number of actions from `env`."""
        self._num_actions = num_actions(env)
        self._rng = rng

    def __call__(self, observation: NDArray[Any], action_mask: NDArray[Any] | None = None) -> tuple[int, float]:
        """A random action; probability 1 / A, or 1 / the number of legal actions."""
        return _draw(self._rng, self._num_actions, action_mask)


@dataclass
class EpsilonGreedy:
    """A deterministic behaviour, which a uniformly random (legal) action replaces with probability `epsilon`.

    Attributes:
        behaviour: deterministic, given its episode.
        epsilon: in [0, 1].

    Raises:
        ConfigError: another epsilon.
    """

    behaviour: Behaviour
    epsilon: float

    def __post_init__(self) -> None:
        self.epsilon = require_share(self.epsilon, "EpsilonGreedy.epsilon")

    def begin(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> None:
        """Begins the inner behaviour's episode."""
        self._num_actions = num_actions(env)
        self._rng = rng
        self.behaviour.begin(env, rng)

    def __call__(self, observation: NDArray[Any], action_mask: NDArray[Any] | None = None) -> tuple[int, float]:
        """The action; probability 1 - epsilon + epsilon / A of the inner behaviour's action, epsilon / A of others.

        A is the number of legal actions. NaN where the inner behaviour is not certain of its action.
        """
        greedy, certainty = act(self.behaviour, observation, action_mask)
        action = greedy
        if self._rng.random() < self.epsilon:
            action, _ = _draw(self._rng, self._num_actions, action_mask)
        num_legal = self._num_actions if action_mask is None else int(np.count_nonzero(action_mask))
        probability = (1 - self.epsilon) * (action == greedy) + self.epsilon / num_legal
        return action, probability if certainty == 1 else math.nan


@dataclass
class Bursts:
    """A behaviour with noise: now and then one random action, held for 1 to 7 steps.

    What a burst chooses has no simple probability: all of the episode's actions have NaN, unless epsilon is 0.

    Attributes:
        behaviour: what plays between the bursts.
        epsilon: bursts start with probability epsilon / 4 at each step without one; 0.3 makes about a quarter of all
            actions random, 1 more than half.

    Raises:
        ConfigError: an epsilon outside 0 .. 1.
    """

    behaviour: Behaviour
    epsilon: float

    def __post_init__(self) -> None:
        self.epsilon = require_share(self.epsilon, "Bursts.epsilon")

    def begin(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> None:
        """Begins the inner behaviour's episode."""
        self._num_actions = num_actions(env)
        self._rng = rng
        self._action, self._steps_left = 0, 0
        self.behaviour.begin(env, rng)

    def __call__(self, observation: NDArray[Any]) -> tuple[int, float]:
        """The inner behaviour's action, or a burst's."""
        action, probability = self.behaviour(observation)
        if self._steps_left == 0 and self._rng.random() < self.epsilon / 4:
            self._action = int(self._rng.integers(self._num_actions))
            self._steps_left = int(self._rng.integers(1, 8))
        if self._steps_left > 0:
            self._steps_left -= 1
            action = self._action
        return action, probability if self.epsilon == 0 else math.nan


def act(behaviour: Behaviour, observation: NDArray[Any], action_mask: NDArray[Any] | None) -> tuple[int, float]:
    """A behaviour's action and its probability; it is given the legal actions if it has a parameter for them."""
    if action_mask is not None and "action_mask" in inspect.signature(behaviour).parameters:
        return behaviour(observation, action_mask=action_mask)  # type: ignore[call-arg]
    return behaviour(observation)


def _draw(rng: np.random.Generator, num_actions: int, action_mask: NDArray[Any] | None) -> tuple[int, float]:
    """A uniformly random legal action, and its probability."""
    if action_mask is None:
        return int(rng.integers(num_actions)), 1 / num_actions
    legal = np.flatnonzero(action_mask)
    return int(legal[rng.integers(len(legal))]), 1 / len(legal)


def num_actions(env: gymnasium.Env[Any, Any]) -> int:
    """A, for an environment with Discrete actions.

    Raises:
        ConfigError: other actions.
    """
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise ConfigError(f"{space}", where="action space", expected="Discrete")
    return int(space.n)
