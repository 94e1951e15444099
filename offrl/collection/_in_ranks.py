"""Shards that several ranks make in turn, so that a collection is the same on any number of them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from offrl.errors import ConfigError, DatasetError, OfflineRLError
from offrl.shards.manifest import Manifest, ShardRecord
from offrl.system.ranks import Ranks


class ShardSource(Protocol):
    """Makes the shards of a dataset."""

    def make(self, index: int) -> ShardRecord:
        """Makes shard `index`."""
        ...

    def stop(self) -> dict[int, ShardRecord]:
        """Ends the work; the shards by their index that are there."""
        ...

    def close(self) -> None:
        """Ends the work."""
        ...


class InRanks:
    """Asks `source` for every so-many-th shard, and the other ranks for those between; all learn what was made.

    Args:
        source: Of this rank's shards, `first` + rank, `first` + rank + count, ...
        directory: Of the dataset, which all ranks see.
        ranks: More than one.
    """

    def __init__(self, source: ShardSource, directory: Path, ranks: Ranks) -> None:
        self._source, self._directory, self._ranks = source, directory, ranks
        self._made: dict[int, ShardRecord | str] = {}

    def make(self, index: int) -> ShardRecord:
        """Gives shard `index`; called for one after the other. Collective."""
        if index not in self._made:
            try:
                answer: dict[str, object] | str = asdict(self._source.make(index + self._ranks.rank))
            except OfflineRLError as error:  # raised when it is this shard's turn: it may not be needed
                answer = str(error)
            answers = self._ranks.gather(answer)
            self._made = {
                index + rank: found if isinstance(found, str) else ShardRecord(**found)
                for rank, found in enumerate(answers)
            }
        made = self._made[index]
        if isinstance(made, str):
            raise DatasetError(made)
        if self._ranks.is_first and not (self._directory / made.name).exists():
            raise DatasetError(
                "was written by another rank, and is not here",
                where=self._directory / made.name,
                expected="a directory that the machines of all ranks see",
                hint="name one on a shared file system, or collect on one machine",
            )
        return made

    def stop(self) -> dict[int, ShardRecord]:
        """What is known here: this rank's shards, and those of the newest round."""
        known = {index: made for index, made in self._made.items() if isinstance(made, ShardRecord)}
        return {**known, **self._source.stop()}

    def close(self) -> None:
        """Ends this rank's work."""
        self._source.close()


def require_same_plan(plan: Manifest, ranks: Ranks) -> None:
    """Refuses ranks that would not play the same episodes. Collective.

    Raises:
        ConfigError: The settings, or the versions of packages, differ.
    """
    if len({*ranks.gather(plan.identity())}) > 1:
        raise ConfigError(
            "the ranks have different settings or versions of packages",
            where="collect",
            expected="the same command in the same environment on all machines",
            hint="compare what offrl version says on each",
        )
