"""What a candidate policy says of every transition of a replay, which criteria are computed from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offrl.algorithms.algorithm import Algorithm
from offrl.losses import greedy_actions
from offrl.ope.episodes import in_parts, last_and_cut, require_legal_choice, require_whole_episodes
from offrl.policies.choices import legal_actions
from offrl.replay import Replay
from offrl.selection._drawn import Drawn
from offrl.system.devices import exact_convolutions


@dataclass(frozen=True)
class Log:
    """N transitions of one step each, in the order of the data, of whole episodes.

    Attributes:
        action: int64 [N].
        reward: float64 [N], as logged, but for `reward_clip`.
        discount: float64 [N], 0 where the episode terminated.
        is_first: bool [N], whether an episode begins with it.
    """

    action: NDArray[np.int64]
    reward: NDArray[np.float64]
    discount: NDArray[np.float64]
    is_first: NDArray[np.bool_]

    @classmethod
    def of(cls, replay: Replay) -> Log:
        """The transitions of a replay, taken one step at a time.

        Raises:
            ConfigError: It leaves out transitions.
        """
        require_whole_episodes(replay, "rank")
        store, rows, config = replay.store, replay.rows, replay.config
        reward = store.rewards[rows].astype(np.float64)
        if config.reward_clip is not None:
            reward = reward.clip(-config.reward_clip, config.reward_clip)
        end = store.segment_end[rows]
        return cls(
            action=store.actions[rows],
            reward=reward,
            discount=np.where(store.terminated[rows], 0.0, config.discount),
            is_first=np.r_[True, end[1:] != end[:-1]],
        )

    def take(self, drawn: Drawn) -> Log:
        """That of some of its episodes."""
        rows = drawn.rows
        return Log(self.action[rows], self.reward[rows], self.discount[rows], self.is_first[rows])


@dataclass(frozen=True)
class Fitted:
    """What models say of N held-out transitions in E episodes, for one candidate; fitted on the training episodes.

    Attributes:
        backup: float64 [N], the regression of the candidate's one-step backups (`one_step_backup`), read at the logged
            observations and actions.
        first_q: float64 [E, A], the candidate's values by fitted Q evaluation at the first observation of each episode.
        behaviour: float32 [N, A], the behaviour's probabilities of all actions.
    """

    backup: NDArray[np.float64] | None = None
    first_q: NDArray[np.float64] | None = None
    behaviour: NDArray[np.float32] | None = None

    def take(self, drawn: Drawn) -> Fitted:
        """What they say of some of the episodes."""
        return Fitted(
            None if self.backup is None else self.backup[drawn.rows],
            None if self.first_q is None else self.first_q[drawn.episodes],
            None if self.behaviour is None else self.behaviour[drawn.rows],
        )


@dataclass(frozen=True)
class Reading:
    """What a candidate says of N transitions.

    Attributes:
        action: int64 [N], the one that it takes at the observation.
        next_action: int64 [N], the one that it takes at the next observation; without a meaning where the episode
            terminated there.
        q: float64 [N, A], its values at the observation, in units of the logged rewards.
        next_q: float64 [N, A], at the next observation, likewise.
        fitted: What models say; empty but for what the criteria ask for.
        has_nan: Whether scores or logits are NaN somewhere: then the actions there mean nothing.
    """

    action: NDArray[np.int64]
    next_action: NDArray[np.int64]
    q: NDArray[np.float64] | None = None
    next_q: NDArray[np.float64] | None = None
    fitted: Fitted = field(default_factory=Fitted)
    has_nan: bool = False

    def values(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`q` and `next_q`, which `rank` asks for where a criterion needs them."""
        assert self.q is not None
        assert self.next_q is not None
        return self.q, self.next_q

    def take(self, drawn: Drawn) -> Reading:
        """What it says of some of the episodes."""
        rows = drawn.rows
        q, next_q = (None if each is None else each[rows] for each in (self.q, self.next_q))
        return Reading(self.action[rows], self.next_action[rows], q, next_q, self.fitted.take(drawn), self.has_nan)


def read_candidate(
    algorithm: Algorithm,
    replay: Replay,
    thresholds: Sequence[float],
    *,
    with_values: bool,
    reward_scale: float = 1.0,
    name: str = "candidate",
) -> Iterator[Reading]:
    """What an algorithm's policy says of a replay's transitions, with each of some thresholds; one pass over the data.

    Args:
        algorithm: The candidate's.
        replay: Whole episodes.
        thresholds: Likelihood thresholds, see `offrl.losses.likely_actions`.
        with_values: Whether to ask for q, too.
        reward_scale: That it was trained with; q is divided by it.
        name: For errors.

    Raises:
        OfflineRLError: The algorithm learns no values.
        SpecMismatchError: Its policy may take no action at some transition.
    """
    require_legal_choice(algorithm, replay, name)
    store, rows = replay.store, replay.rows
    is_last, cut = last_and_cut(replay)
    current = _joined([_outputs(algorithm, store.observations(part), with_values) for part in in_parts(rows)])
    following = tuple(each.roll(-1, 0) for each in current)
    for part in in_parts(cut):
        for all_rows, found in zip(
            following, _outputs(algorithm, store.next_observations(rows[part]), with_values), strict=True
        ):
            all_rows[torch.from_numpy(part)] = found
    mask = None if store.action_mask is None else store.action_mask[rows]
    next_mask = None
    if mask is not None:  # logs hold no legal actions for the observation that an episode ends with: there, all count
        next_mask = np.roll(mask, -1, axis=0) | is_last[:, None]
    legal, next_legal = (
        None if found is None else torch.from_numpy(found)
        for found in (legal_actions(algorithm.spec, len(rows), each) for each in (mask, next_mask))
    )
    has_nan = any(bool(each.isnan().any()) for found in (current, following) for each in found[:2])
    q, next_q = (each[2].double().numpy() / reward_scale if with_values else None for each in (current, following))
    for threshold in thresholds:
        yield Reading(
            action=greedy_actions(current[0], current[1], threshold, legal).numpy(),
            next_action=greedy_actions(following[0], following[1], threshold, next_legal).numpy(),
            q=q,
            next_q=next_q,
            has_nan=has_nan,
        )


def _outputs(algorithm: Algorithm, observations: NDArray[Any], with_values: bool) -> tuple[Tensor, ...]:
    """Scores, logits and, where asked for, q of raw observations [N, ...], on the host. Each [N, A]."""
    device = next(algorithm.parameters()).device
    with torch.inference_mode(), exact_convolutions(device):
        prepared = algorithm.spec.normalise(torch.from_numpy(observations).to(device))
        output = algorithm(prepared)
        values = (algorithm.values(prepared),) if with_values else ()
        return tuple(each.float().cpu() for each in (output.scores, output.logits, *values))


def _joined(parts: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(each) for each in zip(*parts, strict=True))
