"""What a policy is: raw observations in, actions out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from offrl.envs.episodes import EpisodeEnd

ActionFunction: TypeAlias = Callable[..., NDArray[np.int64]]
"""Raw observations [N, ...] -> actions [N]: a Policy, or any function that evaluation can play with."""


class Policy(Protocol):
    """A policy, such as TorchPolicy and OnnxPolicy."""

    def __call__(self, observation: NDArray[Any], action_mask: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """Raw observations [N, ...] and, where the task has them, legal actions bool [N, A] -> actions [N]."""
        ...

    def probabilities(self, observation: NDArray[Any], action_mask: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """The probability of each action, for raw observations [N, ...]. [N, A]."""
        ...


class ThresholdPolicy(Policy, Protocol):
    """A policy that can act with another likelihood threshold without being trained again."""

    threshold: float

    def with_threshold(self, threshold: float) -> ThresholdPolicy:
        """The same policy, acting with this threshold."""
        ...


def takes_action_masks(policy: object) -> bool:
    """Whether a policy must be given the legal actions of each observation: its spec says so."""
    return bool(getattr(getattr(policy, "spec", None), "action_masks", False))


class Shown(Protocol):
    """What an environment shows, such as `offrl.envs.episodes.EpisodeRunner`."""

    @property
    def observation(self) -> Any:
        """The newest one."""
        ...

    @property
    def action_mask(self) -> NDArray[np.bool_] | None:
        """The legal actions there, bool [A]; None where the environment states none."""
        ...

    @property
    def end(self) -> EpisodeEnd | None:
        """What the episode came to; None while it goes on."""
        ...
