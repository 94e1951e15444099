"""The two shard layouts, read into one form: rows whose stacks are windows over frames that are each kept once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from offrl.replay.members import read_actions, read_flags, read_rewards, require_finite, require_rows, unfit
from offrl.replay.npz import NpzReader
from offrl.spec import TaskSpec

Layout = Literal["frames", "stacked"]
Dones = Literal["terminated", "not_done"]

_SURELY_OFF = 0.25  # gray levels
_TOO_MANY_TO_BE_CHANCE = 64  # pixels that are all multiples of 1/255; one in ten is, roughly
_MOST_CHANNELS = 16
_CHUNK = 256  # rows handled at once where a temporary array would be several times the shard's size
_MEND = "re-create the shard"

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


@dataclass(frozen=True)
class ShardRows:
    """One shard's N transitions in reading order, cut into segments of rows that follow each other.

    Attributes:
        observations: uint8 [F, H, W] single frames, or float32 [F, D].
        actions: int64 [N].
        rewards: float32 [N].
        terminated: bool [N], true only at the end of a segment.
        truncated: bool [N]; the end of every segment is terminated or truncated.
        last: int64 [N], the newest frame of the observation.
        first: int64 [N], the oldest frame that the observation may reach; it stands for what came before it.
        next_last: int64 [N], like `last` for the next observation.
        next_first: int64 [N], like `first` for the next observation.
        segment_end: int64 [N], the last row of the row's segment.
        observation_shape: (S, H, W) or (D,).
        behaviour_probability: float32 [N], NaN where unknown, or None.
        action_mask: bool [N, A], or None.
        largest_rounding_error: of float pixels against the uint8 kept, in gray levels.
        newest_first: whether the stacks look as if they held their newest frame first.
    """

    observations: NDArray[Any]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    last: NDArray[np.int64]
    first: NDArray[np.int64]
    next_last: NDArray[np.int64]
    next_first: NDArray[np.int64]
    segment_end: NDArray[np.int64]
    observation_shape: tuple[int, ...]
    behaviour_probability: NDArray[np.float32] | None = None
    action_mask: NDArray[np.bool_] | None = None
    largest_rounding_error: float = 0.0
    newest_first: bool = False

    def __len__(self) -> int:
        """N, in transitions."""
        return len(self.actions)


def detect_layout(shard: NpzReader) -> Layout:
    """Which layout a shard has, by its members.

    Raises:
        DatasetError: neither.
    """
    if "states" in shard.names:
        return "stacked"
    if shard.names & {"frames", "observations"}:
        return "frames"
    raise shard.fault(
        f"has the members {sorted(shard.names)}",
        expected="states, actions, next_states, rewards, dones (stacked), or frames or observations, actions, rewards, "
        "terminated, truncated, episode_lengths (frames)",
        mend="save it in one of these layouts",
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
                mend=_MEND,
            )
    truncated |= is_end & ~terminated  # an episode that just stops was cut by the end of its log

    episode_rows = leading + lengths + 1
    first_of_episode = np.cumsum(episode_rows) - episode_rows
    step = np.arange(num_rows) - np.repeat(ends + 1 - lengths, lengths)
    first = np.repeat(first_of_episode, lengths)
    last = first + np.repeat(leading, lengths) + step
    return ShardRows(
        observations=_episode_observations(shard, spec, int(episode_rows.sum())),
        actions=actions,
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        last=last,
        first=first,
        next_last=last + 1,
        next_first=first,
        segment_end=np.repeat(ends, lengths),
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
            mend="correct the name, or leave that member out",
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
            mend=_MEND,
        )
    leading = shard.read("leading") if "leading" in shard.names else np.zeros(len(lengths), np.int64)
    if leading.shape != lengths.shape or leading.dtype.kind not in "iu":
        raise unfit(shard, "leading", leading, f"integers [{len(lengths)}], one for each episode")
    if (leading < 0).any() or (leading > 2**31).any():
        raise shard.fault("leading has values out of range", expected="small counts, 0 or more", mend=_MEND)
    return lengths.astype(np.int64), leading.astype(np.int64)


def _episode_observations(shard: NpzReader, spec: TaskSpec, num_frames: int) -> NDArray[Any]:
    name, dtype = _observations_name(spec), np.uint8 if spec.is_pixels else np.float32
    observations = shard.read(name)
    shape = spec.observation_shape[1:] if spec.is_pixels else spec.observation_shape
    if observations.dtype != dtype or observations.shape[1:] != shape:
        raise unfit(shard, name, observations, f"{np.dtype(dtype)} [{num_frames}, {', '.join(map(str, shape))}]")
    if len(observations) != num_frames:
        raise shard.fault(
            f"{name} has {len(observations)} rows",
            expected=f"{num_frames}: leading + steps + 1 of every episode",
            mend=_MEND,
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
        raise shard.fault("behaviour_probability has values outside 0..1", expected="probabilities", mend=_MEND)
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
            f"action_mask forbids the action taken at row {row} ({actions[row]})", expected="it legal", mend=_MEND
        )
    return found


def read_stacked(shard: NpzReader, shape: tuple[int, ...] | None, num_actions: int | None, dones: Dones) -> ShardRows:
    """Reads a shard of the stacked layout, keeping each frame once wherever rows follow each other.

    Row i + 1 follows row i where `states[i + 1]` equals `next_states[i]`, that is `states[i]` moved on by one
    frame, and row i is not done. Frames of rows that do not follow each other are all kept.

    Args:
        shard: the open shard.
        shape: what an observation must be, (S, H, W) or (D,), or None to take it as it comes.
        num_actions: A, or None to take any.
        dones: what a true value says: "terminated", or "not_done" for loggers that write the opposite.

    Raises:
        DatasetError: a member is missing, damaged, or not what the layout says.
    """
    actions = read_actions(shard, num_actions)
    num_rows = len(actions)
    rewards = read_rewards(shard, num_rows)
    terminated = read_flags(shard, "dones", num_rows) ^ (dones == "not_done")
    states, state_error = _stacked_observations(shard, "states", shape, num_rows)
    shape = states.shape[1:] if states.ndim == 4 else states.shape[2:]
    next_states, next_error = _stacked_observations(shard, "next_states", shape, num_rows)

    moved_on = _equal_rows(next_states[:, :-1], states[:, 1:])
    follows = np.zeros(num_rows, np.bool_)  # whether row i continues row i - 1
    follows[1:] = _equal_rows(states[1:], next_states[:-1]) & moved_on[:-1] & ~terminated[:-1]
    is_end = np.ones(num_rows, np.bool_)
    is_end[:-1] = ~follows[1:]
    ends = np.flatnonzero(is_end)

    # A row adds the frames of its state unless the row before left them, then what is new in its next state.
    stack = states.shape[1]
    new_in_state = np.where(follows, 0, stack)
    new_in_next = np.where(moved_on, 1, stack)
    next_last = np.cumsum(new_in_state + new_in_next) - 1
    last = next_last - new_in_next
    frames = np.empty((int(next_last[-1]) + 1 if num_rows else 0, *states.shape[2:]), states.dtype)
    for offset in range(stack):
        starts = ~follows
        frames[last[starts] - offset] = states[starts, -1 - offset]
        leaps = ~moved_on
        frames[next_last[leaps] - offset] = next_states[leaps, -1 - offset]
    frames[next_last] = next_states[:, -1]
    segment_end = np.repeat(ends, np.diff(ends, prepend=-1))
    newest_first = bool(
        num_rows and moved_on.mean() < 0.5 and _equal_rows(next_states[:, 1:], states[:, :-1]).mean() > 0.5
    )
    return ShardRows(
        observations=frames,
        actions=actions,
        rewards=rewards,
        terminated=terminated,
        truncated=is_end & ~terminated,  # where the log breaks off, the task went on
        last=last,
        first=last - (stack - 1),  # the whole stack is there, so a window never reaches further
        next_last=next_last,
        next_first=next_last - (stack - 1),
        segment_end=segment_end,
        observation_shape=shape,
        largest_rounding_error=max(state_error, next_error),
        newest_first=newest_first,
    )


def _stacked_observations(
    shard: NpzReader, name: str, shape: tuple[int, ...] | None, num_rows: int
) -> tuple[NDArray[Any], float]:
    """Stacks uint8 [N, S, H, W], or vectors as float32 [N, 1, D]; and the largest rounding error, in gray levels."""
    found = shard.read(name)
    if shape is None:
        is_fit = found.ndim == 2 or (found.ndim == 4 and not _is_channels_last(found.shape[1:]))
    else:
        is_fit = found.shape[1:] == shape
    if not is_fit:
        expected = "[N, S, H, W] or [N, D]" if shape is None else f"[{num_rows}, {', '.join(map(str, shape))}]"
        raise unfit(shard, name, found, expected, _mend_of_shape(found.shape[1:], shape))
    require_rows(shard, name, found, num_rows)
    if min(found.shape[1:]) < 1:
        raise unfit(shard, name, found, "no empty axis")
    if found.ndim == 2:
        if found.dtype.kind not in "fiu":
            raise unfit(shard, name, found, "real numbers")
        with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused below
            vectors = found.astype(np.float32, copy=False)
        require_finite(shard, name, vectors)
        return vectors[:, None], 0.0
    if found.dtype == np.uint8:
        return found, 0.0
    if found.dtype.kind != "f":
        expected = "uint8 0..255, or float in [-1, 1] (gray / 128 - 1)"
        raise unfit(shard, name, found, expected, f"if it holds gray 0..255: save {name}.astype(np.uint8)")
    return _gray_levels(shard, name, found)


def _is_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether pixels [S, H, W] of this shape are really [H, W, C]: no stack is so high and no picture so narrow."""
    stack, height, width = shape
    return width <= _MOST_CHANNELS < min(stack, height)


