"""One episode as a collector hands it over."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.errors import DatasetError
from offrl.shards._npz import open_npz
from offrl.shards.manifest import ShardRecord, file_sha256
from offrl.system.files import remove_partials, replacing

SHARD_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Episode:
    """One logged episode (or a segment of one) of T >= 1 steps, as a collector hands it over.

    Attributes:
        observations: pixels: single frames, uint8 [leading + T + 1, H, W], or [..., C, H, W] for
            several channels, oldest first; vectors: float32 [T + 1, D].
        actions: integers [T].
        rewards: real numbers [T], written as float32.
        terminated: the last step ended the task.
        truncated: the last step was cut (time limit, stop rule, end of the file).
        behaviour_probability: float [T], how likely the behaviour was to choose the action; NaN where unknown.
        leading: older frames before the first one, in a segment that starts in the middle of an episode.
        action_mask: bool [T, A], the legal actions at each step, where the task has them.

    Raises:
        DatasetError: a field whose shape, type or values are not those above.
    """

    observations: NDArray[Any]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: bool
    truncated: bool
    behaviour_probability: NDArray[np.float32] | None = None
    leading: int = 0
    action_mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        steps, observations = len(self.actions), self.observations
        if self.actions.ndim != 1 or steps < 1 or self.actions.dtype.kind not in "iu":
            raise _unfit("actions", self.actions, "integers [T], T at least 1")
        if self.rewards.shape != (steps,) or self.rewards.dtype.kind not in "fiu":
            raise _unfit("rewards", self.rewards, f"real numbers [{steps}], one for each action")
        if not np.isfinite(self.rewards).all():
            raise DatasetError("holds NaN or infinite values", where="Episode.rewards", expected="finite numbers")
        if (observations.ndim, observations.dtype.name) not in ((3, "uint8"), (4, "uint8"), (2, "float32")):
            raise _unfit(
                "observations", observations, "uint8 frames [leading + T + 1, (C,) H, W] or float32 [T + 1, D]"
            )
        if self.leading < 0 or (self.leading and observations.ndim == 2):
            raise DatasetError(f"{self.leading}", where="Episode.leading", expected="0 or more, and 0 for vectors")
        if len(observations) != self.leading + steps + 1:
            raise _unfit("observations", observations, f"{self.leading} + {steps} + 1 rows (leading, steps, the last)")
        if self.behaviour_probability is not None and self.behaviour_probability.shape != (steps,):
            raise _unfit("behaviour_probability", self.behaviour_probability, f"[{steps}], one for each action")
        if self.action_mask is not None and (
            self.action_mask.ndim != 2 or len(self.action_mask) != steps or self.action_mask.dtype != np.bool_
        ):
            raise _unfit("action_mask", self.action_mask, f"bool [{steps}, A]")

    def __len__(self) -> int:
        """T, in steps."""
        return len(self.actions)


def split_episodes(
    observations: NDArray[Any],
    steps: Mapping[str, Any],
    lengths: NDArray[np.int64],
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    has_last: NDArray[np.bool_],
) -> Iterator[Episode]:
    """Cuts arrays that hold episode after episode, and completes each episode's observations.

    Where what the last step led to is missing, an episode that terminated repeats its last observation and any other
    loses that step; one of a single step is then left out.

    Args:
        observations: [R, ...]: for each episode its steps, and one more row where `has_last`.
        steps: Actions, rewards and the like, the arrays [N, ...] of an `Episode` by their names there.
        lengths: Steps of each episode, [E].
        terminated: Whether its last step terminated, [E].
        truncated: Whether its last step was cut, [E]; one that is neither counts as truncated.
        has_last: Whether `observations` holds what its last step led to, [E].
    """
    row = step = 0
    flags = zip(lengths.tolist(), terminated.tolist(), truncated.tolist(), has_last.tolist(), strict=True)
    for length, is_terminated, is_truncated, is_whole in flags:
        rows = observations[row : row + length + is_whole]
        kept = length
        if is_terminated and not is_whole:
            rows = np.concatenate([rows, rows[-1:]])
        elif not is_whole:
            kept -= 1  # the last row becomes what the step before it led to
        if kept:
            span = slice(step, step + kept)
            parts: dict[str, Any] = {name: None if array is None else array[span] for name, array in steps.items()}
            yield Episode(rows, **parts, terminated=is_terminated, truncated=is_truncated or not is_terminated)
        row += length + is_whole
        step += length


def _unfit(field: str, found: NDArray[Any], expected: str) -> DatasetError:
    return DatasetError(f"{found.dtype} {list(found.shape)}", where=f"Episode.{field}", expected=expected)


def write_shard(path: Path | str, episodes: Sequence[Episode], *, compress: bool = True) -> ShardRecord:
    """Writes episodes as one shard of the frames layout; equal episodes give equal bytes.

    The file appears whole or not at all: it is written beside its place and renamed.

    Raises:
        DatasetError: no episodes, or episodes whose observations differ in shape.
    """
    path = Path(path)
    remove_partials(path)
    return write_next_shard(path, episodes, compress=compress)


def write_next_shard(path: Path, episodes: Sequence[Episode], *, compress: bool = True) -> ShardRecord:
    """As `write_shard`, where it is one of many: in a directory that is new or swept, see `replacing`."""
    if not episodes:
        raise DatasetError("no episodes to write", where=path, expected="1 or more")
    row = episodes[0].observations
    for index, episode in enumerate(episodes):
        if (episode.observations.shape[1:], episode.observations.dtype) != (row.shape[1:], row.dtype):
            raise DatasetError(
                f"episode {index} has observations {episode.observations.dtype} {episode.observations.shape[1:]}",
                where=path,
                expected=f"{row.dtype} {row.shape[1:]}, like episode 0",
            )
    arrays = _shard_arrays(episodes)
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with replacing(path, sweeps=False) as partial, zipfile.ZipFile(partial, "w", method) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return ShardRecord(
        name=path.name,
        sha256=file_sha256(path),
        num_transitions=len(arrays["actions"]),
        num_episodes=len(episodes),
        num_frames=sum(len(episode.observations) for episode in episodes),
    )


def read_shard(path: Path) -> list[Episode]:
    """The episodes that `write_shard` wrote there; the caller has checked the file's SHA-256.

    Raises:
        DatasetError: it cannot be read.
        KeyError: it is of the other layout.
    """
    with open_npz(path) as shard:
        members = {name: shard.read(name) for name in shard.names}
    lengths = members["episode_lengths"]
    leading = members.get("leading", np.zeros_like(lengths))
    rows = members["frames"] if "frames" in members else members["observations"]
    ends, row_ends = np.cumsum(lengths), np.cumsum(leading + lengths + 1)
    episodes = []
    for end, length, row_end, older in zip(*(a.tolist() for a in (ends, lengths, row_ends, leading)), strict=True):
        steps = slice(end - length, end)
        episodes.append(
            Episode(
                rows[row_end - older - length - 1 : row_end],
                members["actions"][steps],
                members["rewards"][steps],
                terminated=bool(members["terminated"][end - 1]),
                truncated=bool(members["truncated"][end - 1]),
                leading=older,
                **{name: members[name][steps] for name in ("behaviour_probability", "action_mask") if name in members},
            )
        )
    return episodes


def shard_path(directory: Path, index: int) -> Path:
    """Where shard `index` of a dataset lies."""
    return directory / f"shard-{index:05d}.npz"


def write_shards(
    directory: Path, episodes: Iterable[Episode], *, compress: bool = True, shard_bytes: int = SHARD_BYTES
) -> tuple[ShardRecord, ...]:
    """Writes episodes as the shards of one dataset, without its manifest; only one shard is ever in memory.

    Args:
        directory: where the shards go.
        episodes: in the order in which they are written; read once.
        compress: as in `write_shard`.
        shard_bytes: of the observations in one shard, before compression, unless one episode has more.

    Raises:
        DatasetError: as in `write_shard`.
    """
    records: list[ShardRecord] = []
    for shard in _in_shards(episodes, shard_bytes):
        records.append(write_next_shard(shard_path(directory, len(records)), shard, compress=compress))
    return tuple(records)


def _in_shards(episodes: Iterable[Episode], max_bytes: int) -> Iterator[list[Episode]]:
    shard: list[Episode] = []
    size = 0
    for episode in episodes:
        if shard and size + episode.observations.nbytes > max_bytes:
            yield shard
            shard, size = [], 0
        shard.append(episode)
        size += episode.observations.nbytes
    yield shard


def _shard_arrays(episodes: Sequence[Episode]) -> dict[str, NDArray[Any]]:
    """The members of a shard, in the order in which they are written."""

    def joined(field: str, dtype: type[Any]) -> NDArray[Any]:
        return np.concatenate([getattr(episode, field) for episode in episodes]).astype(dtype, copy=False)

    lengths = np.array([len(episode) for episode in episodes], np.int64)
    last_steps = np.cumsum(lengths) - 1
    terminated, truncated = np.zeros((2, int(lengths.sum())), np.bool_)
    terminated[last_steps] = [episode.terminated for episode in episodes]
    truncated[last_steps] = [episode.truncated for episode in episodes]
    pixels = episodes[0].observations.ndim > 2
    arrays = {
        "frames" if pixels else "observations": np.concatenate([episode.observations for episode in episodes]),
        "actions": joined("actions", np.int64),
        "rewards": joined("rewards", np.float32),
        "terminated": terminated,
        "truncated": truncated,
        "episode_lengths": lengths,
    }
    leading = np.array([episode.leading for episode in episodes], np.int64)
    if leading.any():
        arrays["leading"] = leading
    probabilities = [episode.behaviour_probability for episode in episodes]
    if any(p is not None for p in probabilities):
        known = [np.full(n, np.nan) if p is None else p for p, n in zip(probabilities, lengths, strict=True)]
        arrays["behaviour_probability"] = np.concatenate(known).astype(np.float32, copy=False)
    masks = [episode.action_mask for episode in episodes]
    widths = {mask.shape[1] for mask in masks if mask is not None}
    if len(widths) > 1:
        raise DatasetError(f"widths {sorted(widths)}", where="Episode.action_mask", expected="one number of actions")
    for width in widths:
        legal = [np.ones((n, width), np.bool_) if m is None else m for m, n in zip(masks, lengths, strict=True)]
        arrays["action_mask"] = np.concatenate(legal)
    return arrays
