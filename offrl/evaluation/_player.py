"""A policy that plays several episodes at once: what it is given at each step, and what it draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.errors import SpecMismatchError
from offrl.policies.policy import ActionFunction, Shown, takes_action_masks


class Player:
    """A policy in a batch of N rows, each with an episode of its own.

    Where the policy asks for legal actions, a step that states none stands for all of them, as when data is collected.
    That needs one step that has stated some: before, the policy is given none, which it may refuse.

    Args:
        policy: as for `offrl.evaluation.evaluate`. The random actions of offrl's policies depend on the seed of the
            episode, and on the policy's own: not on the episodes beside it or on what the policy has played before.
        num_rows: N. Rounding depends on the size of a batch, so it stays the same.

    Attributes:
        policy: to be called with `inputs`.
    """

    def __init__(self, policy: Any, num_rows: int) -> None:
        self.policy: ActionFunction = policy
        self._draws: _EpisodeDraws | None = None
        # Asked of the class: what passes attributes on to a policy inside acts by itself, as functions do.
        if hasattr(type(policy), "drawing_from") and policy.is_random:
            self._draws = _EpisodeDraws(policy.seed)
            self.policy = policy.drawing_from(self._draws)
        self._rows = range(num_rows)
        self._observations: dict[int, NDArray[Any]] = {}
        self._wants_masks = takes_action_masks(policy)
        self._masks: dict[int, NDArray[np.bool_] | None] = {}
        self._every: NDArray[np.bool_] | None = None  # all actions, once their number is known

    def begin(self, row: int, seed: int, shown: Shown) -> None:
        """Begins the episode of `seed` in this row, with what the environment shows first."""
        if self._draws is not None:
            self._draws.begin(row, seed)
        self.show(row, shown)

    def show(self, row: int, shown: Shown) -> None:
        """What the environment in this row shows after a step.

        Raises:
            SpecMismatchError: the observation has another shape than the ones before, or another kind, such as floats
                after integers; or a mask is of another number of actions.
        """
        observation = np.asarray(shown.observation)
        first = next(iter(self._observations.values()), observation)
        if observation.shape == first.shape and np.can_cast(observation.dtype, first.dtype, "same_kind"):
            observation = observation.astype(first.dtype, copy=False)
        else:
            raise SpecMismatchError(
                f"{observation.dtype} {list(observation.shape)} after {first.dtype} {list(first.shape)}",
                where="the environment's observations",
                expected="one shape and kind, after a reset as after a step",
                hint="correct the environment, such as with numpy.asarray(observation, dtype) in both",
            )
        self._observations[row] = observation
        mask = shown.action_mask
        if self._wants_masks and self._every is None and mask is not None:
            self._every = np.ones(mask.shape, np.bool_)
        if mask is not None and self._every is not None and mask.shape != self._every.shape:
            raise SpecMismatchError(
                f"an action_mask for {len(mask)} actions after one for {len(self._every)}",
                where="the environment's info",
                expected="one for each action, at every step",
                hint="correct the environment",
            )
        # What is legal after the end is nobody's business, and may be nothing at all.
        self._masks[row] = None if shown.end is not None else mask

    def inputs(self) -> tuple[Any, ...]:
        """Observations [N, ...] and, if the policy asks for them, legal actions bool [N, A]; new arrays each time."""
        observations = np.stack([self._observations[row] for row in self._rows])
        if not self._wants_masks:
            return (observations,)
        if self._every is None:
            return observations, None
        stated = (self._masks[row] for row in self._rows)
        return observations, np.stack([self._every if mask is None else mask for mask in stated])


class _EpisodeDraws:
    """Random numbers for the rows of a batch, each from the generator of the episode in the row."""

    def __init__(self, policy_seed: Any) -> None:
        self._key = [int(number) for number in np.random.default_rng(policy_seed).integers(2**32, size=2)]
        self._rngs: dict[int, np.random.Generator] = {}

    def begin(self, row: int, seed: int) -> None:
        # Other streams than those of `episode_rng`, which the environment's own random actions come from.
        sequence = np.random.SeedSequence(seed, spawn_key=(1, *self._key))
        self._rngs[row] = np.random.default_rng(sequence)

    def random(self, size: int, /) -> NDArray[np.float64]:
        return np.array([self._rngs[row].random() for row in range(size)])

    def integers(self, high: Any, /, *, size: int | None = None) -> NDArray[np.int64]:
        highs = np.broadcast_to(high, size if size is not None else np.shape(high))
        return np.array([self._rngs[row].integers(each) for row, each in enumerate(highs)], np.int64)
