"""What looks wrong with a dataset: the traps that logged transitions fall into, each named in one line."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from offrl.replay.store import FrameStore

_NUM_SAMPLED_FRAMES = 2000  # a large store is not read whole
_MANY_CONSTANT, _MANY_REPEATED = 0.01, 0.25  # shares of the frames
_FEW = 3  # large rewards on first steps, from which on they are no accident


def find_problems(store: FrameStore) -> list[str]:
    """One line for each thing that looks wrong; none of them is certain."""
    checks = (_shuffled, _without_end, _unused_actions, _equal_rewards, _late_rewards, _odd_frames)
    return [line for check in checks for line in check(store)]


def _shuffled(store: FrameStore) -> Iterator[str]:
    if store.report.layout == "stacked" and 1 < len(store) < 2 * len(_last_rows(store)):
        yield "most rows do not follow the row before: the log looks shuffled, so n-step returns are cut short"


def _without_end(store: FrameStore) -> Iterator[str]:
    """Stacked shards have one flag for every end, so that a segment without it was left open."""
    last = _last_rows(store)
    num_open = int(np.count_nonzero(~store.terminated[last]))
    if store.report.layout != "stacked" or num_open == 0:
        return
    if num_open == len(last) > 1:
        yield "dones is never true: every episode counts as cut, none as ended"
    else:
        yield (
            f"{num_open} of {len(last)} episodes have no end in the log (a file's end, or rows that do not follow "
            "each other): they count as cut there"
        )


def _unused_actions(store: FrameStore) -> Iterator[str]:
    counts = np.bincount(store.actions, minlength=store.spec.num_actions)
    never = np.flatnonzero(counts == 0)
    if never.size:
        names = ", ".join(store.spec.action_names[index] for index in never[:5]) + (", ..." if never.size > 5 else "")
        yield f"{never.size} of {len(counts)} actions never occur: {names}"


def _equal_rewards(store: FrameStore) -> Iterator[str]:
    lowest, highest = float(store.rewards.min()), float(store.rewards.max())
    if lowest == highest:
        yield f"every reward is {lowest:g}"


def _late_rewards(store: FrameStore) -> Iterator[str]:
    """A logger that writes the reward of the step before shows it at the bounds: what ends an episode begins the next.

    Large is what lies outside the rewards of all the steps in between, by more than their whole range.
    """
    last = _last_rows(store)
    first = np.concatenate([[0], last[:-1] + 1])
    whole = last - first >= 2
    first, last = first[whole], last[whole]
    inner = np.ones(len(store), dtype=bool)
    inner[_last_rows(store)] = inner[first] = False
    if not inner.any() or not last.size:
        return
    lowest, highest = float(store.rewards[inner].min()), float(store.rewards[inner].max())
    reach = highest - lowest

    def num_large(rows: NDArray[np.int64]) -> int:
        rewards = store.rewards[rows]
        return int(np.count_nonzero((rewards < lowest - reach) | (rewards > highest + reach)))

    at_first, at_last = num_large(first), num_large(last)
    if at_first >= _FEW and at_last == 0:
        yield (
            f"{at_first} episodes begin with a reward larger than any that follows, and none ends with one: "
            "the rewards look written one step late"
        )


def _odd_frames(store: FrameStore) -> Iterator[str]:
    """Frames of one colour, and frames that repeat the one before, among a sample."""
    if not store.spec.is_pixels:
        return
    count = min(len(store), _NUM_SAMPLED_FRAMES)
    rows = np.sort(np.random.default_rng(0).choice(len(store), size=count, replace=False))
    now, following = store.frames[store.last[rows]], store.frames[store.next_last[rows]]
    constant = float(np.mean(now.min(axis=(1, 2)) == now.max(axis=(1, 2))))
    repeated = float(np.mean((now == following).all(axis=(1, 2))))
    if constant > _MANY_CONSTANT:
        yield f"{constant:.0%} of the frames have one colour only: is the screen recorded, and scaled to 0 .. 255?"
    elif repeated > _MANY_REPEATED:
        yield f"{repeated:.0%} of the frames repeat the one before: is every step's own frame recorded?"


def _last_rows(store: FrameStore) -> NDArray[np.int64]:
    """The last row of every segment, ascending."""
    return np.unique(store.segment_end)
