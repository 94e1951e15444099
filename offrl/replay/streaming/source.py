"""A replay over data larger than the disk: shards pass through a local cache of limited size, window by window.

A window is as many shards as fit half of the cache. While one is trained on, the next is fetched and ingested in the
other half. Each pass over the data takes the shards in another order, and within a window the order of the transitions
is random over all of it, so that each transition is drawn once a pass. Which ones an update takes is a pure function of
(seed, step), given the dataset and the size of the cache: a run that is resumed draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from offrl.batch import Batch
from offrl.errors import ConfigError, DatasetError
from offrl.replay.config import ReplayConfig
from offrl.replay.sampling import Uniform
from offrl.replay.source import ReplaySource
from offrl.replay.store import ROW_ARRAYS, FrameStore, Tier
from offrl.replay.streaming._cache import WindowCache
from offrl.replay.streaming._sampler import WindowSampler
from offrl.shards._file_systems import _Remote, is_remote
from offrl.shards.layouts import Dones
from offrl.shards.manifest import MANIFEST_NAME, Manifest, ShardRecord
from offrl.spec import TaskSpec

_BYTES_BESIDE_ROWS = 8192  # headers of the arrays, and what a store and a manifest say of themselves
_BYTES_BESIDE_SHARD = 512  # what manifest, store and an unfinished ingest say of a shard


class StreamingReplay(ReplaySource):
    """Transitions of a dataset of which at most two windows are here; `open_replay(url, stream="20G")` opens one.

    An index names a transition and the pass that draws it: transition i of the dataset is `p * len(replay) + i` in pass
    p. `gather` is quick where it is asked in the order of the updates, and fetches a window anew where it is not.

    Args:
        source: The dataset's address, or a directory.
        config: What is drawn; `stream` says how many bytes the cache may take.
        make_replay: Makes the replay of a window: the class `Replay`.
        spec: The task, to be checked against the dataset's.
        dones: See `ingest`.
        cache: The directory in which the cache is made; default: $OFFRL_CACHE, else ~/.cache/offrl.

    Raises:
        ConfigError: A setting that streaming does not have, or a cache that is too small.
        DatasetError: No dataset with a manifest, or it cannot be reached, or is damaged.
        SpecMismatchError: `spec` differs from the dataset's.
    """

    gather_ahead = False  # the next window is fetched ahead, and `prefetch` does the rest

    def __init__(
        self,
        source: Path | str,
        config: ReplayConfig,
        make_replay: Callable[[FrameStore, ReplayConfig], ReplaySource],
        *,
        spec: TaskSpec | None = None,
        dones: Dones = "terminated",
        cache: Path | str | None = None,
    ) -> None:
        _require_streamable(config)
        self.config = config
        address = str(source) if is_remote(source) else f"file://{Path(source).absolute()}"
        remote = _Remote.find(address, skip_bad_shards=False)
        manifest = _manifest_of(remote, spec)
        limit = int(config.stream or 0) // 2 - _BYTES_BESIDE_ROWS - 2 * len(json.dumps(manifest.spec.to_dict()))
        costs = [_cost(record, remote.files[record.name].size, manifest.spec) for record in manifest.shards]
        if max(costs) > limit:
            least = int(config.stream or 0) + 2 * (max(costs) - limit)
            raise ConfigError(
                f"{tqdm.format_sizeof(int(config.stream or 0), 'B')}, too small for two windows of one shard each",
                where="Replay.stream",
                expected=f"at least {least:,} bytes, for what a shard and its rows take",
                hint="give it more, or rewrite the data in smaller shards",
            )
        sizes = [record.num_transitions for record in manifest.shards]
        self._sampler = WindowSampler(sizes, costs, limit, config.seed)
        self._make_replay = make_replay
        tier: Tier = "ram" if config.tier == "ram" else "mmap"  # "auto" would hold two windows in memory
        self._window_config = replace(config, stream=None, tier=tier)
        self._cache = WindowCache(remote, manifest, dones, tier, cache)
        self._close = weakref.finalize(self, self._cache.close)
        self._lock = threading.Lock()
        self._active: tuple[tuple[int, int] | None, ReplaySource] | None = None
        # One shard, always the same: it says whether the data has action masks, and that the data can be read at all.
        try:
            probe = make_replay(self._cache.use((0,), None), replace(self._window_config, legal_actions=None))
            self.spec = replace(probe.spec, legal_actions=config.legal)
            if config.legal is not None and self.spec.action_masks:  # a window could leave out transitions
                raise ConfigError(
                    f"{config.legal} with stream, for data with an action_mask",
                    where="Replay.legal_actions",
                    expected="None",
                    hint="or leave stream out",
                )
        except BaseException:
            self.close()
            raise
        self.fingerprint = _fingerprint(manifest, dones)
        self.environment = manifest.plain_environment

    def __len__(self) -> int:
        """The number of transitions in the dataset."""
        return self._sampler.size

    def settings(self) -> dict[str, Any]:
        """What a run's config records, JSON-ready; the size of the cache is part of it."""
        return self.config.to_dict()

    def indices(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """The global batch of update `step`, int64 [batch_size]: a pure function of (seed, step)."""
        return self._sampler.indices(step, batch_size)

    def gather(self, indices: ArrayLike) -> Batch:
        """The transitions at `indices` [B], on the host; waits for their window where it is not here yet.

        Raises:
            IndexError: A negative index.
            DatasetError: A window cannot be fetched, several attempts included, or is not what the manifest says.
        """
        chosen = np.asarray(indices, np.int64)
        if chosen.size and chosen.min() < 0:
            raise IndexError(f"index {chosen.min()} is negative")
        where = self._sampler.locate(chosen)
        # In the order in which they are drawn: a batch may begin in one window and end in the next.
        windows = sorted({*zip(where.pass_number.tolist(), where.window.tolist(), strict=True)}) or [(0, 0)]
        places, parts = [], []
        for window in windows:
            here = np.flatnonzero((where.pass_number == window[0]) & (where.window == window[1]))
            places.append(here)
            parts.append(self._with_all_legal(self._replay_of(*window).gather(where.row[here])))
        batch = parts[0] if len(parts) == 1 else _joined(parts, np.concatenate(places))
        return batch if batch.index is None else replace(batch, index=torch.from_numpy(chosen % len(self)))

    def prefetch(self, indices: ArrayLike) -> None:
        """Starts to read from disk what `gather` will need of the window that is here, and returns at once."""
        active = self._active
        if active is not None and active[0] is not None:
            where = self._sampler.locate(np.asarray(indices, np.int64))
            here = (where.pass_number == active[0][0]) & (where.window == active[0][1])
            active[1].prefetch(where.row[here])

    def close(self) -> None:
        """Removes the cache, as the end of the process or of this object does; nothing can be gathered afterwards."""
        self._active = None
        self._close()

    def _replay_of(self, number: int, index: int) -> ReplaySource:
        """The replay of a window, which becomes the current one; the window after it is then fetched."""
        with self._lock:
            if self._active is None or self._active[0] != (number, index):
                self._active = None  # its files can only go where nothing has them open
                shards = self._sampler.windows(number)[index].shards
                store = self._cache.use(shards, self._sampler.following(number, index).shards)
                replay = self._make_replay(store, self._window_config)
                if replay.spec.action_masks and not self.spec.action_masks:
                    raise DatasetError(
                        "some shards have an action_mask, and the first one has none",
                        where=self._cache.name,
                        expected="all shards alike, to be streamed",
                        hint="train without stream, or write the data anew",
                    )
                self._active = (number, index), replay
            return self._active[1]

    def _with_all_legal(self, batch: Any) -> Batch:
        """As in a store: where some shards of the data have an action mask, all actions are legal in the others."""
        if self.spec.action_masks and batch.action_mask is None:
            legal = torch.ones((len(batch), self.spec.num_actions), dtype=torch.bool)
            batch = replace(batch, action_mask=legal, next_action_mask=legal.clone())
        found: Batch = batch
        return found


def _require_streamable(config: ReplayConfig) -> None:
    """Raises ConfigError for settings whose meaning depends on all of the data at once."""
    wrong = {
        "sampling": (str(config.sampling), "'uniform'", isinstance(config.sampling, Uniform)),
        "actions": (config.actions, "None", config.actions is None),
        "held_out": (config.held_out, "0", config.held_out == 0),
        "tier": (repr(config.tier), "'auto', 'mmap' or 'ram'", config.tier != "device"),
    }
    for name, (value, expected, holds) in wrong.items():
        if not holds:
            raise ConfigError(
                f"{value} with stream", where=f"Replay.{name}", expected=expected, hint="or leave stream out"
            )


def _manifest_of(remote: _Remote, spec: TaskSpec | None) -> Manifest:
    where = f"{remote.name}/{MANIFEST_NAME}"
    if remote.manifest is None:
        raise DatasetError(
            "no such file",
            where=where,
            expected="a manifest, which says what is in each shard, to be streamed",
            hint="offrl convert writes one",
        )
    manifest = Manifest.parse(remote.manifest, where=where)
    if spec is not None:
        hint = "pass no spec to take the data's own, or point at data of this task"
        spec.require_same(manifest.spec, where=where, hint=hint, legal_actions=False)
    if not manifest.num_transitions:
        raise DatasetError(
            "the shards hold no transitions", where=remote.name, expected="1 or more", hint="collect data first"
        )
    return manifest


def _cost(record: ShardRecord, file_size: int, spec: TaskSpec) -> int:
    """The most bytes that a shard takes in the cache: its file, and its part of the store that is made of it."""
    frame = math.prod(spec.frame_shape) * np.dtype(spec.observation_dtype).itemsize
    # While it is written, a store also has the arrays that only some datasets need.
    row = (
        sum(np.dtype(dtype).itemsize for dtype in ROW_ARRAYS.values())
        + np.dtype(np.float32).itemsize
        + spec.num_actions
    )
    store = record.num_frames * frame + record.num_transitions * row
    # A store may hold checksums of its blocks, under a percent; and some file systems do not tell a file's size.
    return (file_size or store) + store + store // 100 + _BYTES_BESIDE_SHARD


def _fingerprint(manifest: Manifest, dones: Dones) -> str:
    """The one that `ingest` gives to a store of all shards."""
    hashes = [record.sha256 for record in manifest.shards]
    return hashlib.sha256(json.dumps([manifest.layout, dones, hashes]).encode()).hexdigest()


def _joined(parts: Sequence[Batch], places: NDArray[np.int64]) -> Batch:
    """The parts as one batch, in which row `places[i]` is row i of them all."""
    order = torch.from_numpy(np.argsort(places))
    joined: dict[str, Any] = {}
    for field in fields(Batch):
        found = [getattr(part, field.name) for part in parts]
        joined[field.name] = None if found[0] is None else torch.cat(found)[order]
    return Batch(**joined)
