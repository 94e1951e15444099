"""A frames dataset under way: episodes step by step, shards one by one, and a manifest that names what is whole."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offrl.errors import DatasetError
from offrl.shards.episode import Episode, shard_path, write_shard
from offrl.shards.manifest import MANIFEST_NAME, Manifest, ShardRecord, file_sha256
from offrl.spec import TaskSpec
from offrl.system.files import remove_all_partials

LOCK_NAME = ".lock"
"""In the directory: held by whoever adds to the dataset."""


class _Step(NamedTuple):
    action: int
    probability: float
    reward: float
    row: NDArray[Any]
    action_mask: NDArray[np.bool_] | None


class EpisodeLog:
    """One episode as it is played; what observations share with those before is kept once.

    Args:
        observation: what the episode begins with: a stack of frames, uint8 [C, H, W], oldest first, or float32 [D].
        spec: of the task.
        action_mask: bool [A], the legal actions there; None where the environment states none.

    Raises:
        DatasetError: an observation that is not of the task.
    """

    def __init__(self, observation: NDArray[Any], spec: TaskSpec, action_mask: NDArray[np.bool_] | None = None) -> None:
        self._spec = spec
        self._action_mask = action_mask
        self._newest = self._checked(observation)
        self._rows = self._first_rows(self._newest)
        self._steps: list[_Step] = []

    def __len__(self) -> int:
        """Steps until now."""
        return len(self._steps)

    def append(
        self,
        action: int,
        probability: float,
        reward: float,
        observation: NDArray[Any],
        action_mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """One step, the observation that it led to, and the legal actions there.

        Raises:
            DatasetError: an illegal action, or a reward or observation that cannot be kept; the episode is as it was
                before.
        """
        legal = self._action_mask
        if legal is not None and legal.shape != (self._spec.num_actions,):
            raise DatasetError(
                f"an action_mask of shape {list(legal.shape)}",
                where="environment",
                expected=f"[{self._spec.num_actions}]",
            )
        if legal is not None and not legal[action]:
            raise DatasetError(
                f"action {action} of step {len(self)} is illegal there",
                where="behaviour",
                expected=f"one of {np.flatnonzero(legal).tolist()}",
                hint="give the behaviour's __call__ a second parameter, action_mask, and keep to it",
            )
        if not (math.isnan(probability) or 0 < probability <= 1):
            raise DatasetError(
                f"the probability of the action of step {len(self)} is {probability}",
                where="behaviour",
                expected="over 0, at most 1, or NaN where it is not known",
            )
        if not math.isfinite(reward):
            raise DatasetError(f"the reward of step {len(self)} is {reward}", where="environment", expected="a number")
        following = self._checked(observation)
        if self._spec.is_pixels and not np.array_equal(
            following[: -self._spec.channels], self._newest[self._spec.channels :]
        ):
            raise DatasetError(
                "two observations in a row do not share their frames",
                where="environment",
                expected="stacks of frames, oldest first, one new frame a step",
            )
        self._newest, self._action_mask = following, action_mask
        self._steps.append(_Step(action, probability, reward, self._last_row(following), legal))

    def episode(self, *, terminated: bool, truncated: bool) -> Episode:
        """All of it, of 1 step or more."""
        masks = [step.action_mask for step in self._steps]
        has_masks = any(mask is not None for mask in masks)
        every = np.ones(self._spec.num_actions, np.bool_)  # where the environment said nothing
        return Episode(
            observations=np.stack([*self._rows, *(step.row for step in self._steps)]),
            actions=np.array([step.action for step in self._steps], np.int64),
            rewards=np.array([step.reward for step in self._steps], np.float32),
            terminated=terminated,
            truncated=truncated,
            behaviour_probability=np.array([step.probability for step in self._steps], np.float32),
            leading=len(self._rows) - 1,
            action_mask=np.stack([every if mask is None else mask for mask in masks]) if has_masks else None,
        )

    def cut(self) -> Episode:
        """What was played until now, truncated; what follows begins with the frames that its first stack needs."""
        episode = self.episode(terminated=False, truncated=True)
        self._rows = [row.copy() for row in episode.observations[-self._spec.stack :]]
        self._steps = []
        return episode

    def _checked(self, observation: NDArray[Any]) -> NDArray[Any]:
        """A copy, because environments may use their arrays again; vectors as float32."""
        spec = self._spec
        found = np.array(observation) if spec.is_pixels else np.array(observation, dtype=np.float32)
        if found.shape != spec.observation_shape or found.dtype != spec.observation_dtype:
            raise DatasetError(
                f"an observation is {found.dtype} {list(found.shape)}",
                where="environment",
                expected=f"{spec.observation_dtype} {list(spec.observation_shape)}",
            )
        if not spec.is_pixels and not np.isfinite(found).all():
            raise DatasetError(
                "an observation holds NaN or infinite values", where="environment", expected="finite numbers"
            )
        return found

    def _first_rows(self, observation: NDArray[Any]) -> list[NDArray[Any]]:
        if not self._spec.is_pixels:
            return [self._last_row(observation)]
        frames = observation.reshape(self._spec.stack, *self._spec.frame_shape)
        if (frames == frames[0]).all():
            return [self._last_row(observation)]
        return list(frames)  # the stack began before the episode: its older frames are kept

    def _last_row(self, observation: NDArray[Any]) -> NDArray[Any]:
        if not self._spec.is_pixels:
            return observation
        return observation[-self._spec.channels :].reshape(self._spec.frame_shape).copy()


class Recording:
    """A dataset that grows in a directory; the manifest on disk names whole shards only.

    Args:
        directory: where it lies.
        manifest: what is in it.
    """

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest

    @classmethod
    def resume(cls, directory: Path, plan: Manifest, episodes_per_shard: int = 1) -> Recording:
        """The dataset as far as it goes, for one who can make what is missing or damaged again.

        Args:
            directory: of the dataset.
            plan: its manifest before the first shard; taken where there is none.
            episodes_per_shard: where the dataset is not complete, shards from the first one with fewer on are left
                out, because whoever was interrupted there would have gone on with that shard.

        Raises:
            DatasetError: there is another dataset, or files that are none.
        """
        found = _found(directory)
        if found is None:
            return cls(directory, plan)
        _require_same(directory, found, plan, but_versions=found.complete)
        if not found.complete:
            whole = itertools.takewhile(
                lambda record: record.num_episodes >= episodes_per_shard, _intact(directory, found)
            )
            found = _with_shards(found, tuple(whole), complete=False)
        return cls(directory, found)

    @classmethod
    def completed(cls, directory: Path, plan: Manifest) -> Manifest | None:
        """The dataset's manifest where it is complete, which nobody has to hold a lock for; else None.

        Raises:
            DatasetError: there is another dataset, or files that are none.
        """
        found = _found(directory)
        if found is None or not found.complete:
            return None
        _require_same(directory, found, plan, but_versions=True)
        return found

    @classmethod
    def extend(cls, directory: Path, plan: Manifest) -> Recording:
        """The dataset in full, for one who adds to it; other versions of the packages may have made it.

        Args:
            directory: of the dataset.
            plan: its manifest before the first shard; taken where there is none.

        Raises:
            DatasetError: there is another dataset, files that are none, or a shard is missing or damaged.
        """
        found = _found(directory)
        if found is None:
            return cls(directory, plan)
        _require_same(directory, found, plan, but_versions=True)
        num_intact = sum(1 for _ in _intact(directory, found))
        if num_intact < len(found.shards):
            raise DatasetError(
                "is missing or damaged",
                where=directory / found.shards[num_intact].name,
                expected=f"the shard that {MANIFEST_NAME} names",
                hint="restore it, or record into another directory",
            )
        return cls(directory, found)

    def begin(self) -> None:
        """Puts the manifest there before the first shard, which would else be a stranger's."""
        with writing(self.directory):
            self.manifest.save(self.directory)

    def add(self, record: ShardRecord) -> None:
        """Adds a shard that was written, to the manifest on disk first."""
        longer = _with_shards(self.manifest, (*self.manifest.shards, record), complete=False)
        with writing(self.directory):
            longer.save(self.directory)
        self.manifest = longer

    def write(self, episodes: Sequence[Episode]) -> ShardRecord:
        """Writes the next shard and adds it."""
        with writing(self.directory):
            record = write_shard(shard_path(self.directory, len(self.manifest.shards)), episodes)
        self.add(record)
        return record

    def keep(self, num_shards: int) -> None:
        """Forgets all but the first `num_shards` shards; `begin` and `remove_strays` say so on disk."""
        self.manifest = _with_shards(self.manifest, self.manifest.shards[:num_shards], complete=False)

    def complete(self) -> Manifest:
        """Says that the dataset has all it should, on disk before it is returned."""
        complete = _with_shards(self.manifest, self.manifest.shards, complete=True)
        with writing(self.directory):
            complete.save(self.directory)
        self.manifest = complete
        return complete

    def remove_strays(self) -> None:
        """Removes shards that the manifest does not name, made ahead and not needed or to be made again, and litter.

        The caller holds the lock: what lies there beside the dataset is of processes that were killed.
        """
        remove_all_partials(self.directory)
        names = {record.name for record in self.manifest.shards}
        for path in self.directory.glob("shard-*.npz"):
            if path.name not in names:
                path.unlink()


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Says in one line that a dataset cannot be written.

    Raises:
        DatasetError: In place of an OSError of the block.
    """
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"cannot be written ({error.strerror or error})",
            where=directory,
            expected="a writable directory with room for it",
            hint="free some space; what is finished is kept",
        ) from error


def _found(directory: Path) -> Manifest | None:
    if (directory / MANIFEST_NAME).exists():
        return Manifest.load(directory)
    if directory.exists() and any(directory.glob("*.npz")):
        raise DatasetError("holds .npz files without a manifest", where=directory, hint="use another directory")
    return None


def _require_same(directory: Path, found: Manifest, plan: Manifest, *, but_versions: bool) -> None:
    ignored = {"versions"} if but_versions else set()
    for field, theirs, ours in (
        ("spec", found.spec.to_dict(), plan.spec.to_dict()),
        ("environment", _settings(found.environment, ignored), _settings(plan.environment, ignored)),
        ("generator", _settings(found.generator, ignored), _settings(plan.generator, ignored)),
    ):
        for key in sorted({*theirs, *ours}):
            if theirs.get(key) != ours.get(key):
                raise DatasetError(
                    f"holds a dataset whose {field}.{key} is {theirs.get(key)!r}",
                    where=directory,
                    expected=f"{ours.get(key)!r}",
                    hint="use another directory, or the settings of the dataset",
                )


def _settings(settings: Mapping[str, Any], ignored: set[str]) -> dict[str, Any]:
    """As JSON reads it back."""
    same: dict[str, Any] = json.loads(json.dumps({key: settings[key] for key in settings if key not in ignored}))
    return same


def _intact(directory: Path, manifest: Manifest) -> Iterator[ShardRecord]:
    """The shards up to the first that is missing or damaged."""
    for record in manifest.shards:
        path = directory / record.name
        if not path.exists() or file_sha256(path) != record.sha256:
            return
        yield record


def _with_shards(manifest: Manifest, shards: tuple[ShardRecord, ...], *, complete: bool) -> Manifest:
    return replace(manifest, shards=shards, complete=complete)
