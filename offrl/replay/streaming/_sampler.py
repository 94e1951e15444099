"""(seed, step) -> indices, where the data passes through a cache window by window."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offrl.replay.sampler import _generator, _require_update


class Window(NamedTuple):
    """Some shards that are in the cache at the same time.

    Attributes:
        shards: Their numbers, ascending.
        start: How many transitions of the pass come before this window's.
        size: Its transitions.
    """

    shards: tuple[int, ...]
    start: int
    size: int


class Located(NamedTuple):
    """Where transitions are, int64 [B] each.

    Attributes:
        pass_number: The pass that draws them.
        window: The number of the window in that pass.
        row: The row in the window's shards, which follow each other there.
    """

    pass_number: NDArray[np.int64]
    window: NDArray[np.int64]
    row: NDArray[np.int64]


class _Pass(NamedTuple):
    """The windows of a pass; and for each shard, its window and the row in it where the shard begins, [shards]."""

    windows: tuple[Window, ...]
    window_of: NDArray[np.int64]
    first_row: NDArray[np.int64]


class WindowSampler:
    """Draws every transition once a pass, window after window, as a pure function of (seed, step).

    Each pass takes the shards in a random order of its own and divides them into windows that fit the cache; within a
    window the order of the transitions is random over all of it. Update `step` takes the next `batch_size` of this
    endless sequence, so a batch may reach across the end of a window or of a pass.

    A transition is named by an index: transition i of the dataset is `p * size + i` in pass p.

    Args:
        sizes: Transitions in each shard.
        costs: Bytes that each shard takes in the cache.
        limit: Bytes that a window may take in the cache.
        seed: 0 .. 2**64 - 1.

    Attributes:
        size: Transitions in all shards.
    """

    def __init__(self, sizes: Sequence[int], costs: Sequence[int], limit: int, seed: int) -> None:
        self.size = sum(sizes)
        self._sizes = np.asarray(sizes, np.int64)
        self._costs = costs
        self._limit = limit
        self._seed = seed
        self._ends = np.cumsum(self._sizes)
        self._passes: dict[int, _Pass] = {}
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}

    def windows(self, number: int) -> tuple[Window, ...]:
        """The windows of pass `number`, in order."""
        return self._pass(number).windows

    def following(self, number: int, index: int) -> Window:
        """The window after window `index` of pass `number`."""
        windows = self.windows(number)
        return windows[index + 1] if index + 1 < len(windows) else self.windows(number + 1)[0]

    def indices(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """The transitions of update `step` (0 or more), int64 [batch_size].

        Raises:
            ConfigError: A negative step or a batch size below 1.
        """
        _require_update(step, batch_size)
        place, stop, parts = step * batch_size, (step + 1) * batch_size, []
        while place < stop:
            number, offset = divmod(place, self.size)
            windows = self.windows(number)
            # To the right: where shards are empty, several windows start at the same place, and the last one is meant.
            index = bisect_right(windows, offset, key=lambda window: window.start) - 1
            first = offset - windows[index].start
            part = self._order(number, index)[first : first + stop - place]
            parts.append(part + number * self.size)
            place += len(part)
        return np.concatenate(parts)

    def locate(self, indices: NDArray[np.int64]) -> Located:
        """Where the transitions at `indices` [B] are."""
        numbers, rows = np.divmod(indices, self.size)
        shards = np.searchsorted(self._ends, rows, side="right")
        in_shard = rows - (self._ends[shards] - self._sizes[shards])
        windows, in_window = np.empty_like(rows), np.empty_like(rows)
        for number in np.unique(numbers).tolist():
            here, found = numbers == number, self._pass(number)
            windows[here] = found.window_of[shards[here]]
            in_window[here] = found.first_row[shards[here]] + in_shard[here]
        return Located(numbers, windows, in_window)

    def _pass(self, number: int) -> _Pass:
        if number not in self._passes:
            window_of, first_row = np.empty_like(self._sizes), np.empty_like(self._sizes)
            windows: list[Window] = []
            start = 0
            for group in self._groups(_generator(self._seed, number).permutation(len(self._sizes)).tolist()):
                sizes = self._sizes[group]
                window_of[group] = len(windows)
                first_row[group] = np.cumsum(sizes) - sizes
                windows.append(Window(tuple(group), start, int(sizes.sum())))
                start += windows[-1].size
            _keep_one(self._passes)
            self._passes[number] = _Pass(tuple(windows), window_of, first_row)
        return self._passes[number]

    def _groups(self, shards: Sequence[int]) -> Iterator[list[int]]:
        """The shards in this order, as many at a time as fit into a window; each group ascending."""
        group: list[int] = []
        cost = 0
        for shard in shards:
            if group and cost + self._costs[shard] > self._limit:
                yield sorted(group)
                group, cost = [], 0
            group.append(shard)
            cost += self._costs[shard]
        yield sorted(group)

    def _order(self, number: int, index: int) -> NDArray[np.int64]:
        """The transitions of a window in the order in which they are drawn, as numbers in the dataset."""
        if (number, index) not in self._orders:
            shards = self.windows(number)[index].shards
            ends, sizes = self._ends[[*shards]].tolist(), self._sizes[[*shards]].tolist()
            rows = np.concatenate([np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)])
            _keep_one(self._orders)
            self._orders[number, index] = _generator(self._seed, number, index + 1).permutation(rows)
        return self._orders[number, index]


def _keep_one(cache: dict[Any, Any]) -> None:
    """Makes room for another entry: two are in use, on both sides of a boundary."""
    while len(cache) > 1:
        del cache[next(iter(cache))]
