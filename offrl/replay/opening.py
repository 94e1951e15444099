"""From a directory of shards, or its address, to a replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any, overload

from offrl.errors import ConfigError
from offrl.replay.config import ReplayConfig, config_of
from offrl.replay.ingestion import ingest
from offrl.replay.replay import Replay
from offrl.replay.streaming.source import StreamingReplay
from offrl.shards._file_systems import is_remote, redacted
from offrl.shards.layouts import Dones
from offrl.shards.manifest import MANIFEST_NAME, Manifest
from offrl.shards.remote import local_copy
from offrl.spec import TaskSpec


@overload
def open_replay(
    directory: Path | str,
    config: ReplayConfig | None = None,
    *,
    stream: None = None,
    spec: TaskSpec | None = None,
    dones: Dones = "terminated",
    skip_bad_shards: bool = False,
    cache: Path | str | None = None,
    progress: bool = True,
    **settings: Any,
) -> Replay: ...


@overload
def open_replay(
    directory: Path | str,
    config: ReplayConfig | None = None,
    *,
    stream: int | str,
    spec: TaskSpec | None = None,
    dones: Dones = "terminated",
    skip_bad_shards: bool = False,
    cache: Path | str | None = None,
    progress: bool = True,
    **settings: Any,
) -> StreamingReplay: ...


def open_replay(
    directory: Path | str,
    config: ReplayConfig | None = None,
    *,
    stream: int | str | None = None,
    spec: TaskSpec | None = None,
    dones: Dones = "terminated",
    skip_bad_shards: bool = False,
    cache: Path | str | None = None,
    progress: bool = True,
    **settings: Any,
) -> Replay | StreamingReplay:
    """A Replay over a directory of shards in either layout, which is ingested first where that was not done before.

    Its `origin` says where the data lies (an address without credentials) and how it was read, so that a run that is
    trained on it can be reported on and made again.

    Args:
        directory: The shards, or their address elsewhere such as s3://bucket/folder, from where they are fetched into
            the cache first.
        config: What is drawn, and how transitions are made of it.
        stream: For data larger than the disk: a size such as "20G". Then nothing is fetched or ingested as a whole, and
            a StreamingReplay is returned, see `offrl.replay.streaming.source`.
        spec: See `ingest`, as for the next four.
        dones: Stacked layout only: what true in `dones` says.
        skip_bad_shards: Set damaged shards aside.
        cache: Where to put the store.
        progress: Show a bar on stderr.
        settings: Fields of `ReplayConfig` by name, in place of `config`: `open_replay("data", n_step=10)`.

    Raises:
        ConfigError: A setting outside what is allowed.
        DatasetError: A missing, damaged or inconsistent dataset.
        SpecMismatchError: `spec` differs from the dataset's.
    """
    if stream is not None:
        settings["stream"] = stream
    config = config_of(config, settings)  # before the work, not after it
    origin = {
        "data": redacted(directory) if is_remote(directory) else str(Path(directory).resolve()),
        "dones": dones,
        "skip_bad_shards": skip_bad_shards,
        "task_given": spec is not None,
    }
    if config.stream is not None:
        if skip_bad_shards:
            raise ConfigError("True", where="Replay.skip_bad_shards", expected="False, or no stream")
        streaming = StreamingReplay(directory, config, Replay, spec=spec, dones=dones, cache=cache)
        streaming.origin = origin
        return streaming
    directory = Path(local_copy(directory, cache=cache, skip_bad_shards=skip_bad_shards, progress=progress))
    store = ingest(
        directory,
        spec=spec,
        dones=dones,
        skip_bad_shards=skip_bad_shards,
        cache=cache,
        tier="mmap" if config.tier == "device" else config.tier,
        progress=progress,
    )
    replay = Replay(store, config)
    replay.origin = origin
    if (directory / MANIFEST_NAME).is_file():
        replay.environment = Manifest.load(directory).plain_environment
    return replay
