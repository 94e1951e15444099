"""Reading the stacked layout: every row has its whole observation and the next one; each frame is kept once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.shards._members import read_actions, read_flags, read_rewards, require_finite, require_rows, unfit
from offrl.shards._npz import NpzReader
from offrl.shards.layouts import Dones, ShardRows, row_windows

_HINT = "re-create the shard"


_SURELY_OFF = 0.25  # gray levels


_TOO_MANY_TO_BE_CHANCE = 64  # pixels that are all multiples of 1/255; one in ten is, roughly


_MOST_CHANNELS = 16
_FEWEST_COLOURS = 4  # by what is after the decimal point of their gray; another scale or offset makes fewer


_CHUNK = 256  # rows handled at once where a temporary array would be several times the shard's size


def read_stacked(
    shard: NpzReader, shape: tuple[int, ...] | None, num_actions: int | None, dones: Dones, channels: int = 1
) -> ShardRows:
    """Reads a shard of the stacked layout, keeping each frame once wherever rows follow each other.

    Row i + 1 follows row i where `states[i + 1]` equals `next_states[i]`, that is `states[i]` moved on by one
    frame, and row i is not done. Frames of rows that do not follow each other are all kept.

    Args:
        shard: the open shard.
        shape: what an observation must be, (S, H, W) or (D,), or None to take it as it comes.
        num_actions: A, or None to take any.
        dones: what a true value says: "terminated", or "not_done" for loggers that write the opposite.
        channels: of one frame; a stack has so many planes a frame.

    Raises:
        DatasetError: a member is missing, damaged, or not what the layout says.
    """
    actions = read_actions(shard, num_actions)
    num_rows = len(actions)
    shard.require_rows(num_rows)
    rewards = read_rewards(shard, num_rows)
    terminated = read_flags(shard, "dones", num_rows) ^ (dones == "not_done")
    states, state_error, state_is_gray = _stacked_observations(shard, "states", shape, num_rows)
    shape = states.shape[1:] if states.ndim == 4 else states.shape[2:]
    next_states, next_error, next_is_gray = _stacked_observations(shard, "next_states", shape, num_rows)
    if channels > 1:  # [N, S, channels, H, W]: what is kept once is a frame with all its channels
        states, next_states = (each.reshape(num_rows, -1, channels, *shape[1:]) for each in (states, next_states))

    moved_on = _equal_rows(next_states[:, :-1], states[:, 1:])
    follows = np.zeros(num_rows, np.bool_)  # whether row i continues row i - 1
    follows[1:] = _equal_rows(states[1:], next_states[:-1]) & moved_on[:-1] & ~terminated[:-1]
    is_end = np.ones(num_rows, np.bool_)
    is_end[:-1] = ~follows[1:]

    stack = states.shape[1]
    windows = row_windows(follows, moved_on, stack)
    last, next_last = windows.last, windows.next_last
    frames = np.empty((int(next_last[-1]) + 1 if num_rows else 0, *states.shape[2:]), states.dtype)
    for offset in range(stack):
        starts = ~follows
        frames[last[starts] - offset] = states[starts, -1 - offset]
        leaps = ~moved_on
        frames[next_last[leaps] - offset] = next_states[leaps, -1 - offset]
    frames[next_last] = next_states[:, -1]
    newest_first = bool(
        num_rows and moved_on.mean() < 0.5 and _equal_rows(next_states[:, 1:], states[:, :-1]).mean() > 0.5
    )
    return ShardRows(
        observations=frames,
        actions=actions,
        rewards=rewards,
        terminated=terminated,
        truncated=is_end & ~terminated,  # where the log breaks off, the task went on
        **windows._asdict(),
        observation_shape=shape,
        largest_rounding_error=max(state_error, next_error),
        is_unrounded_gray=state_is_gray and next_is_gray,
        newest_first=newest_first,
    )


def _stacked_observations(
    shard: NpzReader, name: str, shape: tuple[int, ...] | None, num_rows: int
) -> tuple[NDArray[Any], float, bool]:
    """Stacks uint8 [N, S, H, W], or vectors as float32 [N, 1, D]; and see `_gray_levels`."""
    found = shard.read(name)
    if shape is None:
        is_fit = found.ndim == 2 or (found.ndim == 4 and not is_channels_last(found.shape[1:]))
    else:
        is_fit = found.shape[1:] == shape
    if not is_fit:
        expected = "[N, S, H, W] or [N, D]" if shape is None else f"[{num_rows}, {', '.join(map(str, shape))}]"
        raise unfit(shard, name, found, expected, _hint_for_shape(found.shape[1:], shape))
    require_rows(shard, name, found, num_rows)
    if min(found.shape[1:]) < 1:
        raise unfit(shard, name, found, "no empty axis")
    if found.ndim == 2:
        if found.dtype.kind not in "fiu":
            raise unfit(shard, name, found, "real numbers")
        with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused below
            vectors = found.astype(np.float32, copy=False)
        require_finite(shard, name, vectors)
        return vectors[:, None], 0.0, False
    if found.dtype == np.uint8:
        return found, 0.0, False
    if found.dtype.kind != "f":
        expected = "uint8 0..255, or float in [-1, 1] (gray / 128 - 1)"
        raise unfit(shard, name, found, expected, f"if it holds gray 0..255: save {name}.astype(np.uint8)")
    return _gray_levels(shard, name, found)


def is_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether pixels [S, H, W] of this shape are really [H, W, C]: no stack is so high and no picture so narrow."""
    stack, height, width = shape
    return width <= _MOST_CHANNELS < min(stack, height)


