"""Behaviours to shards, with worker processes, the same bytes from the same seed; and what you play yourself."""

from __future__ import annotations

import copy
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections import deque
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from offrl import envs
from offrl.collection._play import plan_dataset, play_episode, progress_bar
from offrl.collection.recorder import Recorder
from offrl.envs.behaviours import Behaviour
from offrl.errors import ConfigError, DatasetError
from offrl.shards._recording import Recording, shard_path
from offrl.shards.manifest import Manifest, ShardRecord
from offrl.shards.writing import write_shard
from offrl.spec import TaskSpec
from offrl.system.workers import deaf_to_interrupts, num_cores, require_sendable

__all__ = ["Recorder", "collect"]


def collect(
    make_env: envs.EnvFactory,
    behaviour: Behaviour,
    directory: Path,
    *,
    transitions: int,
    seed: int = 0,
    workers: int | None = None,
    episodes_per_shard: int = 4,
    environment: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Manifest:
    """Collects whole episodes, at least `transitions` steps of them, into a frames dataset.

    The shards depend on the settings and the seed, not on the number of workers. An interrupted collection leaves
    whole shards and a manifest that says so; called again with the same settings it goes on from there, and where
    the dataset is complete it is returned as it is.

    With several workers `make_env` and `behaviour` must be picklable, and a script must call this under
    `if __name__ == "__main__":` (the workers are spawned).

    Args:
        make_env: makes one environment, such as `functools.partial(envs.make, "CarRacing-v3")`.
        behaviour: chooses the actions; copied for every shard.
        directory: where the shards and `manifest.json` go.
        transitions: how many steps at least.
        seed: of the whole dataset; episode i depends on (seed, i) alone.
        workers: processes; None takes one for each core, 1 works in this process.
        episodes_per_shard: episodes in one file.
        environment: what the manifest says about the environment, JSON-ready; default: its id.
        progress: show a progress bar, where stderr is a terminal.

    Raises:
        ConfigError: a setting outside what is allowed.
        DatasetError: `directory` holds another dataset, or an episode failed.
    """
    if min(transitions, episodes_per_shard, 1 if workers is None else workers) < 1 or seed < 0:
        raise ConfigError(
            f"transitions={transitions}, episodes_per_shard={episodes_per_shard}, workers={workers}, seed={seed}",
            where="collect",
            expected="transitions, episodes_per_shard and workers of 1 or more, seed of 0 or more",
        )
    generator = {
        "name": "offrl.collect",
        "behaviour": _describe(behaviour),
        "seed": seed,
        "transitions": transitions,
        "episodes_per_shard": episodes_per_shard,
    }
    with closing(make_env()) as env:
        plan = plan_dataset(env, environment, generator)
    recording = Recording.resume(directory, plan)
    if recording.manifest.complete:
        return recording.manifest
    job = _Job(make_env, behaviour, directory, plan.spec, seed, episodes_per_shard)
    records = _shards(job, len(recording.manifest.shards), num_cores() if workers is None else workers)
    with progress_bar(transitions, recording.manifest.num_transitions, progress) as bar, closing(records):
        recording.begin()
        while recording.manifest.num_transitions < transitions:
            record = next(records)
            recording.add(record)
            bar.update(min(record.num_transitions, transitions - bar.n))
    recording.remove_strays()
    return recording.complete()


@dataclass(frozen=True)
class _Job:
    make_env: envs.EnvFactory
    behaviour: Behaviour
    directory: Path
    spec: TaskSpec
    seed: int
    episodes_per_shard: int


class _Stopped(Exception):  # noqa: N818  (no error: the shard is not needed any more)
    """The shard under way is not wanted any more."""


def _shards(job: _Job, first: int, workers: int) -> Generator[ShardRecord, None, None]:
    """Shards `first`, `first` + 1, ... without end; closing the iterator stops the work."""
    if workers == 1:
        index = first
        while True:
            yield _make_shard(job, index)
            index += 1
    require_sendable(job, "collect", "make_env or behaviour")
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(stop,))
    pending: deque[Future[ShardRecord]] = deque()
    try:
        index = first
        while True:
            while len(pending) <= workers:
                with deaf_to_interrupts():  # this is where the pool starts its processes
                    pending.append(pool.submit(_make_shard, job, index))
                index += 1
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise DatasetError(
            "a worker process died", where="collect", hint="is memory short? try fewer workers, or workers=1 to see why"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


_worker_stop: Event | None = None


def _begin_worker(stop: Event) -> None:
    global _worker_stop
    _worker_stop = stop
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent.sentinel,), daemon=True).start()


def _leave_with(parent: int) -> None:
    multiprocessing.connection.wait([parent])
    os._exit(1)


def _make_shard(job: _Job, index: int) -> ShardRecord:
    behaviour = copy.deepcopy(job.behaviour)
    first = index * job.episodes_per_shard
    episodes = []
    # A new environment for every shard: what one episode leaves behind cannot depend on who played it.
    with closing(job.make_env()) as env:
        for number in range(first, first + job.episodes_per_shard):
            if _worker_stop is not None and _worker_stop.is_set():
                raise _Stopped
            episodes.append(play_episode(env, behaviour, job.spec, job.seed, number))
    return write_shard(shard_path(job.directory, index), episodes)


def _describe(behaviour: Behaviour) -> str:
    """The behaviour's own representation (dataclasses have one), else its class: equal in every process."""
    if type(behaviour).__repr__ is not object.__repr__:
        return repr(behaviour)
    return type(behaviour).__qualname__
