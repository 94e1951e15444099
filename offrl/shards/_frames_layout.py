"""The frames layout: episodes into .npz shards that hold each frame once, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.shards._members import (
    read_action_mask,
    read_actions,
    read_behaviour_probability,
    read_episode_lengths,
    read_flags,
    read_rewards,
    require_at_ends,
    require_finite,
    unfit,
)
from offrl.shards._npz import NpzReader
from offrl.shards.layouts import ShardRows, episode_windows
from offrl.spec import TaskSpec

_HINT = "re-create the shard"


_FRAMES_MEMBERS = frozenset(
    (
        "actions",
        "rewards",
        "terminated",
        "truncated",
        "episode_lengths",
        "leading",
        "behaviour_probability",
        "action_mask",
    )
)


def read_frames(shard: NpzReader, spec: TaskSpec) -> ShardRows:
    """Reads a shard of the frames layout.

    Raises:
        DatasetError: a member is missing, damaged, or not what the layout says.
    """
    _require_known(shard, spec)
    actions = read_actions(shard, spec.num_actions)
    num_rows = len(actions)
    shard.require_rows(num_rows)
    rewards = read_rewards(shard, num_rows)
    terminated, truncated = read_flags(shard, "terminated", num_rows), read_flags(shard, "truncated", num_rows)
    lengths, leading = _episode_bounds(shard, num_rows)

    is_end = np.zeros(num_rows, np.bool_)
    is_end[np.cumsum(lengths) - 1] = True
    require_at_ends(shard, "terminated", terminated, is_end)
    require_at_ends(shard, "truncated", truncated, is_end)
    truncated |= is_end & ~terminated  # an episode that just stops was cut by the end of its log

    return ShardRows(
        observations=_episode_observations(shard, spec, int((leading + lengths + 1).sum())),
        actions=actions,
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        **episode_windows(lengths, leading)._asdict(),
        observation_shape=spec.observation_shape,
        behaviour_probability=(
            read_behaviour_probability(shard, num_rows) if "behaviour_probability" in shard.names else None
        ),
        action_mask=read_action_mask(shard, actions, spec.num_actions) if "action_mask" in shard.names else None,
    )


def _require_known(shard: NpzReader, spec: TaskSpec) -> None:
    """Refuses other members: one may be an optional one under a misspelt name, which would be missed in silence."""
    known = _FRAMES_MEMBERS | {_observations_name(spec)}
    if unknown := shard.names - known:
        has_next = any(name.startswith("next") for name in unknown)
        hint = "a log of observations and what follows each is named states, next_states, actions, rewards, dones"
        raise shard.fault(
            f"holds {sorted(unknown)}, unknown to the frames layout",
            expected=f"only {', '.join(sorted(known))}",
            hint=hint if has_next else "correct the name, or leave that member out",
        )


def _observations_name(spec: TaskSpec) -> str:
    return "frames" if spec.is_pixels else "observations"


def _episode_bounds(shard: NpzReader, num_rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Steps and leading frames of each episode, [E] and [E]."""
    lengths = read_episode_lengths(shard, num_rows)
    leading = shard.read("leading") if "leading" in shard.names else np.zeros(len(lengths), np.int64)
    if leading.shape != lengths.shape or leading.dtype.kind not in "iu":
        raise unfit(shard, "leading", leading, f"integers [{len(lengths)}], one for each episode")
    if (leading < 0).any() or (leading > 2**31).any():
        raise shard.fault("leading has values out of range", expected="small counts, 0 or more", hint=_HINT)
    return lengths, leading.astype(np.int64)


def _episode_observations(shard: NpzReader, spec: TaskSpec, num_frames: int) -> NDArray[Any]:
    name, dtype = _observations_name(spec), np.uint8 if spec.is_pixels else np.float32
    observations = shard.read(name)
    shape = spec.frame_shape
    if observations.dtype != dtype or observations.shape[1:] != shape:
        raise unfit(shard, name, observations, f"{np.dtype(dtype)} [{num_frames}, {', '.join(map(str, shape))}]")
    if len(observations) != num_frames:
        raise shard.fault(
            f"{name} has {len(observations)} rows",
            expected=f"{num_frames}: leading + steps + 1 of every episode",
            hint=_HINT,
        )
    if not spec.is_pixels:
        require_finite(shard, name, observations)
    return observations
