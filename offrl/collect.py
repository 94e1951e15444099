"""Behaviours to shards: collects a dataset with worker processes; the same seed gives the same bytes."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from offrl import envs
from offrl.envs.drivers import Behaviour
from offrl.errors import ConfigError, DatasetError, OfflineRLError
from offrl.replay.shards import MANIFEST_NAME, Episode, Manifest, ShardRecord, file_sha256, write_shard
from offrl.spec import TaskSpec
from offrl.workers import deaf_to_interrupts, num_cores, require_sendable

DATA_SEED_BASE = 1_000_000_000
"""Data is collected on environment seeds from here on, evaluation uses seeds below: no track is in both."""


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
    with closing(make_env()) as env:
        spec = envs.task_spec(env)
        about = dict(environment or {"id": env.spec.id if env.spec else type(env.unwrapped).__name__})
        if env.has_wrapper_attr("action_table"):
            about["action_table"] = np.asarray(env.get_wrapper_attr("action_table")).tolist()
    plan = Manifest(
        spec=spec,
        shards=(),
        environment={**about, "versions": _versions()},
        generator={
            "name": "offrl.collect",
            "behaviour": _describe(behaviour),
            "seed": seed,
            "transitions": transitions,
            "episodes_per_shard": episodes_per_shard,
        },
        complete=False,
    )
    manifest = _found(directory, plan)
    if manifest.complete:
        return manifest
    job = _Job(make_env, behaviour, directory, spec, seed, episodes_per_shard)
    records = _shards(job, len(manifest.shards), num_cores() if workers is None else workers)
    bar = tqdm(
        total=transitions,
        initial=manifest.num_transitions,
        desc="collect",
        unit=" steps",
        disable=None if progress else True,
    )
    with bar, closing(records):
        manifest.save(directory)
        while manifest.num_transitions < transitions:
            record = next(records)
            manifest = _with_shards(manifest, (*manifest.shards, record), complete=False)
            manifest.save(directory)
            bar.update(min(record.num_transitions, transitions - bar.n))
    _remove_strays(directory, manifest)
    manifest = _with_shards(manifest, manifest.shards, complete=True)
    manifest.save(directory)
    return manifest


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
            "a worker process died", where="collect", mend="is memory short? try fewer workers, or workers=1 to see why"
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
            try:
                episodes.append(play_episode(env, behaviour, job.spec, job.seed, number))
            except OfflineRLError:
                raise
            except Exception as error:
                raise DatasetError(f"{type(error).__name__}: {error}", where=f"collecting episode {number}") from error
    return write_shard(job.directory / f"shard-{index:05d}.npz", episodes)


def play_episode(env: envs.Env, behaviour: Behaviour, spec: TaskSpec, seed: int, number: int) -> Episode:
    """Plays episode `number` of the dataset `seed`; the two alone decide the environment's seed and the behaviour's.

    Raises:
        DatasetError: pixel observations that are not stacks of frames, oldest first.
    """
    env_sequence, behaviour_sequence = np.random.SeedSequence([seed, number]).spawn(2)
    env_seed = DATA_SEED_BASE + int(env_sequence.generate_state(1)[0]) % DATA_SEED_BASE
    observation, _ = env.reset(seed=env_seed)
    behaviour.begin(env, np.random.default_rng(behaviour_sequence))
    rows = _first_rows(observation, spec)
    leading = len(rows) - 1
    actions, probabilities, rewards = [], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        action, probability = behaviour(observation)
        following, reward, terminated, truncated, _ = env.step(action)
        rows.append(_newest_row(observation, following, spec))
        observation = following
        actions.append(action)
        probabilities.append(probability)
        rewards.append(float(reward))
    return Episode(
        observations=np.stack(rows),
        actions=np.array(actions, dtype=np.int64),
        rewards=np.array(rewards, dtype=np.float32),
        terminated=bool(terminated),
        truncated=bool(truncated),
        behaviour_probability=np.array(probabilities, dtype=np.float32),
        leading=leading,
    )


def _first_rows(observation: NDArray[Any], spec: TaskSpec) -> list[NDArray[Any]]:
    if not spec.is_pixels:
        return [np.asarray(observation, dtype=np.float32)]
    if (observation == observation[0]).all():
        return [observation[-1]]
    return list(observation)  # the stack began before the episode: its older frames are kept


def _newest_row(observation: NDArray[Any], following: NDArray[Any], spec: TaskSpec) -> NDArray[Any]:
    if not spec.is_pixels:
        return np.asarray(following, dtype=np.float32)
    if not np.array_equal(following[:-1], observation[1:]):
        raise DatasetError(
            "two observations in a row do not share their frames",
            where="collect",
            expected="stacks of frames, oldest first, one new frame a step",
        )
    newest: NDArray[Any] = following[-1]
    return newest


def _found(directory: Path, plan: Manifest) -> Manifest:
    """The dataset in `directory` as far as it goes and fits `plan`; `plan` itself where there is none."""
    if not (directory / MANIFEST_NAME).exists():
        if directory.exists() and any(directory.glob("*.npz")):
            raise DatasetError(
                "holds .npz files without a manifest", where=directory, mend="collect into another directory"
            )
        return plan
    found = Manifest.load(directory)
    for field, theirs, ours in (
        ("spec", found.spec.to_dict(), plan.spec.to_dict()),
        ("environment", _settings(found.environment, found), _settings(plan.environment, found)),
        ("generator", _settings(found.generator, found), _settings(plan.generator, found)),
    ):
        for key in sorted({*theirs, *ours}):
            if theirs.get(key) != ours.get(key):
                raise DatasetError(
                    f"holds a dataset whose {field}.{key} is {theirs.get(key)!r}",
                    where=directory,
                    expected=f"{ours.get(key)!r}",
                    mend="collect into another directory, or with the settings of the dataset",
                )
    return found if found.complete else _with_shards(found, tuple(_intact(directory, found)), complete=False)


def _settings(settings: Mapping[str, Any], found: Manifest) -> dict[str, Any]:
    """What must be the same, as JSON reads it back; a complete dataset may come from other versions."""
    ignored = {"versions"} if found.complete else set()
    same: dict[str, Any] = json.loads(json.dumps({key: settings[key] for key in settings if key not in ignored}))
    return same


def _intact(directory: Path, manifest: Manifest) -> Iterator[ShardRecord]:
    """The shards of an interrupted collection, up to the first that is missing or damaged."""
    for record in manifest.shards:
        path = directory / record.name
        if not path.exists() or file_sha256(path) != record.sha256:
            return
        yield record


def _with_shards(manifest: Manifest, shards: tuple[ShardRecord, ...], *, complete: bool) -> Manifest:
    return Manifest(manifest.spec, shards, manifest.environment, manifest.generator, complete)


def _remove_strays(directory: Path, manifest: Manifest) -> None:
    """Removes shards that were made ahead and are not needed."""
    names = {record.name for record in manifest.shards}
    for path in directory.glob("shard-*.npz"):
        if path.name not in names:
            path.unlink()


def _describe(behaviour: Behaviour) -> str:
    """The behaviour's own representation (dataclasses have one), else its class: equal in every process."""
    if type(behaviour).__repr__ is not object.__repr__:
        return repr(behaviour)
    return type(behaviour).__qualname__


def _versions() -> dict[str, str]:
    versions = {}
    for package in ("offrl", "gymnasium", "numpy", "box2d", "pygame-ce", "pygame"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
