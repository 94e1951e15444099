"""The shards that a dataset under way has gained since its manifest was written: a sealed line of JSON for each.

A manifest names every shard: to write it anew for each of them would take quadratic time. A line counts where it is
whole, of the same dataset, and of the shard that comes next; what was cut short by a kill, or left by an earlier
journal, does not.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from offrl.system.files import read_at_most, sync
from offrl.system.json_files import MAX_BYTES, parse_json, sealed

JOURNAL_NAME = ".manifest.journal"


def append_line(directory: Path, dataset: str, index: int, record: Mapping[str, Any]) -> None:
    """Adds a line, on disk before this returns.

    Args:
        directory: Of the dataset.
        dataset: Tells it from others, see `Manifest.identity`.
        index: Of the shard in the dataset, from 0.
        record: What the manifest is going to say about it.

    Raises:
        OSError: It cannot be written; the journal is as it was before.
    """
    line = json.dumps(sealed({"dataset": dataset, "index": index, "shard": dict(record)})).encode() + b"\n"
    path = directory / JOURNAL_NAME
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):  # else the next line would be a part of this one
                file.truncate(size)
            raise
    if size == 0:
        sync(directory)


def read_lines(directory: Path, dataset: str, first: int) -> Iterator[Any]:
    """What the lines say about the shards `first`, `first` + 1, ... of a dataset, up to the first that does not count.

    Raises:
        OSError: The journal cannot be read, or is no regular file.
    """
    try:
        content = read_at_most(directory / JOURNAL_NAME, MAX_BYTES)
    except FileNotFoundError:
        return
    for line in content.split(b"\n")[:-1]:
        try:
            found = parse_json(line)
        except ValueError:
            return
        index = found.get("index")
        if found.get("dataset") != dataset or not isinstance(index, int) or index > first:
            return
        if index == first:  # those before are in the manifest, which was written after them
            yield found.get("shard")
            first += 1


def remove_journal(directory: Path) -> None:
    """Removes the journal: the manifest names what it did."""
    (directory / JOURNAL_NAME).unlink(missing_ok=True)
