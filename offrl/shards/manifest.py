"""The frames layout on disk: episodes into `.npz` shards, and the manifest beside them (no torch here)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from offrl.checks import is_whole
from offrl.errors import DatasetError
from offrl.shards._journal import JOURNAL_NAME, read_lines
from offrl.shards.layouts import Layout
from offrl.spec import TaskSpec
from offrl.system.files import open_regular, read_at_most
from offrl.system.json_files import MAX_BYTES, parse_json, write_sealed_json

MANIFEST_NAME = "manifest.json"
_FORMATS: dict[str, Layout] = {"offrl-frames": "frames", "offrl-stacked": "stacked"}
FORMAT_VERSION = 1


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


def plain_environment(environment: Mapping[str, Any]) -> str | None:
    """The id of what a manifest calls its environment, where that says all: with settings it would name another one."""
    name = environment.get("id")
    return None if name is None or environment.get("settings") else str(name)


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
        protocol: of a dataset of `offrl.collection.protocol`: its kind, the online run, and the values that the
            dataset's measures refer to, JSON-ready; None for any other.
    """

    spec: TaskSpec
    shards: tuple[ShardRecord, ...]
    environment: Mapping[str, Any]
    generator: Mapping[str, Any]
    complete: bool = True
    format_version: int = FORMAT_VERSION
    layout: Layout = "frames"
    protocol: Mapping[str, Any] | None = None

    @property
    def num_transitions(self) -> int:
        """Steps in all shards."""
        return sum(shard.num_transitions for shard in self.shards)

    @property
    def plain_environment(self) -> str | None:
        """See `plain_environment`."""
        return plain_environment(self.environment)

    def save(self, directory: Path | str) -> None:
        """Writes `manifest.json` into `directory`, whole or not at all, with a hash of what it says."""
        data = {
            "format": f"offrl-{self.layout}",
            "format_version": self.format_version,
            "complete": self.complete,
            "spec": self.spec.to_dict(),
            "environment": dict(self.environment),
            "generator": dict(self.generator),
            "shards": [asdict(shard) for shard in self.shards],
        }
        if self.protocol is not None:
            data["protocol"] = dict(self.protocol)
        write_sealed_json(Path(directory) / MANIFEST_NAME, data)

    @classmethod
    def load(cls, directory: Path | str) -> Manifest:
        """Reads `manifest.json` of `directory`; while a collection is under way, with the shards made since.

        Raises:
            DatasetError: the file is missing, damaged, or of another format or version.
            SpecMismatchError: its task spec cannot be read.
        """
        path = Path(directory) / MANIFEST_NAME
        try:
            content = read_at_most(path, MAX_BYTES)
        except FileNotFoundError:
            raise DatasetError(
                "no such file", where=path, expected="the manifest of a frames dataset", hint="collect the data again"
            ) from None
        except OSError as error:
            raise DatasetError(
                f"cannot be read ({error})", where=path, expected="a manifest", hint="collect the data again"
            ) from error
        found = cls.parse(content, where=path)
        return found if found.complete else found._with_journal(path.parent)

    def _with_journal(self, directory: Path) -> Manifest:
        shards, names = [*self.shards], {shard.name for shard in self.shards}
        try:
            for line in read_lines(directory, self.identity(), len(shards)):
                record = _record(line)
                if record.name in names:
                    break
                names.add(record.name)
                shards.append(record)
        except OSError as error:
            raise DatasetError(
                f"cannot be read ({error})", where=directory / JOURNAL_NAME, expected="a file", hint="remove it"
            ) from error
        except (KeyError, TypeError, ValueError):
            pass  # sealed, and yet none of ours: what comes after the good ones is made again
        return replace(self, shards=tuple(shards))

    def identity(self) -> str:
        """A hash of all but the shards."""
        about = [self.layout, self.spec.to_dict(), dict(self.environment), dict(self.generator)]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def parse(cls, content: bytes, where: Path | str) -> Manifest:
        """A manifest from the content of its file.

        Raises:
            DatasetError: it is damaged, or of another format or version; `where` names the file.
            SpecMismatchError: its task spec cannot be read.
        """
        try:
            if len(content) > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
            data = parse_json(content)
        except ValueError as error:
            raise DatasetError(
                f"cannot be read ({error})", where=where, expected="JSON", hint="collect the data again"
            ) from error
        if str(data.get("format")) not in _FORMATS:
            expected = " or ".join(f'"format": "{name}"' for name in _FORMATS)
            raise DatasetError("is no manifest of offrl's", where=where, expected=expected)
        if data.get("format_version") is True or data.get("format_version") != FORMAT_VERSION:
            raise DatasetError(
                f"format_version is {data.get('format_version')!r}",
                where=where,
                expected=str(FORMAT_VERSION),
                hint="read it with the version of offrl that wrote it, or collect the data again",
            )
        try:
            if not isinstance(data["complete"], bool):
                raise TypeError(f"complete is {data['complete']!r}")
            return cls(
                spec=TaskSpec.from_dict(data["spec"], where=where),
                shards=_records(data["shards"]),
                environment=dict(data["environment"]),
                generator=dict(data["generator"]),
                complete=data["complete"],
                layout=_FORMATS[data["format"]],
                protocol=None if data.get("protocol") is None else dict(data["protocol"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"a field is missing or malformed ({type(error).__name__}: {error})",
                where=where,
                expected="spec, shards, environment, generator, complete",
                hint="collect the data again",
            ) from error


def _records(data: Sequence[Mapping[str, Any]]) -> tuple[ShardRecord, ...]:
    if not isinstance(data, list):
        raise TypeError("shards are no list")
    records = tuple(map(_record, data))
    counts = Counter(record.name for record in records)
    if twice := sorted(name for name, count in counts.items() if count > 1):  # its transitions would count twice
        raise ValueError(f"{twice[:3]} named twice")
    return records


def _record(data: Mapping[str, Any]) -> ShardRecord:
    name, sha256 = data["name"], data["sha256"]
    if not (isinstance(name, str) and isinstance(sha256, str)):
        raise TypeError("a shard's name or sha256 is no text")
    # A manifest must not reach files outside its directory, nor put control codes into messages.
    if not name or not name.isprintable() or name[0] == "." or {*name} & {"/", "\\"} or len(name.encode()) > 255:
        raise ValueError(f"shard name {name[:300]!r} is not a plain file name")
    counts = {field: data[field] for field in ("num_transitions", "num_episodes", "num_frames")}
    for field, count in counts.items():
        if not is_whole(count) or not 0 <= count < 2**63:
            raise ValueError(f"{field} of {name} is {count!r}")
    return ShardRecord(name, sha256, **counts)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it is a buffered file
