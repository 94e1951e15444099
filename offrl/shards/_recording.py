"""A frames dataset under way: shards one by one, a journal of them, and at the end a manifest that names them all."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from offrl.errors import DatasetError
from offrl.shards._journal import JOURNAL_NAME, append_line, remove_journal
from offrl.shards.episode import Episode, shard_path, write_next_shard
from offrl.shards.manifest import MANIFEST_NAME, Manifest, ShardRecord, file_sha256
from offrl.system.files import remove_all_partials
from offrl.system.locks import clear_after_kill

LOCK_NAME = ".lock"
"""In the directory: held by whoever adds to the dataset."""


class Recording:
    """A dataset that grows in a directory, which `Manifest.load` reads at any time; it names whole shards only.

    To add a shard takes a line in a journal; the manifest is written at the beginning and in the end.

    Args:
        directory: where it lies.
        manifest: what is in it.

    Attributes:
        num_transitions: steps in all shards.
    """

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self._plan = replace(manifest, shards=())
        self._shards = [*manifest.shards]
        self._identity = manifest.identity()
        self._has_begun = False
        self.num_transitions = manifest.num_transitions

    def __len__(self) -> int:
        """The number of shards."""
        return len(self._shards)

    @property
    def is_complete(self) -> bool:
        """Whether it has all it should."""
        return self._plan.complete

    @property
    def manifest(self) -> Manifest:
        """What is in it."""
        return replace(self._plan, shards=tuple(self._shards))

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
            found = replace(found, shards=tuple(whole))
        return cls(directory, found)

    @classmethod
    def completed(cls, directory: Path, plan: Manifest) -> Manifest | None:
        """The dataset's manifest where it is complete, which nobody has to hold a lock for; else None.

        What a process left that was killed right at its end is removed.

        Raises:
            DatasetError: there is another dataset, or files that are none.
        """
        found = _found(directory)
        if found is None or not found.complete:
            return None
        _require_same(directory, found, plan, but_versions=True)
        left = [directory / JOURNAL_NAME]
        clear_after_kill(directory / LOCK_NAME, cls(directory, found).remove_strays, left)
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
        """Puts the manifest there before the first shard, which would else be a stranger's, and removes litter.

        The caller holds the lock, and calls this, or `write`, before other processes write shards.
        """
        with writing(self.directory):
            self._save(complete=False)
            remove_all_partials(self.directory)
        self._has_begun = True

    def add(self, record: ShardRecord) -> None:
        """Adds a shard that was written, on disk first."""
        if not self._has_begun:
            self.begin()
        with writing(self.directory):
            append_line(self.directory, self._identity, len(self._shards), asdict(record))
        self._shards.append(record)
        self.num_transitions += record.num_transitions

    def write(self, episodes: Sequence[Episode]) -> ShardRecord:
        """Writes the next shard and adds it."""
        if not self._has_begun:
            self.begin()
        with writing(self.directory):
            record = write_next_shard(shard_path(self.directory, len(self._shards)), episodes)
        self.add(record)
        return record

    def keep(self, num_shards: int) -> None:
        """Forgets all but the first `num_shards` shards; `begin` and `remove_strays` say so on disk."""
        del self._shards[num_shards:]
        self.num_transitions = sum(record.num_transitions for record in self._shards)

    def complete(self) -> Manifest:
        """Says that the dataset has all it should, on disk before it is returned."""
        with writing(self.directory):
            self._save(complete=True)
        return self.manifest

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Calls `fold` where the block raises."""
        try:
            yield
        except BaseException:
            self.fold()
            raise

    def fold(self) -> None:
        """Ends a collection that is not complete: the manifest alone then names all shards, as a copy may have it."""
        if self._has_begun:
            with suppress(OSError):  # such as a full disk; the journal has them
                self._save(complete=False)

    def _save(self, *, complete: bool) -> None:
        """Writes the manifest, and only then removes the journal: what the two of them name grows, but for a moment."""
        saved = replace(self.manifest, complete=complete)
        saved.save(self.directory)
        self._plan = replace(saved, shards=())
        remove_journal(self.directory)

    def remove_strays(self) -> None:
        """Removes shards that the manifest does not name, made ahead and not needed or to be made again, and litter.

        The caller holds the lock: what lies there beside the dataset is of processes that were killed.
        """
        remove_all_partials(self.directory)
        names = {record.name for record in self._shards}
        for path in self.directory.glob("shard-*.npz"):
            if path.name not in names:
                path.unlink()
        if self.is_complete:
            remove_journal(self.directory)


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
