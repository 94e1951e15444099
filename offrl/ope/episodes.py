"""Whole episodes of a replay, padded to the length of the longest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.errors import ConfigError, SpecMismatchError
from offrl.replay import Replay


def require_replay(replay: Replay, where: str) -> None:
    """Refuses what is no `Replay`, such as the None that `held_out()` gives of data without held-out episodes.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(replay, Replay):
        return
    is_none = replay is None
    raise ConfigError(
        "None" if is_none else f"a {type(replay).__name__}",
        where=where,
        expected="a Replay over a store",
        hint="open the data with held_out=0.2, say: else held_out() is None"
        if is_none
        else "open the data with open_replay, without stream",
    )


def require_legal_choice(policy: object, replay: Replay, where: str) -> None:
    """Checks that a policy of some actions only may take one at each transition, by the data's masks.

    Raises:
        SpecMismatchError: At some transition it may take none; names the first episode with one.
    """
    store, rows = replay.store, replay.rows
    subset = getattr(getattr(policy, "spec", None), "legal_actions", None)
    if store.action_mask is None or subset is None:
        return
    for part in in_parts(rows):
        stuck = np.flatnonzero(~store.action_mask[part][:, list(subset)].any(axis=1))
        if len(stuck):
            episode = int(store.episode_of_rows()[part[stuck[0]]])
            raise SpecMismatchError(
                f"no action of {subset} is legal at a step of episode {episode}",
                where=where,
                expected="one or more at each step, by action_mask and by the policy's legal_actions",
                hint="leave such episodes out of the data, or take a policy that was trained without legal_actions",
            )


def require_whole_episodes(replay: Replay, where: str) -> None:
    """Checks that what follows a transition is the replay's next one.

    Raises:
        ConfigError: Not a `Replay`, or one whose settings `actions` or `legal_actions` leave out transitions.
    """
    require_replay(replay, where)
    if not replay.has_whole_episodes:
        name = "legal_actions" if replay.config.actions is None else "actions"
        raise ConfigError(
            f"a replay from which {name}={getattr(replay.config, name)} leaves out transitions",
            where=where,
            expected="whole episodes",
            hint=f"open the data without {name}",
        )


def last_and_cut(replay: Replay) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether each transition is the last of its episode, bool [N], and which of these the log cuts, [K].

    What a cut episode goes on to is no logged observation of the replay's: it is asked about apart.

    Args:
        replay: Of N transitions of whole episodes.
    """
    store, rows = replay.store, replay.rows
    is_last: NDArray[np.bool_] = store.segment_end[rows] == rows
    return is_last, np.flatnonzero(is_last & ~store.terminated[rows])


_AT_ONCE = 128  # on a CPU two to three times as fast as 512 pictures, whose layers are memory anew each time


def in_parts(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows by as many as networks are asked about at once. [N] -> some of [128 or fewer]."""
    return [rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)]


@dataclass(frozen=True)
class Episodes:
    """E episodes of up to T steps. Bandit data is E episodes of one step.

    An episode is a segment of the log: where the log cuts an episode, such as at the end of a file, each of its parts
    counts as one, and the second one's value is from where it begins.

    Attributes:
        rows: int64 [E, T], the number of each transition in the replay, -1 after the end.
        length: int64 [E], in steps, 1 or more.
        terminated: bool [E]; false where the log was cut (a time limit, the end of a file).
        reward: float64 [E, T], as logged (neither clipped nor scaled), 0 after the end.
        behaviour: float64 [E, T], the logged probability of the logged action: NaN where unknown, 1 after the end.
    """

    rows: NDArray[np.int64]
    length: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    reward: NDArray[np.float64]
    behaviour: NDArray[np.float64]

    @classmethod
    def of(cls, replay: Replay) -> Episodes:
        """The episodes of a replay's part: of the training part, or of the held-out one.

        Raises:
            ConfigError: Not a `Replay`, or one that leaves out transitions.
        """
        require_whole_episodes(replay, "Episodes.of")
        store, chosen = replay.store, replay.rows
        _, first, length = np.unique(store.segment_end[chosen], return_index=True, return_counts=True)
        step = np.arange(length.max())
        inside = step < length[:, None]
        rows = np.where(inside, first[:, None] + step, -1)
        last = chosen[first + length - 1]
        known = store.behaviour_probability
        logged = np.full(len(chosen), np.nan) if known is None else known[chosen].astype(np.float64)
        return cls(
            rows=rows,
            length=length,
            terminated=store.terminated[last],
            reward=np.where(inside, store.rewards[chosen][rows].astype(np.float64), 0.0),
            behaviour=np.where(inside, logged[rows], 1.0),
        )

    def __len__(self) -> int:
        """E, the number of episodes."""
        return len(self.length)

    def pad(self, values: NDArray[Any], fill: float = 0.0) -> NDArray[Any]:
        """What each transition of the replay has, by episode and step. [N, ...] -> [E, T, ...].

        Args:
            values: One for each transition of the replay.
            fill: Stands after the end of an episode.
        """
        found = values[self.rows]
        found[self.rows < 0] = fill
        return found

    def returns(self, discount: float) -> NDArray[np.float64]:
        """The logged return of each episode, sum over t of discount**t * reward_t. [E]."""
        found: NDArray[np.float64] = self.reward @ discount ** np.arange(self.reward.shape[1], dtype=np.float64)
        return found
