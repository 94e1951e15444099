"""What looks wrong with a dataset: the traps that logged transitions fall into, each named in one line.

What is certain (shapes, actions out of range) is an error where the shards are read; here are the doubts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from offrl.replay._features import largest_features, named
from offrl.replay._windows import episode_bounds
from offrl.replay.store import FrameStore
from offrl.shards.layouts import Problem

_NUM_SAMPLED_FRAMES, _NUM_SAMPLED_STACKS = 2000, 256  # a large store is not read whole
_MANY_CONSTANT, _MANY_REPEATED = 0.01, 0.25  # shares of the frames
_NEARLY_ALL = 0.9
_FEW = 3  # odd rewards at bounds or equal lengths, from which on they are no accident
_SHORTEST_LIMIT, _NEAR_LIMIT = 50, 0.8  # steps, and a share of the limit
_FEWEST_STEPS = 30  # of vectors that go on, to say that they do not change
_LONG_EPISODE = 20  # steps; shorter ones may well be alike


def find_problems(store: FrameStore) -> list[Problem]:
    """What looks wrong, the gravest first; none of it is certain.

    Where most rows stand alone, or most end an episode, that is all that is said of the episodes: they are none.
    """
    checks = [_unused_actions, _no_rewards, _large_features, _constant_frames, _dim_frames]
    if _stand_alone(store):
        checks.insert(0, _why_alone)
    elif not _ends_everywhere(store):
        checks = [_without_end, _reset_observations, _time_limit, _shifted_rewards, *checks, _repeated_frames, _copies]
    return [problem for check in checks for problem in check(store)]


def _ends_everywhere(store: FrameStore) -> bool:
    """Dones that look inverted; ingest says so."""
    return store.report.layout == "stacked" and float(np.mean(store.terminated)) > 0.5


def _stand_alone(store: FrameStore) -> bool:
    """Whether most rows neither end an episode nor lead to the next row."""
    num_open = int(np.count_nonzero(~store.terminated[episode_bounds(store.segment_end).last]))
    return store.report.layout == "stacked" and 1 < len(store) < 2 * num_open


def _why_alone(store: FrameStore) -> Iterator[Problem]:
    rows = _sample(store, _NUM_SAMPLED_STACKS)
    now, following = store.observations(rows), store.next_observations(rows)
    unchanged = _share(now == following)
    leaps = float(np.mean(store.next_last - store.last > 1))
    if unchanged > _NEARLY_ALL:
        yield Problem(
            f"next_states equals states in {unchanged:.0%} of the rows",
            "Every step seems to lead nowhere: nothing can be learned from it but the rewards.",
            "log a copy of the observation before the step and one of what the step returned",
        )
    elif store.spec.stack > 1 and _is_newest_first(store, now, following):
        return  # newest first; ingest says so
    elif leaps > 0.5:
        yield Problem(
            f"in {leaps:.0%} of the rows the next stack is not the stack moved on by one frame",
            "Colour channels, or every other frame, may lie where the frames of a stack should. No row leads to the "
            "next then: each keeps all its frames, and n-step returns end at once.",
            "save gray frames, stacked oldest first, one new frame a step",
        )
    else:
        yield Problem(
            "most rows do not follow the row before: the log looks shuffled, or next_states is not one step on",
            "Rows that are not known to follow each other are not linked, so that n-step returns are cut short.",
            "save the rows in the order in which they were recorded",
        )


def _without_end(store: FrameStore) -> Iterator[Problem]:
    """Stacked shards have one flag for every end, so that a segment without it was left open."""
    last = episode_bounds(store.segment_end).last
    num_open = int(np.count_nonzero(~store.terminated[last]))
    if store.report.layout != "stacked" or num_open == 0:
        return
    if num_open == len(last) > 1:
        yield Problem(
            "dones is never true: every episode counts as cut, none as ended",
            "The value of what comes after an episode's last step is guessed by the network, not known to be 0.",
            "where episodes do end (not at a time limit), log true there",
        )
    else:
        yield Problem(
            f"{num_open} of {len(last)} episodes have no end in the log (a file's end, a time limit, or rows that do "
            "not follow each other): they count as cut there",
            "That is right for a time limit or a log that breaks off, and wrong for an end that was not logged: the "
            "network guesses a value for what comes after it.",
            "save whole episodes in a file, with dones true where the task ended",
        )


def _reset_observations(store: FrameStore) -> Iterator[Problem]:
    """Where an episode was cut, the log of a self-resetting environment leads to the next one's first observation."""
    last = episode_bounds(store.segment_end).last[:-1]
    leaps = last[store.truncated[last] & (store.next_last[last] - store.last[last] > 1)][:_NUM_SAMPLED_STACKS]
    if store.report.layout != "stacked" or not leaps.size:
        return
    led_on = store.next_observations(leaps) == store.observations(leaps + 1)
    count = int(np.count_nonzero(led_on.all(axis=tuple(range(1, led_on.ndim)))))
    if count:
        yield Problem(
            f"{count} episodes without an end lead to the first observation of the next episode",
            "An environment that resets by itself returns that one. What the cut episode was still worth would be "
            "taken from the beginning of another.",
            "log the final observation there (of the info, in Gymnasium's vector environments), or true in dones if "
            "the episode ended",
        )


