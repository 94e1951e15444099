"""Whole episodes of a FrameStore, one at a time: what is written to other formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offrl.errors import ConfigError, DatasetError
from offrl.replay._windows import episode_bounds
from offrl.replay.store import FrameStore
from offrl.shards.episode import Episode
from offrl.spec import TaskSpec
from offrl.system.files import open_regular
from offrl.system.workers import available_memory


@dataclass(frozen=True)
class EpisodeLog:
    """A dataset in any format as a stream of episodes; only one is ever in memory.

    Attributes:
        spec: the task that the data is of.
        episodes: the episodes in order; to be read once.
        num_transitions: in all episodes.
        num_frames: observations that the format holds, shared ones as often as it holds them.
        environment: id, versions and options of the environment, JSON-ready.
        generator: name, settings and seed of what made the data, JSON-ready.
        protocol: of the manifest, see `offrl.collection.protocol`.
        notes: what the format could not hold, one line each.
    """

    spec: TaskSpec
    episodes: Iterator[Episode]
    num_transitions: int
    num_frames: int
    environment: Mapping[str, Any]
    generator: Mapping[str, Any]
    protocol: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


USUAL_STACK = 4
"""Frames in an observation of single frames whose task nobody says: what most work on pixels has."""


def require_untold(path: Path, stack: int | None, action_names: Sequence[str] | None) -> None:
    """Refuses parts of a task where the whole of it is known.

    Raises:
        ConfigError: one is given.
    """
    given = [name for name, value in (("stack", stack), ("action_names", action_names)) if value is not None]
    if given:
        raise ConfigError(
            f"{' and '.join(given)} beside data whose task is known",
            where=path,
            expected="them for data that does not say its task, and without spec (--env on the command line)",
            hint=f"leave out {' and '.join(given)}",
        )


class Written(NamedTuple):
    """What a writer wrote.

    Attributes:
        num_transitions: steps.
        num_episodes: episodes (or segments).
        num_frames: observations, shared ones as often as the format holds them.
        notes: what the format could not hold, one line each.
    """

    num_transitions: int
    num_episodes: int
    num_frames: int
    notes: tuple[str, ...] = ()


def segments(store: FrameStore) -> list[range]:
    """The rows of each segment, in order."""
    first, last = episode_bounds(store.segment_end)
    return [range(start, end + 1) for start, end in zip(first.tolist(), last.tolist(), strict=True)]


def broken_ends(store: FrameStore) -> NDArray[np.int64]:
    """The rows whose next observation is not their observation moved on by one frame, int64 [M].

    Stacked rows may lead anywhere, and then they end their segment.
    """
    _, ends = episode_bounds(store.segment_end)
    broken: NDArray[np.int64] = ends[store.next_last[ends] != store.last[ends] + 1]
    return broken


def episodes(store: FrameStore) -> Iterator[Episode]:
    """Every segment of a store as an episode whose stacks are the store's, one at a time.

    Frames are views of the store's where they lie together there. In stacked data, frames that only repeat an
    episode's first one are left out: reading repeats them. What a terminated step led to is kept as its newest frame
    where it is no continuation; no return depends on it.

    Raises:
        DatasetError: a step that did not terminate led to an observation that does not continue its own by one frame.
    """
    broken = broken_ends(store)
    unheld = broken[~store.terminated[broken]]
    if unheld.size:
        raise DatasetError(
            f"{unheld.size} transition(s) that did not terminate lead to a stack that is not theirs moved on by one "
            f"frame, the first in row {unheld[0]}",
            where=store.path,
            expected="stacks that overlap, so that an episode is a row of frames",
            hint="keep the stacked layout, or drop these rows",
        )
    for rows in segments(store):
        yield episode_at(store, rows)


def num_repeated(frames: NDArray[Any], leading: int) -> int:
    """How many of the oldest frames [F, ...] only repeat the next one, among the `leading` ones."""
    changes = np.flatnonzero((frames[:leading] != frames[1 : leading + 1]).any(axis=tuple(range(1, frames.ndim))))
    return int(changes[0]) if changes.size else leading


def episode_at(store: FrameStore, rows: range) -> Episode:
    """The episode of these rows, a segment's, as `episodes` gives it."""
    start, end = rows.start, rows.stop - 1
    first = oldest = int(store.last[start])
    if store.spec.is_pixels:
        oldest = int(store.first[start])
    if store.spec.is_pixels and store.report.layout == "stacked":
        oldest += num_repeated(store.frames_between(oldest, first + 1), first - oldest)
    last, next_last = int(store.last[end]), int(store.next_last[end])
    frames = store.frames_between(oldest, last + 2)
    if next_last != last + 1:
        frames = np.concatenate([frames[:-1], store.frames_between(next_last, next_last + 1)])
    span = slice(rows.start, rows.stop)
    return Episode(
        observations=frames,
        actions=store.actions[span],
        rewards=store.rewards[span],
        terminated=bool(store.terminated[end]),
        truncated=bool(store.truncated[end]),
        behaviour_probability=None if store.behaviour_probability is None else store.behaviour_probability[span],
        leading=first - oldest,
        action_mask=None if store.action_mask is None else store.action_mask[span],
    )


_MOST_HDF5_MEMBERS = 2_000_000
"""Of an HDF5 file; more would take gigabytes to list."""


def require_self_contained(path: Path) -> None:
    """Checks that an HDF5 file refers to nothing outside itself and fits in memory, before a number of it is read.

    HDF5 knows links to other files, data that lies in other files (external storage) and data that is put together from
    other files (virtual datasets): whoever made the file would choose what is read here and copied into the output.

    Raises:
        DatasetError: It refers to something outside itself, or one of its arrays is larger than the memory free.
        OSError, RuntimeError: It cannot be read.
    """
    import h5py  # who reads the format has said already what to install

    open_regular(path).close()
    with h5py.File(path, "r") as file:
        groups, seen = [file], set()
        while groups:
            group = groups.pop()
            for name in group:
                if isinstance(group.get(name, getlink=True), h5py.SoftLink | h5py.ExternalLink):
                    raise _refers_outside(path, f"{group.name.rstrip('/')}/{name} is a link")
                member = group[name]
                if isinstance(member, h5py.Dataset) and (member.external or member.is_virtual):
                    raise _refers_outside(path, f"{member.name} has its data in another file")
                if isinstance(member, h5py.Dataset) and member.size:
                    # A few bytes may say that they are an array of any size. What is read is copied once.
                    needed, available = 2 * member.size * member.dtype.itemsize, available_memory()
                    if needed > available:
                        raise _too_large(path, member.name, needed, available)
                address = h5py.h5o.get_info(member.id).addr
                if isinstance(member, h5py.Group) and address not in seen:
                    groups.append(member)
                seen.add(address)  # a group may have several names, and be in itself
                if len(seen) > _MOST_HDF5_MEMBERS:
                    raise _refers_outside(path, f"holds more than {_MOST_HDF5_MEMBERS:,} members")


def _refers_outside(path: Path, what: str) -> DatasetError:
    return DatasetError(
        what,
        where=path,
        expected="an HDF5 file that holds all of its data itself, as d3rlpy and Minari write it",
        hint="if you trust its maker, copy it with h5repack, or load and save it again with the library that wrote it",
    )


def _too_large(path: Path, name: str, needed: int, available: int) -> DatasetError:
    return DatasetError(
        f"{name} takes {needed / 2**30:.1f} GiB to read",
        where=path,
        expected=f"at most the {available / 2**30:.1f} GiB of memory that are free",
        hint="free some memory, or save the data in shorter episodes",
    )
