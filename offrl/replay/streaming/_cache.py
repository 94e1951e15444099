"""The cache of a streamed dataset: two windows of its shards, fetched and ingested by a thread."""

from __future__ import annotations

import shutil
import tempfile
import threading
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from offrl.errors import DatasetError, InUseError
from offrl.replay.ingestion import ingest
from offrl.replay.store import FrameStore, Tier
from offrl.shards._file_systems import _Remote
from offrl.shards.layouts import Dones
from offrl.shards.manifest import Manifest
from offrl.system.files import cache_home
from offrl.system.locks import locked

_FOLDER_NAME = "stream"
_SECONDS_BETWEEN_ATTEMPTS = (1.0, 4.0, 16.0)
_MOST_SECONDS_TO_CLOSE = 5.0


class WindowCache:
    """Up to two windows on disk: the current one, and the one that is being made ready.

    They lie in a directory of this object's own, which is locked as long as the process lives: what lies unlocked
    beside it was left by a process that was killed, and the next one removes it.
    """

    def __init__(self, remote: _Remote, manifest: Manifest, dones: Dones, tier: Tier, cache: Path | str | None) -> None:
        self.name = remote.name
        self._remote, self._manifest, self._dones, self._tier = remote, manifest, dones, tier
        self._current: _Window | None = None
        self._next: _Window | None = None
        self._lock = ExitStack()
        root = (cache_home() if cache is None else Path(cache)) / _FOLDER_NAME
        try:
            with locked(root / ".lock", target=root, wait=True):
                for folder in root.iterdir():
                    if folder.is_dir():
                        with suppress(InUseError), locked(folder / ".lock"):
                            shutil.rmtree(folder, ignore_errors=True)
                self._folder = Path(tempfile.mkdtemp(dir=root))
                self._lock.enter_context(locked(self._folder / ".lock"))
        except OSError as error:
            raise _unwritable(root, error) from error

    def use(self, shards: tuple[int, ...], following: tuple[int, ...] | None) -> FrameStore:
        """The store of these shards, which become the current window; the following one is then made ready.

        Raises:
            DatasetError: They cannot be fetched or read. The next call tries again.
        """
        if self._current is None or self._current.shards != shards:
            if self._current is not None:  # first, to make room
                self._current.remove()
            if self._next is not None and self._next.shards != shards:
                self._next.remove()
                self._next = None
            self._current, self._next = self._next or self._begin(shards), None
        if self._current.has_failed:  # a network may have come back meanwhile
            self._current.start()
        store = self._current.store()
        if self._next is not None and self._next.shards != following:
            self._next.remove()
            self._next = None
        if self._next is None and following is not None and following != shards:
            self._next = self._begin(following)
        return store

    def _begin(self, shards: tuple[int, ...]) -> _Window:
        records = tuple(self._manifest.shards[shard] for shard in shards)
        manifest = replace(self._manifest, shards=records, environment={}, generator={}, complete=True)
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        return _Window(shards, folder, self._remote, manifest, self._dones, self._tier)

    def close(self) -> None:
        """Removes everything."""
        for window in (self._current, self._next):
            if window is not None:
                window.remove(wait_seconds=_MOST_SECONDS_TO_CLOSE)
        self._current = self._next = None
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()


class _Window:
    """Shards that a thread fetches and ingests into a store; they are removed when it is made."""

    def __init__(
        self,
        shards: tuple[int, ...],
        folder: Path,
        remote: _Remote,
        manifest: Manifest,
        dones: Dones,
        tier: Tier,
    ) -> None:
        self.shards = shards
        self._folder, self._remote, self._manifest, self._dones, self._tier = folder, remote, manifest, dones, tier
        self._cancelled = threading.Event()
        self.start()

    def start(self) -> None:
        """Begins, or goes on after a failure with what was not fetched."""
        self._made: Future[FrameStore] = Future()
        # A daemon, so that the end of the process does not wait for a network.
        self._thread = threading.Thread(target=self._run, args=(self._made,), daemon=True, name="offrl-stream")
        self._thread.start()

    @property
    def has_failed(self) -> bool:
        """Whether the last attempt ended with an error."""
        return self._made.done() and self._made.exception() is not None

    def store(self) -> FrameStore:
        """The store; waits for it.

        Raises:
            DatasetError: It could not be made.
        """
        return self._made.result()

    def remove(self, wait_seconds: float | None = None) -> None:
        """Stops the work after the shard in progress, and removes the files."""
        self._cancelled.set()
        self._thread.join(wait_seconds)
        self._made = Future()  # and with it the store's open files
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, made: Future[FrameStore]) -> None:
        try:
            made.set_result(self._make())
        except OSError as error:
            made.set_exception(_unwritable(self._folder, error))
        except BaseException as error:
            made.set_exception(error)

    def _make(self) -> FrameStore:
        paths = [self._folder / record.name for record in self._manifest.shards]
        for path in paths:
            if not path.exists():
                self._fetch(path)
        self._manifest.save(self._folder)
        if self._cancelled.is_set():
            raise DatasetError("is not needed any more", where=self._folder)
        store = ingest(self._folder, dones=self._dones, cache=self._folder / "store", tier=self._tier, progress=False)
        for path in paths:
            path.unlink()
        return store

    def _fetch(self, path: Path) -> None:
        """One shard, whole and with the manifest's checksum; some more attempts where that fails."""
        from fsspec.callbacks import NoOpCallback

        for seconds in (*_SECONDS_BETWEEN_ATTEMPTS, None):
            if self._cancelled.is_set():
                raise DatasetError("is not needed any more", where=path)
            try:
                self._remote.fetch(path.name, path, False, NoOpCallback())
                return
            except DatasetError:
                if seconds is None:
                    raise
            self._cancelled.wait(seconds)


def _unwritable(where: Path, error: OSError) -> DatasetError:
    return DatasetError(
        f"the cache cannot be written ({error.strerror or error})",
        where=where,
        expected="a writable directory with room for it",
        hint="free some space, or set OFFRL_CACHE to another directory",
    )