def _time_limit(store: FrameStore) -> Iterator[Problem]:
    """Old gym's done was true at a time limit too: then terminated episodes pile up at the longest length."""
    first, last = episode_bounds(store.segment_end)
    lengths = last - first + 1
    longest = int(lengths.max())
    at_limit, near = lengths == longest, (lengths < longest) & (lengths >= _NEAR_LIMIT * longest)
    num_terminated = int(np.count_nonzero(store.terminated[last[at_limit]]))
    is_limit = num_terminated == np.count_nonzero(at_limit) > np.count_nonzero(near)
    if longest >= _SHORTEST_LIMIT and is_limit and num_terminated >= _FEW:
        yield Problem(
            f"{num_terminated} episodes terminate after exactly {longest} steps, as at a time limit: none is longer",
            "What is cut at a time limit would go on. Taken as an end, it teaches that states like the last one are "
            "worth nothing.",
            "where a limit cut the episode, log terminated (or dones) as false there",
        )


def _shifted_rewards(store: FrameStore) -> Iterator[Problem]:
    """A reward that belongs to an episode's last step shows at its bounds which way the column was shifted.

    Large is what lies outside the rewards of all the steps in between, by more than their whole range.
    """
    first, last = episode_bounds(store.segment_end)
    inner = np.ones(len(store), dtype=bool)
    inner[np.concatenate([first, last, np.maximum(last - 1, 0)])] = False
    whole = last - first >= 3
    first, last = first[whole], last[whole]
    if not inner.any() or not last.size:
        return
    lowest, highest = float(store.rewards[inner].min()), float(store.rewards[inner].max())
    reach = highest - lowest

    def num_large(rows: NDArray[np.int64]) -> int:
        rewards = store.rewards[rows]
        return int(np.count_nonzero((rewards < lowest - reach) | (rewards > highest + reach)))

    at_first, before_last, at_last = num_large(first), num_large(last - 1), num_large(last)
    zeros = np.flatnonzero(store.rewards == 0)
    if len(zeros) >= max(_FEW, len(first) / 2) and np.isin(zeros, first).all():
        seen = f"{len(zeros)} episodes begin with a reward of 0, which no other step has"
        shift = "late"
    elif at_first >= _FEW and at_last == 0:
        seen = f"{at_first} episodes begin with a reward larger than any that follows, and none ends with one"
        shift = "late"
    elif before_last >= _FEW and at_last == at_first == 0:
        seen = f"{before_last} episodes have a reward larger than any other just before their last step"
        shift = "early"
    else:
        return
    yield Problem(
        f"{seen}: the rewards look written one step {shift}",
        "Every reward is credited to an action that did not earn it.",
        "log what the step returned in the same row as its action",
    )


def _unused_actions(store: FrameStore) -> Iterator[Problem]:
    counts = np.bincount(store.actions, minlength=store.spec.num_actions)
    never = np.flatnonzero(counts == 0)
    if not never.size:
        return
    names = ", ".join(store.spec.action_names[index] for index in never[:5]) + (", ..." if never.size > 5 else "")
    from_one = never.tolist() == [0] and store.report.layout == "stacked"
    yield Problem(
        f"{never.size} of {len(counts)} actions never occur: {names}",
        "What they are worth is not in the data: the network's guesses about them are never corrected.",
        "if the log counts its actions from 1, save actions - 1"
        if from_one
        else "train BCQ or BC, which keep to the actions that occur, or collect with more exploration",
    )


def _no_rewards(store: FrameStore) -> Iterator[Problem]:
    """Any other reward that is always the same says something by when it ends, as in CartPole."""
    if not store.rewards.any():
        yield Problem(
            "every reward is 0",
            "No behaviour is better than another, so that there is nothing to learn but imitation.",
            "look whether it was logged",
        )


