"""Behaviours to shards, with worker processes, the same bytes from the same seed; and what you play yourself."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from offrl import envs
from offrl.collection._arguments import require_collectable
from offrl.collection._describing import describe
from offrl.collection._in_ranks import InRanks, ShardSource, require_same_plan
from offrl.collection._play import plan_dataset, play_episode, progress_bar
from offrl.collection.recorder import Recorder
from offrl.envs.behaviours import Behaviour
from offrl.errors import OfflineRLError
from offrl.shards._recording import LOCK_NAME, Recording, writing
from offrl.shards.episode import Episode, shard_path, write_next_shard
from offrl.shards.manifest import Manifest, ShardRecord
from offrl.spec import TaskSpec
from offrl.system.locks import locked
from offrl.system.ranks import ALONE, Ranks
from offrl.system.workers import WorkerPool, num_cores, require_sendable, stop_requested

__all__ = ["Recorder", "collect"]


def collect(
    make_env: envs.EnvFactory,
    behaviour: Behaviour,
    directory: str | Path,
    *,
    transitions: int,
    seed: int = 0,
    workers: int | None = None,
    episodes_per_shard: int = 4,
    environment: Mapping[str, Any] | None = None,
    progress: bool = True,
    protocol: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
) -> Manifest:
    """Collects whole episodes, at least `transitions` steps of them, into a frames dataset.

    The shards depend on the settings and the seed, not on the number of workers and ranks. Where the dataset is
    complete, it is returned as it is. Ctrl-C leaves the finished episodes and a manifest that is not complete; the
    shards of other ranks that the first one has not heard of are played again. Workers first finish the episodes that
    they are playing, if these end within 4 s; a second ctrl-C ends the workers at once. Called again with the same
    settings, a collection goes on from there to the same bytes as if it had never stopped; a shard that was cut short
    is played again.

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
        environment: what the manifest says about the environment, JSON-ready; default: its id and settings.
        progress: show a progress bar, where stderr is a terminal.
        protocol: of the manifest, see `offrl.collection.protocol`.
        ranks: the processes that collect together, all of which call this; default: this one alone. Each makes its
            share of the shards with `workers` processes, in a directory that all of them see; the first one writes the
            manifest.

    Raises:
        ConfigError: a setting outside what is allowed, or ranks with different settings or versions of packages.
        DatasetError: `directory` holds another dataset or cannot be written, or an episode failed.
        InUseError: another process is collecting into `directory`.
        KeyboardInterrupt: Ctrl-C was pressed; the finished episodes are kept.
    """
    directory = Path(directory)
    counts = {"transitions": transitions, "episodes_per_shard": episodes_per_shard, "workers": workers}
    require_collectable("collect", make_env, seed=seed, **counts)
    transitions, episodes_per_shard, seed = int(transitions), int(episodes_per_shard), int(seed)  # JSON takes no others
    generator = {
        "name": "offrl.collect",
        "behaviour": describe(behaviour),
        "seed": seed,
        "transitions": transitions,
        "episodes_per_shard": episodes_per_shard,
    }
    with closing(make_env()) as env:
        plan = replace(plan_dataset(env, environment, generator), protocol=protocol)
    require_same_plan(plan, ranks)
    workers = num_cores() if workers is None else workers
    job = _Job(make_env, behaviour, directory, plan.spec, seed, episodes_per_shard)
    if not ranks.is_first:
        return _help(job, transitions, workers, ranks)
    if (complete := Recording.completed(directory, plan)) is not None:
        ranks.first()
        return complete
    with ExitStack() as stack:
        with writing(directory):
            stack.enter_context(locked(directory / LOCK_NAME))
        recording = Recording.resume(directory, plan, episodes_per_shard)
        return _collect(job, recording, transitions, workers, progress, ranks)


def _collect(job: _Job, recording: Recording, transitions: int, workers: int, progress: bool, ranks: Ranks) -> Manifest:
    """The work of `collect` on the first rank; the caller holds the lock."""
    if recording.is_complete:  # by another process meanwhile
        recording.remove_strays()
        ranks.first()
        return recording.manifest
    shards = _source(job, len(recording), workers, ranks)
    bar = progress_bar(transitions, recording.num_transitions, progress)
    with bar, closing(shards), recording.kept():
        recording.begin()
        recording.remove_strays()
        ranks.first([len(recording), recording.num_transitions])
        try:
            while recording.num_transitions < transitions:
                record = shards.make(len(recording))
                recording.add(record)
                bar.update(min(record.num_transitions, transitions - bar.n))
        except KeyboardInterrupt:
            bar.set_description("stopping, keeping what is finished")
            made = shards.stop()
            # Shards made ahead that are not needed would stay: going on plays only shards that were cut short again.
            while recording.num_transitions < transitions and len(recording) in made:
                recording.add(made[len(recording)])
            raise
    ranks.first()  # the others make no shards any more
    recording.remove_strays()
    manifest = recording.complete()
    ranks.first()
    return manifest


def _help(job: _Job, transitions: int, workers: int, ranks: Ranks) -> Manifest:
    """The work of `collect` on the other ranks, which do as the first does, and write shards only."""
    begun = ranks.first()
    if begun is not None:
        num_shards, num_transitions = begun
        with closing(_source(job, num_shards, workers, ranks)) as shards:
            while num_transitions < transitions:
                num_transitions += shards.make(num_shards).num_transitions
                num_shards += 1
        ranks.first(), ranks.first()
    return Manifest.load(job.directory)


def _source(job: _Job, first: int, workers: int, ranks: Ranks) -> ShardSource:
    """Makes the shards from `first` on."""
    here = _InProcess(job) if workers == 1 else _InWorkers(job, first + ranks.rank, workers, ranks.count)
    return here if ranks.count == 1 else InRanks(here, job.directory, ranks)


@dataclass(frozen=True)
class _Job:
    make_env: envs.EnvFactory
    behaviour: Behaviour
    directory: Path
    spec: TaskSpec
    seed: int
    episodes_per_shard: int


class _InProcess:
    """Makes shards in this process."""

    def __init__(self, job: _Job) -> None:
        self._maker = _ShardMaker(job)

    def make(self, index: int) -> ShardRecord:
        """Makes shard `index`."""
        return self._maker.make(index)

    def stop(self) -> dict[int, ShardRecord]:
        """The newest shard by its index, with the episodes that it has; empty where it has none."""
        return self._maker.write_unfinished()

    def close(self) -> None:
        """Nothing is open between shards."""


class _InWorkers:
    """Makes shards in worker processes, some of them ahead.

    Args:
        job: picklable.
        first: the first shard that is not there yet.
        workers: how many.
        step: from one shard to the next one that is made here.
    """

    def __init__(self, job: _Job, first: int, workers: int, step: int = 1) -> None:
        require_sendable(job, "collect", "make_env or behaviour")
        self._pool = WorkerPool([partial(_ShardMaker, job)] * workers, where="collect")
        self._workers = range(workers)
        self._upcoming, self._step = first, step
        self._made: dict[int, ShardRecord | OfflineRLError] = {}  # errors too are raised in order
        self._making: dict[int, int] = {}  # worker -> the shard that it makes

    def make(self, index: int) -> ShardRecord:
        """Waits for shard `index`; called for one after the other."""
        while index not in self._made:
            # At most so many shards are made ahead: those that turn out not to be needed were in vain.
            for worker in sorted({*self._workers} - self._making.keys()):
                if self._upcoming <= index + len(self._workers) * self._step:
                    self._pool.ask(worker, "make", self._upcoming)
                    self._making[worker] = self._upcoming
                    self._upcoming += self._step
            for worker in self._pool.ready(self._making):
                try:
                    answer: ShardRecord | OfflineRLError = self._pool.answer(worker)
                except OfflineRLError as error:
                    answer = error
                self._made[self._making.pop(worker)] = answer
        found = self._made[index]
        if isinstance(found, OfflineRLError):
            raise found
        return found

    def stop(self) -> dict[int, ShardRecord]:
        """The shards by their index that were made, and those under way, with the episodes that they have."""
        for worker, answer in self._pool.stop(self._making).items():
            self._made[self._making.pop(worker)] = answer
        return {index: record for index, record in self._made.items() if isinstance(record, ShardRecord)}

    def close(self) -> None:
        """Ends the workers."""
        self._pool.close()


_SECONDS_TO_FINISH = 4.0
"""An episode may go on so long after the stop; it leaves 4 of the 8 s that `WorkerPool.stop` waits for the file."""
_SECONDS_BETWEEN_CHECKS = 0.5
"""Between steps: to look for a stop takes 9 us, and a step of CartPole 70."""


class _TooLongError(OfflineRLError):
    """The episode did not end soon enough after the stop."""


class _ShardMaker:
    """Plays the episodes of a shard and writes it, here or in a worker process."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._index = 0
        self._episodes: list[Episode] = []
        self._next_check = 0.0

    def make(self, index: int) -> ShardRecord:
        """Makes shard `index`.

        A worker that is told to stop ends it with the episode under way, or without that one if it goes on for too
        long.

        Raises:
            OfflineRLError: An episode failed, or the worker was told to stop before the first one ended.
        """
        job = self._job
        behaviour = copy.deepcopy(job.behaviour)
        self._index, self._episodes = index, []
        first = index * job.episodes_per_shard
        # A new environment for every shard: what one episode leaves behind cannot depend on who played it.
        with closing(job.make_env()) as env:
            for number in range(first, first + job.episodes_per_shard):
                if stop_requested():
                    break
                try:
                    episode = play_episode(env, behaviour, job.spec, job.seed, number, self._require_time)
                except _TooLongError:
                    break
                self._episodes.append(episode)
        return self._write()

    def _require_time(self) -> None:
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + _SECONDS_BETWEEN_CHECKS
            if stop_requested(_SECONDS_TO_FINISH):
                raise _TooLongError("the episode goes on", where="collect")

    def write_unfinished(self) -> dict[int, ShardRecord]:
        """Writes what `make` had when ctrl-C ended it, if anything, by its index."""
        return {self._index: self._write()} if self._episodes else {}

    def _write(self) -> ShardRecord:
        with writing(self._job.directory):
            return write_next_shard(shard_path(self._job.directory, self._index), self._episodes)

    def close(self) -> None:
        """Nothing is open between shards."""
