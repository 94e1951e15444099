"""Behaviours to shards, with worker processes, the same bytes from the same seed; and what you play yourself."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from offrl import envs
from offrl.collection._play import plan_dataset, play_episode, progress_bar
from offrl.collection.recorder import Recorder
from offrl.envs.behaviours import Behaviour
from offrl.errors import ConfigError, OfflineRLError
from offrl.shards._recording import Recording
from offrl.shards.episode import shard_path, write_shard
from offrl.shards.manifest import Manifest, ShardRecord
from offrl.spec import TaskSpec
from offrl.system.workers import WorkerPool, is_abandoned, num_cores, require_sendable

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


def _shards(job: _Job, first: int, workers: int) -> Generator[ShardRecord, None, None]:
    """Shards `first`, `first` + 1, ... without end, in order; closing the generator stops the work."""
    if workers == 1:
        maker = _ShardMaker(job)
        for index in itertools.count(first):
            yield maker.make(index)
    require_sendable(job, "collect", "make_env or behaviour")
    with closing(WorkerPool([partial(_ShardMaker, job)] * workers, where="collect")) as pool:
        made: dict[int, ShardRecord | OfflineRLError] = {}  # errors too are raised in order
        making: dict[int, int] = {}  # worker -> the shard that it makes
        upcoming = first
        for wanted in itertools.count(first):
            while wanted not in made:
                # At most so many shards are made ahead: those that turn out not to be needed were in vain.
                for worker in sorted({*range(workers)} - making.keys()):
                    if upcoming <= wanted + workers:
                        pool.ask(worker, "make", upcoming)
                        making[worker] = upcoming
                        upcoming += 1
                for worker in pool.ready(making):
                    try:
                        answer: ShardRecord | OfflineRLError = pool.answer(worker)
                    except OfflineRLError as error:
                        answer = error
                    made[making.pop(worker)] = answer
            found = made.pop(wanted)
            if isinstance(found, OfflineRLError):
                raise found
            yield found


class _ShardMaker:
    """Plays the episodes of a shard and writes it, here or in a worker process."""

    def __init__(self, job: _Job) -> None:
        self._job = job

    def make(self, index: int) -> ShardRecord:
        """Makes shard `index`.

        Raises:
            OfflineRLError: An episode failed, or nobody waits for the shard any more.
        """
        job = self._job
        behaviour = copy.deepcopy(job.behaviour)
        first = index * job.episodes_per_shard
        episodes = []
        # A new environment for every shard: what one episode leaves behind cannot depend on who played it.
        with closing(job.make_env()) as env:
            for number in range(first, first + job.episodes_per_shard):
                if is_abandoned():
                    raise OfflineRLError("the shard is not needed any more", where="collect")
                episodes.append(play_episode(env, behaviour, job.spec, job.seed, number))
        return write_shard(shard_path(job.directory, index), episodes)

    def close(self) -> None:
        """Nothing is open between shards."""


def _describe(behaviour: Behaviour) -> str:
    """The behaviour's own representation (dataclasses have one), else its class: equal in every process."""
    if type(behaviour).__repr__ is not object.__repr__:
        return repr(behaviour)
    return type(behaviour).__qualname__
