"""What a policy thinks along an episode."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from offrl.checks import is_whole
from offrl.envs._arguments import require_factory
from offrl.envs.episodes import EpisodeRunner
from offrl.errors import ConfigError
from offrl.evaluation._arguments import require_policy
from offrl.evaluation._player import Player
from offrl.policies.choices import Choices
from offrl.policies.policy import Policy
from offrl.spec import TaskSpec


class OpenPolicy(Policy, Protocol):
    """A policy that shows what it chooses from: TorchPolicy, OnnxPolicy."""

    spec: TaskSpec

    def choices(self, observation: NDArray[Any], action_mask: NDArray[Any] | None = None) -> Choices:
        """The scores of the actions and which of them are allowed, for raw observations [N, ...]."""
        ...


@dataclass(frozen=True)
class Trace:
    """An episode of T steps, seen from inside.

    Attributes:
        scores: float32 [T, A], q or whatever ranks the actions; -inf for illegal ones.
        allowed: bool [T, A], the actions that the policy chose from.
        actions: int64 [T], taken.
        rewards: float64 [T].
    """

    scores: NDArray[np.float32]
    allowed: NDArray[np.bool_]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float64]

    @property
    def score(self) -> float:
        """The undiscounted return."""
        return float(self.rewards.sum())


def trace_episode(
    policy: OpenPolicy,
    make_env: Callable[[], gymnasium.Env[Any, Any]],
    seed: int,
    *,
    max_steps: int | None = None,
    on_step: Callable[[], object] | None = None,
) -> Trace:
    """Plays the episode of `seed`, noting at every step what the policy saw in each action.

    Args:
        policy: raw observations [1, ...] -> actions [1], and what it chooses from.
        make_env: makes the environment.
        seed: given to `reset`.
        max_steps: stop there; None plays to the end.
        on_step: called after each step, such as `tqdm.update`; a whole episode may take a while.

    Raises:
        ConfigError: an argument of another kind, or no steps.
    """
    require_policy(policy, "trace_episode")
    require_factory(make_env, "trace_episode")
    if not (is_whole(seed) and seed >= 0) or not (max_steps is None or (is_whole(max_steps) and max_steps >= 1)):
        raise ConfigError(
            f"seed={seed!r}, max_steps={max_steps!r}",
            where="trace_episode",
            expected="a seed of 0 or more; 1 or more steps, or None for all",
        )
    scores: list[NDArray[np.float32]] = []
    allowed: list[NDArray[np.bool_]] = []
    actions: list[int] = []
    rewards: list[float] = []
    with closing(make_env()) as env:
        runner = EpisodeRunner(env)
        runner.reset(seed)
        player = Player(policy, num_rows=1)
        player.begin(0, int(seed), runner)
        while not runner.ended and runner.length != max_steps:
            inputs = player.inputs()
            choices = policy.choices(*inputs)
            scores.append(choices.scores[0].cpu().numpy())
            allowed.append(choices.allowed[0].cpu().numpy())
            actions.append(int(player.policy(*inputs)[0]))
            runner.step(actions[-1])
            player.show(0, runner)
            rewards.append(runner.reward)
            if on_step is not None:
                on_step()
    return Trace(np.stack(scores), np.stack(allowed), np.array(actions, dtype=np.int64), np.array(rewards))