def _mend_of_shape(found: tuple[int, ...], expected: tuple[int, ...] | None) -> str:
    """What to do about observations of a wrong shape, which loggers write for known reasons."""
    if len(found) == 2:
        return "single frames need the axis of a stack: the last S of an episode on axis 1 (for S = 1 states[:, None])"
    if len(found) == 4:
        return "colour has no place in a stack: save gray frames [N, S, H, W]"
    if len(found) == 3 and (_is_channels_last(found) or (found[2], *found[:2]) == expected):
        return "the channels are last: save states.transpose(0, 3, 1, 2), and gray frames where they are colours"
    if expected is not None:
        return "a dataset has one shape: re-create the shard, or move it to a dataset of its own"
    return _MEND


def _gray_levels(shard: NpzReader, name: str, found: NDArray[Any]) -> tuple[NDArray[np.uint8], float]:
    """The nearest uint8 to float pixels in [-1, 1], and how far off the worst of them is, in gray levels."""
    pixels = np.empty(found.shape, np.uint8)
    largest_error = 0.0
    is_unit_scaled = found.size >= _TOO_MANY_TO_BE_CHANCE
    for start in range(0, len(found), _CHUNK):
        chunk = found[start : start + _CHUNK]
        if not ((chunk >= -1) & (chunk <= 1)).all():  # so that NaN fails too
            raise shard.fault(
                f"{name} has values from {chunk.min():g} to {chunk.max():g} in rows {start}..{start + len(chunk) - 1}",
                expected="float pixels in [-1, 1] (gray / 128 - 1)",
                mend="save the frames as uint8 0..255, or as gray / 128 - 1",
            )
        # Costs nothing where pixels are as they should be: the first chunk has some below 0.
        is_unit_scaled = is_unit_scaled and bool(chunk.min() >= 0) and _is_whole(chunk.astype(np.float32) * 255)
        gray = (chunk.astype(np.float32, copy=False) + 1) * 128
        nearest = np.clip(np.rint(gray), 0, 255)
        largest_error = max(largest_error, float(np.abs(gray - nearest).max()))
        pixels[start : start + _CHUNK] = nearest
    if is_unit_scaled and largest_error > _SURELY_OFF:
        raise shard.fault(
            f"{name} has only multiples of 1/255 from 0 to 1",
            expected="float pixels in [-1, 1] (gray / 128 - 1)",
            mend=f"save the frames as uint8: np.rint({name} * 255).astype(np.uint8)",
        )
    return pixels, largest_error


def _is_whole(values: NDArray[np.float32]) -> bool:
    """Whether all are whole numbers, as nearly as float16 holds them."""
    return bool((np.abs(values - np.rint(values)) < 0.1).all())


def _equal_rows(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether a[i] equals b[i] everywhere, [N]."""
    equal = np.ones(len(a), np.bool_)
    axes = tuple(range(1, a.ndim))
    for start in range(0, len(a), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        equal[chunk] = (a[chunk] == b[chunk]).all(axis=axes)
    return equal