def _hint_for_shape(found: tuple[int, ...], expected: tuple[int, ...] | None) -> str:
    """What to do about observations of a wrong shape, which loggers write for known reasons."""
    if len(found) == 2:
        return "single frames need the axis of a stack: the last S of an episode on axis 1 (for S = 1 states[:, None])"
    if len(found) == 4:
        return "colour has no place in a stack: save gray frames [N, S, H, W]"
    if len(found) == 3 and (is_channels_last(found) or (found[2], *found[:2]) == expected):
        return "the channels are last: save states.transpose(0, 3, 1, 2), and gray frames where they are colours"
    if expected is not None and found[1:] == expected[1:] and len(found) == 3:
        return f"the task has stacks of {expected[0]}: save the last {expected[0]} frames of an episode on axis 1"
    if expected is not None:
        return "a dataset has one shape: re-create the shard, or move it to a dataset of its own"
    return _HINT


def _gray_levels(shard: NpzReader, name: str, found: NDArray[Any]) -> tuple[NDArray[np.uint8], float, bool]:
    """The nearest uint8 to float pixels in [-1, 1], how far off the worst is, and whether they are unrounded gray.

    Unrounded gray, 0.299 red + 0.587 green + 0.114 blue of whole numbers, is a whole number of thousandths.
    """
    pixels = np.empty(found.shape, np.uint8)
    largest_error, is_gray, thousandths = 0.0, True, np.zeros(1001, np.bool_)
    is_unit_scaled = found.size >= _TOO_MANY_TO_BE_CHANCE
    for start in range(0, len(found), _CHUNK):
        chunk = found[start : start + _CHUNK]
        if not ((chunk >= -1) & (chunk <= 1)).all():  # so that NaN fails too
            raise shard.fault(
                f"{name} has values from {chunk.min():g} to {chunk.max():g} in rows {start}..{start + len(chunk) - 1}",
                expected="float pixels in [-1, 1] (gray / 128 - 1)",
                hint="save the frames as uint8 0..255, or as gray / 128 - 1",
            )
        # Costs nothing where pixels are as they should be: the first chunk has some below 0.
        is_unit_scaled = is_unit_scaled and bool(chunk.min() >= 0) and _is_whole(chunk.astype(np.float32) * 255)
        gray = (chunk.astype(np.float32, copy=False) + 1) * 128
        nearest = np.clip(np.rint(gray), 0, 255)
        largest_error = max(largest_error, float(np.abs(gray - nearest).max()))
        is_gray = is_gray and _is_whole(1000 * gray)
        if is_gray:
            thousandths[np.rint(1000 * (gray - np.floor(gray))).astype(np.int64)] = True
        pixels[start : start + _CHUNK] = nearest
    if is_unit_scaled and largest_error > _SURELY_OFF:
        raise shard.fault(
            f"{name} has only multiples of 1/255 from 0 to 1",
            expected="float pixels in [-1, 1] (gray / 128 - 1)",
            hint=f"save the frames as uint8: np.rint({name} * 255).astype(np.uint8)",
        )
    return pixels, largest_error, is_gray and int(thousandths.sum()) >= _FEWEST_COLOURS


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
