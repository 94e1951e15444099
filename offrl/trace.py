"""What a policy thinks along an episode."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from offrl.losses import likely_actions
from offrl.policy import TorchPolicy


@dataclass(frozen=True)
class Trace:
    """An episode of T steps, seen from inside.

    Attributes:
        scores: float32 [T, A], q or whatever ranks the actions.
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


def trace_episode(policy: TorchPolicy, make_env: Callable[[], gymnasium.Env[Any, Any]], seed: int) -> Trace:
    """Plays the episode of `seed`, noting at every step what the policy saw in each action."""
    device = next(policy.algorithm.parameters()).device
    scores, allowed, actions, rewards = [], [], [], []
    with closing(make_env()) as env:
        observation, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            with torch.inference_mode():
                raw = torch.from_numpy(np.array(observation[None])).to(device)
                output = policy.algorithm(policy.spec.normalise(raw))
                scores.append(output.scores[0].cpu().numpy())
                allowed.append(likely_actions(output.logits, policy.threshold)[0].cpu().numpy())
            actions.append(policy(observation[None])[0])
            observation, reward, terminated, truncated, _ = env.step(int(actions[-1]))
            rewards.append(float(reward))
            ended = bool(terminated or truncated)
    return Trace(np.stack(scores), np.stack(allowed), np.array(actions, dtype=np.int64), np.array(rewards))