def _large_features(store: FrameStore) -> Iterator[Problem]:
    largest = largest_features(store)
    if largest is not None and (large := named(largest, store.spec)):
        yield Problem(
            large,
            "Networks learn from numbers of about 1: such features drown the others, and policies become poor.",
            "offrl convert DATA NEW --standardise: policies of NEW subtract each feature's mean, and divide by its "
            "standard deviation, by themselves",
        )


def _is_newest_first(store: FrameStore, now: NDArray[np.generic], following: NDArray[np.generic]) -> bool:
    channels = store.spec.channels
    return _share(following[:, channels:] == now[:, :-channels]) > 0.5


def _constant_frames(store: FrameStore) -> Iterator[Problem]:
    if not store.spec.is_pixels:
        return
    frames = store.frames_at(store.last[_sample(store, _NUM_SAMPLED_FRAMES)])
    axes = tuple(range(1, frames.ndim))
    constant = float(np.mean(frames.min(axis=axes) == frames.max(axis=axes)))
    if constant > _MANY_CONSTANT:
        yield Problem(
            f"{constant:.0%} of the frames have one colour only",
            "There is nothing to see on them: a screen that was not drawn, or floats cut to whole numbers.",
            "save what the environment draws, as uint8 0..255",
        )


def _dim_frames(store: FrameStore) -> Iterator[Problem]:
    """Frames that use a part of the gray levels only, as another scale leaves them; planes of booleans are none."""
    if not store.spec.is_pixels or store.spec.scale == 1:
        return
    frames = store.frames_at(store.last[_sample(store, _NUM_SAMPLED_FRAMES)])
    lowest, highest = int(frames.min()), int(frames.max())
    if lowest < highest <= 1:
        yield Problem(
            "no pixel is brighter than 1 of 255",
            "Networks see gray / 128 - 1, to which all of it is black: were the frames scaled to 0..1 before?",
            "save the frames as uint8 0..255",
        )
    elif lowest >= 128 and store.report.largest_rounding_error > 0:
        yield Problem(
            "no float pixel is below 0, which is gray 128",
            "Pixels in [0, 1] were read as the bright half of [-1, 1]: a policy will see darker pictures when it acts.",
            "save the frames as uint8 0..255",
        )


def _repeated_frames(store: FrameStore) -> Iterator[Problem]:
    rows = _sample(store, _NUM_SAMPLED_FRAMES)
    if not store.spec.is_pixels:
        rows = rows[~store.terminated[rows]]  # a table may not know what the last step led to
        if len(rows) < _FEWEST_STEPS:  # where nearly every row ends an episode, few are left to tell
            return
    now = store.frames_at(store.last[rows])
    is_same = now == store.frames_at(store.next_last[rows])
    if store.spec.is_pixels:
        axes = tuple(range(1, now.ndim))
        is_same &= now.min(axis=axes, keepdims=True) < now.max(axis=axes, keepdims=True)  # of one colour: said already
    repeated = _share(is_same)
    if repeated > (_MANY_REPEATED if store.spec.is_pixels else _NEARLY_ALL):
        yield Problem(
            f"{repeated:.0%} of the {'frames' if store.spec.is_pixels else 'observations'} repeat the one before",
            "Actions seem to have no effect: a buffer that the environment reuses, or steps whose frame is missing.",
            "log a copy of what every step returned",
        )


def _copies(store: FrameStore) -> Iterator[Problem]:
    """Whole episodes that lie there twice; told by actions, rewards, and the frames at their bounds."""
    seen: set[int] = set()
    num_copies = 0
    bounds = episode_bounds(store.segment_end)
    for first, last in zip(*bounds, strict=True):
        if last - first + 1 < _LONG_EPISODE:
            continue
        rows = slice(first, last + 1)
        frames = store.frames_at(np.array([store.last[first], store.next_last[last]]))
        key = hash(b"".join(array.tobytes() for array in (store.actions[rows], store.rewards[rows], *frames)))
        num_copies += key in seen
        seen.add(key)
    if num_copies:
        yield Problem(
            f"{num_copies} of {len(bounds.last)} episodes are copies of others",
            "They count twice: a shard that lies there under two names, or an environment reset with one seed.",
            "remove the copies, and reset the environment with another seed each time",
        )


def _sample(store: FrameStore, count: int) -> NDArray[np.int64]:
    """Up to that many rows, ascending."""
    rows = np.random.default_rng(0).choice(len(store), size=min(len(store), count), replace=False)
    return np.sort(rows)


def _share(equal: NDArray[np.bool_]) -> float:
    """Of rows [N, ...] that are true throughout."""
    return float(np.mean(equal.all(axis=tuple(range(1, equal.ndim)))))
