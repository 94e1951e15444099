"""The data that a run learned from: where its config.json or the user says that it is, and read as the run read it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from offrl.cli.console import warn
from offrl.cli.names import algorithm_class
from offrl.cli.request import Request
from offrl.errors import ConfigError, DatasetError, OfflineRLError, SpecMismatchError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from offrl.replay.replay import Replay
    from offrl.replay.store import FrameStore
    from offrl.replay.streaming.source import StreamingReplay


def data_location(directory: Path | str) -> str:
    """What a request says of where its data is: an absolute path, or the address as it is."""
    return directory if isinstance(directory, str) else str(directory.resolve())


def is_data_there(request: Request) -> bool:
    """Whether the run says where its data is, and that is a directory or an address that was fetched before.

    No other address: that a file names one is no reason to load from it. And nothing that was streamed, as what is
    larger than the disk.
    """
    from offrl.shards.remote import fetched_copy

    if request.settings["replay"].get("stream") is not None:
        return False
    return request.data is not None and (fetched_copy(request.data) is not None or Path(request.data).is_dir())


def open_training_data(request: Request, *, progress: bool) -> Replay | StreamingReplay:
    """The replay that a run trains on, with what its algorithm's loss reads; it may stream.

    Raises:
        ConfigError: The run does not say where its data is.
        DatasetError: There is no dataset, or a damaged one.
        SpecMismatchError: Its manifest says another task than the user.
    """
    from offrl.replay.config import Extra
    from offrl.replay.opening import open_replay

    settings = request.settings["replay"]
    asked = tuple(settings.get("include", ()))
    needed = algorithm_class(request.algorithm).needs & {*get_args(Extra)} - {*asked}
    settings = {**settings, "include": (*asked, *sorted(needed))}
    replay: Replay | StreamingReplay = open_replay(**_reading(request, progress), **settings)
    return replay


def _reading(request: Request, progress: bool) -> dict[str, Any]:
    if request.data is None:
        raise ConfigError(
            "the run does not say where its data is", where="train", expected="DIRECTORY", hint="name it as well"
        )
    return {
        "directory": request.data,
        "spec": request.task if request.task_given else None,
        "dones": request.dones,
        "skip_bad_shards": request.skip_bad_shards,
        "progress": progress,
    }


def recorded_store(request: Request, run: Path, *, progress: bool) -> FrameStore | None:
    """The frame store of what a run was trained on, where that is still here; None where the data is gone.

    A run may be a stranger's, and its config.json name any dataset of this machine: what it names is only read, and
    only where it is what the run was trained on. No frame store is built there.

    Raises:
        DatasetError: The dataset has no frame store, or is damaged.
        SpecMismatchError: It is another dataset by now.
    """
    from offrl.replay.ingestion import find_store
    from offrl.shards.remote import fetched_copy

    if request.data is None or not is_data_there(request):
        return None
    directory = fetched_copy(request.data) or Path(request.data)  # as it is: not even asked whether it has changed
    found = find_store(
        directory,
        spec=request.task if request.task_given else None,
        dones=request.dones,
        skip_bad_shards=request.skip_bad_shards,
    )
    if found is None:
        raise DatasetError(
            "has no frame store, and that a run names it is no reason to write one there",
            where=directory,
            expected="a dataset that was opened before",
            hint="name the dataset on the command line",
        )
    require_recorded(found, run, redacted_data(request))
    return found


def require_recorded(store: FrameStore, run: Path, where: str) -> None:
    """Checks that a store is of the data that a run was trained on.

    Raises:
        SpecMismatchError: It is not.
    """
    from offrl.runs.files import read_run_config

    recorded = read_run_config(run).get("dataset")
    if store.fingerprint != recorded:
        raise SpecMismatchError(
            f"is {store.fingerprint}", where=where, expected=f"{recorded}, which the run was trained on"
        )


def redacted_data(request: Request) -> str:
    """Where a run's data is, without credentials."""
    from offrl.shards._file_systems import redacted

    return redacted(request.data or "")


def named_store(request: Request, data: Path | str, run: Path, *, progress: bool) -> FrameStore:
    """The frame store of the dataset that the user names as what a run was trained on; built where it is missing.

    Raises:
        DatasetError: There is no dataset, or a damaged one.
        SpecMismatchError: It is not what the run was trained on.
    """
    store = read_alike(request, data, is_own=True, progress=progress)
    require_recorded(store, run, redacted_data(replace(request, data=str(data))))
    return store


def read_alike(request: Request, data: Path | str, *, is_own: bool, progress: bool) -> FrameStore:
    """The frame store of a dataset that the user names, read as a run has read its own; built where it is missing.

    Args:
        request: The run's.
        data: The dataset, or its address.
        is_own: Whether it is what the run was trained on. Others without a manifest are said to be of the run's task,
            and of the stacked layout alone the run's `dones` says something.
        progress: Whether to show a bar.

    Raises:
        DatasetError: There is no dataset, or a damaged one.
        SpecMismatchError: It is of another task.
    """
    from offrl.replay.opening import open_replay
    from offrl.shards.manifest import MANIFEST_NAME, Manifest
    from offrl.shards.remote import local_copy

    directory = local_copy(data, skip_bad_shards=request.skip_bad_shards, progress=progress)
    is_told = request.task_given or request.data is None or not is_own
    if (directory / MANIFEST_NAME).exists():
        is_told = False
        if not is_own and Manifest.load(directory).layout == "frames":
            request = replace(request, dones="terminated")
    request = replace(request, data=str(data), task_given=is_told)
    store: FrameStore = open_replay(**_reading(request, progress)).store
    return store


_REAL_OBSERVATIONS = 1_000
"""On which an exported file is compared with its network."""


def real_observations(request: Request, run: Path, data: Path | str | None, *, quiet: bool) -> NDArray[Any] | None:
    """Some of the run's own data: as the user names it, or where it is still there and was opened before."""
    from offrl.datasets.summary import sample_stacks

    if data is not None:
        store: FrameStore | None = named_store(request, data, run, progress=not quiet)
    else:
        try:
            store = recorded_store(request, run, progress=not quiet)
        except OfflineRLError as error:
            warn(f"verified on random observations only: {error}")
            return None
    return None if store is None else sample_stacks(store, _REAL_OBSERVATIONS, seed=0)[0]
