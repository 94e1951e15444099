"""The frames layout on disk: episodes into `.npz` shards, and the manifest beside them (no torch here)."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.errors import DatasetError
from offrl.files import replacing, write_json
from offrl.replay.layouts import Layout
from offrl.spec import TaskSpec

MANIFEST_NAME = "manifest.json"
_FORMATS: dict[str, Layout] = {"offrl-frames": "frames", "offrl-stacked": "stacked"}
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Episode:
    """One logged episode (or a segment of one) of T >= 1 steps, as a collector hands it over.

    Attributes:
        observations: pixels: single frames, uint8 [leading + T + 1, H, W], oldest first; vectors: float32 [T + 1, D].
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
        if (observations.ndim, observations.dtype.name) not in ((3, "uint8"), (2, "float32")):
            raise _unfit("observations", observations, "uint8 frames [leading + T + 1, H, W] or float32 [T + 1, D]")
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


@dataclass(frozen=True)
class ShardRecord:
    """What a manifest says about one shard.

    Attributes:
        name: the file's name inside its directory.
        sha256: of the file's bytes, in hexadecimal.
        num_transitions: steps in it.
        num_episodes: episodes (or segments) in it.
        num_frames: rows of `frames` (or `observations`) in it; stacked: frames in `states` and `next_states`.
    """

    name: str
    sha256: str
    num_transitions: int
    num_episodes: int
    num_frames: int


def write_shard(path: Path, episodes: Sequence[Episode], *, compress: bool = True) -> ShardRecord:
    """Writes episodes as one shard of the frames layout; equal episodes give equal bytes.

    The file appears whole or not at all: it is written beside its place and renamed.

    Raises:
        DatasetError: no episodes, or episodes whose observations differ in shape.
    """
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
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", method) as archive:
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


def _shard_arrays(episodes: Sequence[Episode]) -> dict[str, NDArray[Any]]:
    """The members of a shard, in the order in which they are written."""

    def joined(field: str, dtype: type[Any]) -> NDArray[Any]:
        return np.concatenate([getattr(episode, field) for episode in episodes]).astype(dtype, copy=False)

    lengths = np.array([len(episode) for episode in episodes], np.int64)
    last_steps = np.cumsum(lengths) - 1
    terminated, truncated = np.zeros((2, int(lengths.sum())), np.bool_)
    terminated[last_steps] = [episode.terminated for episode in episodes]
    truncated[last_steps] = [episode.truncated for episode in episodes]
    pixels = episodes[0].observations.ndim == 3
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


@dataclass(frozen=True)
class Manifest:
    """What a directory of shards holds and how it was made (`manifest.json`).

    Attributes:
        spec: the task that the data is of.
        shards: the shards, in reading order.
        environment: id, versions and options of the environment, JSON-ready.
        generator: name, settings and seed of what made the data, JSON-ready.
        complete: False while a collection is under way or was interrupted.
        format_version: of the layout.
        layout: of the shards.
    """

    spec: TaskSpec
    shards: tuple[ShardRecord, ...]
    environment: Mapping[str, Any]
    generator: Mapping[str, Any]
    complete: bool = True
    format_version: int = FORMAT_VERSION
    layout: Layout = "frames"

    @property
    def num_transitions(self) -> int:
        """Steps in all shards."""
        return sum(shard.num_transitions for shard in self.shards)

    def save(self, directory: Path) -> None:
        """Writes `manifest.json` into `directory`, whole or not at all."""
        data = {
            "format": f"offrl-{self.layout}",
            "format_version": self.format_version,
            "complete": self.complete,
            "spec": self.spec.to_dict(),
            "environment": dict(self.environment),
            "generator": dict(self.generator),
            "shards": [asdict(shard) for shard in self.shards],
        }
        write_json(directory / MANIFEST_NAME, data)

    @classmethod
    def load(cls, directory: Path) -> Manifest:
        """Reads `manifest.json` of `directory`.

        Raises:
            DatasetError: the file is missing, damaged, or of another format or version.
            SpecMismatchError: its task spec cannot be read.
        """
        path = directory / MANIFEST_NAME
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise DatasetError(
                "no such file", where=path, expected="the manifest of a frames dataset", mend="collect the data again"
            ) from None
        except OSError as error:
            raise DatasetError(
                f"cannot be read ({error})", where=path, expected="a manifest", mend="collect the data again"
            ) from error
        return cls.parse(data, where=path)

    @classmethod
    def parse(cls, content: bytes, where: Path | str) -> Manifest:
        """A manifest from the content of its file.

        Raises:
            DatasetError: it is damaged, or of another format or version; `where` names the file.
            SpecMismatchError: its task spec cannot be read.
        """
        try:
            data = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DatasetError(
                f"cannot be read ({error})", where=where, expected="JSON", mend="collect the data again"
            ) from error
        if not isinstance(data, dict) or str(data.get("format")) not in _FORMATS:
            expected = " or ".join(f'"format": "{name}"' for name in _FORMATS)
            raise DatasetError("is no manifest of offrl's", where=where, expected=expected)
        if data.get("format_version") != FORMAT_VERSION:
            raise DatasetError(
                f"format_version is {data.get('format_version')!r}",
                where=where,
                expected=str(FORMAT_VERSION),
                mend="read it with the version of offrl that wrote it, or collect the data again",
            )
        try:
            return cls(
                spec=TaskSpec.from_dict(data["spec"], where=where),
                shards=_records(data["shards"]),
                environment=dict(data["environment"]),
                generator=dict(data["generator"]),
                complete=bool(data["complete"]),
                layout=_FORMATS[data["format"]],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"a field is missing or malformed ({type(error).__name__}: {error})",
                where=where,
                expected="spec, shards, environment, generator, complete",
                mend="collect the data again",
            ) from error


def _records(data: Sequence[Mapping[str, Any]]) -> tuple[ShardRecord, ...]:
    records = tuple(map(_record, data))
    names = [record.name for record in records]
    if twice := {name for name in names if names.count(name) > 1}:  # its transitions would count twice
        raise ValueError(f"{sorted(twice)} named twice")
    return records


def _record(data: Mapping[str, Any]) -> ShardRecord:
    record = ShardRecord(
        name=str(data["name"]),
        sha256=str(data["sha256"]),
        num_transitions=int(data["num_transitions"]),
        num_episodes=int(data["num_episodes"]),
        num_frames=int(data["num_frames"]),
    )
    # A manifest must not reach files outside its directory.
    if Path(record.name).name != record.name or record.name in ("", ".."):
        raise ValueError(f"shard name {record.name!r} is not a plain file name")
    return record


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unfit(field: str, found: NDArray[Any], expected: str) -> DatasetError:
    return DatasetError(f"{found.dtype} {list(found.shape)}", where=f"Episode.{field}", expected=expected)
