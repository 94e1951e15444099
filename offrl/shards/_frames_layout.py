"""The frames layout: episodes into .npz shards that hold each frame once, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.shards._members import read_actions, read_flags, read_rewards, require_finite, unfit
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
    rewards = read_rewards(shard, num_rows)
    terminated, truncated = read_flags(shard, "terminated", num_rows), read_flags(shard, "truncated", num_rows)
    lengths, leading = _episode_bounds(shard, num_rows)

    ends = np.cumsum(lengths) - 1
    is_end = np.zeros(num_rows, np.bool_)
    is_end[ends] = True
    for name, flags in (("terminated", terminated), ("truncated", truncated)):
        if (flags & ~is_end).any():
            row = int(np.flatnonzero(flags & ~is_end)[0])
            raise shard.fault(
                f"{name} is true at row {row}, inside an episode",
                expected="true only at the last step of an episode, by episode_lengths",
                hint=_HINT,
            )
    truncated |= is_end & ~terminated  # an episode that just stops was cut by the end of its log

    return ShardRows(
        observations=_episode_observations(shard, spec, int((leading + lengths + 1).sum())),
        actions=actions,
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        **episode_windows(lengths, leading)._asdict(),
        observation_shape=spec.observation_shape,
        behaviour_probability=_behaviour_probability(shard, num_rows),
        action_mask=_action_mask(shard, actions, spec.num_actions),
    )


def _require_known(shard: NpzReader, spec: TaskSpec) -> None:
    """Refuses other members: one may be an optional one under a misspelt name, which would be missed in silence."""
    known = _FRAMES_MEMBERS | {_observations_name(spec)}
    if unknown := shard.names - known:
        raise shard.fault(
            f"holds {sorted(unknown)}, unknown to the frames layout",
            expected=f"only {', '.join(sorted(known))}",
            hint="correct the name, or leave that member out",
        )


def _observations_name(spec: TaskSpec) -> str:
    return "frames" if spec.is_pixels else "observations"


def _episode_bounds(shard: NpzReader, num_rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Steps and leading frames of each episode, [E] and [E]."""
    lengths = shard.read("episode_lengths")
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise unfit(shard, "episode_lengths", lengths, "integers [E]")
    # Each is compared on its own before the sum, which damaged values could overflow.
    if (lengths < 1).any() or (lengths > num_rows).any() or lengths.astype(np.int64).sum() != num_rows:
        raise shard.fault(
            f"episode_lengths (smallest {lengths.min(initial=num_rows)}) do not add up to the rows of actions",
            expected=f"lengths of 1 or more that add up to {num_rows}",
            hint=_HINT,
        )
    leading = shard.read("leading") if "leading" in shard.names else np.zeros(len(lengths), np.int64)
    if leading.shape != lengths.shape or leading.dtype.kind not in "iu":
        raise unfit(shard, "leading", leading, f"integers [{len(lengths)}], one for each episode")
    if (leading < 0).any() or (leading > 2**31).any():
        raise shard.fault("leading has values out of range", expected="small counts, 0 or more", hint=_HINT)
    return lengths.astype(np.int64), leading.astype(np.int64)


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


def _behaviour_probability(shard: NpzReader, num_rows: int) -> NDArray[np.float32] | None:
    if "behaviour_probability" not in shard.names:
        return None
    found = shard.read("behaviour_probability")
    if found.shape != (num_rows,) or found.dtype.kind != "f":
        raise unfit(shard, "behaviour_probability", found, f"float [{num_rows}]")
    known = found[~np.isnan(found)]
    if ((known < 0) | (known > 1)).any():
        raise shard.fault("behaviour_probability has values outside 0..1", expected="probabilities", hint=_HINT)
    return found.astype(np.float32, copy=False)


def _action_mask(shard: NpzReader, actions: NDArray[np.int64], num_actions: int) -> NDArray[np.bool_] | None:
    if "action_mask" not in shard.names:
        return None
    found = shard.read("action_mask")
    if found.shape != (len(actions), num_actions) or found.dtype != np.bool_:
        raise unfit(shard, "action_mask", found, f"bool [{len(actions)}, {num_actions}]")
    illegal = ~found[np.arange(len(actions)), actions]
    if illegal.any():
        row = int(np.flatnonzero(illegal)[0])
        raise shard.fault(
            f"action_mask forbids the action taken at row {row} ({actions[row]})", expected="it legal", hint=_HINT
        )
    return found
