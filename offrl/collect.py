"""Behaviours to shards, with worker processes, the same bytes from the same seed; and all that a learner plays."""

from __future__ import annotations

import copy
import json
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from offrl import envs
from offrl.envs.drivers import Behaviour, EpsilonGreedy
from offrl.errors import ConfigError, DatasetError, OfflineRLError
from offrl.replay.shards import MANIFEST_NAME, Episode, Manifest, ShardRecord, file_sha256, write_shard
from offrl.seeds import DATA_SEEDS
from offrl.spec import TaskSpec
from offrl.versions import installed_versions
from offrl.workers import deaf_to_interrupts, num_cores, require_sendable

if TYPE_CHECKING:  # collection workers start without torch
    from offrl.algorithms.algorithm import Algorithm
    from offrl.learner import LearnerConfig
    from offrl.policy import Policy
    from offrl.replay.replay import Replay
    from offrl.replay.store import FrameStore

DATA_SEED_BASE = DATA_SEEDS.start
"""Data is collected on environment seeds from here on, evaluation uses seeds below: no track is in both."""
_PACKAGES = ("offrl", "gymnasium", "numpy", "box2d", "pygame-ce", "pygame")  # what the bytes of a dataset depend on


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
        plan = _plan(env, environment, generator)
    manifest = _found(directory, plan)
    if manifest.complete:
        return manifest
    job = _Job(make_env, behaviour, directory, plan.spec, seed, episodes_per_shard)
    records = _shards(job, len(manifest.shards), num_cores() if workers is None else workers)
    with _progress_bar(transitions, manifest.num_transitions, progress) as bar, closing(records):
        manifest.save(directory)
        while manifest.num_transitions < transitions:
            record = next(records)
            manifest = _saved_with(manifest, record, directory)
            bar.update(min(record.num_transitions, transitions - bar.n))
    _remove_strays(directory, manifest)
    return _completed(manifest, directory)


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
            episodes.append(_played(env, behaviour, job.spec, job.seed, number))
    return write_shard(_shard_path(job.directory, index), episodes)


def _shard_path(directory: Path, index: int) -> Path:
    return directory / f"shard-{index:05d}.npz"


def _played(env: envs.Env, behaviour: Behaviour, spec: TaskSpec, seed: int, number: int) -> Episode:
    """`play_episode`, with errors that name the episode."""
    try:
        return play_episode(env, behaviour, spec, seed, number)
    except OfflineRLError:
        raise
    except Exception as error:
        raise DatasetError(f"{type(error).__name__}: {error}", where=f"collecting episode {number}") from error


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


@dataclass(frozen=True)
class OnlineConfig:
    """How `collect_online` explores, and what it learns from.

    Attributes:
        first_epsilon: how likely each action is a random one, in the first episode; in [0, 1].
        last_epsilon: the same once exploration is over; in [0, 1].
        exploration: share of the transitions over which epsilon falls linearly from the first to the last, in (0, 1].
        first_update: transitions before the first update.
        steps_per_update: transitions for each update from then on.
        batch_size: transitions in an update.
        n_step: see `offrl.replay.replay.Replay`, as for the next two.
        discount: per step.
        reward_scale: of the rewards learned from; the shards have them as they were.

    Raises:
        ConfigError: a setting outside what is allowed.
    """

    first_epsilon: float = 1.0
    last_epsilon: float = 0.05
    exploration: float = 0.5
    first_update: int = 1000
    steps_per_update: int = 4
    batch_size: int = 128
    n_step: int = 1
    discount: float = 0.99
    reward_scale: float = 1.0

    def __post_init__(self) -> None:
        def require(valid: bool, name: str, expected: str) -> None:
            if not valid:
                raise ConfigError(f"{getattr(self, name)!r}", where=f"OnlineConfig.{name}", expected=expected)

        require(0 <= self.first_epsilon <= 1, "first_epsilon", "a number in [0, 1]")
        require(0 <= self.last_epsilon <= 1, "last_epsilon", "a number in [0, 1]")
        require(0 < self.exploration <= 1, "exploration", "0 < exploration <= 1")
        require(self.first_update >= 1, "first_update", "1 or more")
        require(self.steps_per_update >= 1, "steps_per_update", "1 or more")
        require(self.batch_size >= 1, "batch_size", "1 or more")

    def epsilon(self, progress: float) -> float:
        """How likely each action is a random one, after that share of the transitions."""
        explored = min(progress / self.exploration, 1.0)
        return (1 - explored) * self.first_epsilon + explored * self.last_epsilon

    def num_updates(self, num_transitions: int) -> int:
        """Updates that are due after so many transitions."""
        return max(0, num_transitions - self.first_update) // self.steps_per_update

    def replay(self, store: FrameStore, seed: int) -> Replay:
        """What to learn from, as a ReplaySource.

        Raises:
            ConfigError: a setting of the replay outside what is allowed.
        """
        from offrl.replay.replay import Replay

        return Replay(store, n_step=self.n_step, discount=self.discount, reward_scale=self.reward_scale, seed=seed)


def collect_online(
    make_env: envs.EnvFactory,
    algorithm: Algorithm,
    directory: Path,
    *,
    transitions: int,
    seed: int = 0,
    config: OnlineConfig | None = None,
    learner: LearnerConfig | None = None,
    device: str = "cpu",
    episodes_per_shard: int = 4,
    environment: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Manifest:
    """Lets `algorithm` play, learn from all that it has seen so far, and play on: every episode goes into the dataset.

    It acts epsilon-greedily with its newest weights; epsilon and weights change between episodes, so that the
    probability of each action is exact. All frames stay in memory. An interrupted collection leaves whole shards and a
    manifest that says so, but the learner is gone: it cannot go on. The same seed gives the same data on the same
    machine as far as torch's arithmetic does, so not where `precision` is "auto".

    Args:
        make_env: makes the environment.
        algorithm: any; trained in place.
        directory: where the shards and `manifest.json` go.
        transitions: how many steps at least.
        seed: of the episodes, the random actions and the batches; the algorithm's weights have their own.
        config: exploration and replay.
        learner: how an update is made; a schedule ends with the last update.
        device: where the networks live.
        episodes_per_shard: episodes in one file.
        environment: what the manifest says about the environment, JSON-ready; default: its id.
        progress: show a progress bar, where stderr is a terminal.

    Raises:
        ConfigError: a setting outside what is allowed.
        DatasetError: `directory` holds another or an interrupted dataset, or an episode failed.
        SpecMismatchError: the algorithm was made for another task.
        RunError: the loss became infinite.
    """
    from offrl.learner import Learner, LearnerConfig
    from offrl.policy import TorchPolicy

    if min(transitions, episodes_per_shard) < 1 or seed < 0:
        raise ConfigError(
            f"transitions={transitions}, episodes_per_shard={episodes_per_shard}, seed={seed}",
            where="collect_online",
            expected="transitions and episodes_per_shard of 1 or more, seed of 0 or more",
        )
    config = OnlineConfig() if config is None else config
    learner = LearnerConfig() if learner is None else learner
    generator = {
        "name": "offrl.collect_online",
        "algorithm": algorithm.name,
        "algorithm_config": {} if algorithm.config is None else asdict(algorithm.config),
        "learner": asdict(learner),
        "online": asdict(config),
        "seed": seed,
        "transitions": transitions,
        "episodes_per_shard": episodes_per_shard,
    }
    with closing(make_env()) as env:
        plan = _plan(env, environment, generator, (*_PACKAGES, "torch"))
        algorithm.spec.require_same(plan.spec, where="environment", mend="make the algorithm with its task_spec")
        manifest = _found(directory, plan)
        if manifest.complete:
            return manifest
        if manifest is not plan:
            raise DatasetError(
                "holds an online collection that was interrupted, which cannot go on",
                where=directory,
                mend="remove it, or collect into another directory",
            )
        trainer = Learner(algorithm, learner, total_updates=max(1, config.num_updates(transitions)), device=device)
        seen = _Seen(directory, plan.spec)
        new: list[Episode] = []
        with _progress_bar(transitions, 0, progress) as bar:
            while seen.num_transitions < transitions:
                epsilon = config.epsilon(seen.num_transitions / transitions)
                behaviour = EpsilonGreedy(_Greedy(TorchPolicy(algorithm)), epsilon)
                episode = _played(env, behaviour, plan.spec, seed, seen.num_episodes)
                seen.append(episode)
                new.append(episode)
                is_last = seen.num_transitions >= transitions
                if is_last or len(new) == episodes_per_shard:
                    record = write_shard(_shard_path(directory, len(manifest.shards)), new)
                    manifest = _saved_with(manifest, record, directory)
                    new.clear()
                bar.set_postfix(score=float(episode.rewards.sum()), epsilon=epsilon, refresh=False)
                bar.update(min(len(episode), transitions - bar.n))
                replay = config.replay(seen.store(), seed)
                while not is_last and trainer.step < config.num_updates(seen.num_transitions):
                    trainer.update(replay.gather(replay.indices(trainer.step, config.batch_size)))
                trainer.require_finite()
    return _completed(manifest, directory)


@dataclass
class _Greedy:
    """A policy as a behaviour."""

    policy: Policy

    def begin(self, env: envs.Env, rng: np.random.Generator) -> None:
        """Nothing to draw."""

    def __call__(self, observation: NDArray[Any]) -> tuple[int, float]:
        return int(self.policy(observation[None])[0]), 1.0


class _Seen:
    """Whole episodes in memory, read through a FrameStore as those on disk are."""

    def __init__(self, directory: Path, spec: TaskSpec) -> None:
        self.num_transitions = self.num_episodes = self._num_frames = 0
        self._directory = directory
        self._spec = spec
        self._arrays: dict[str, NDArray[Any]] = {}

    def append(self, episode: Episode) -> None:
        num_steps, first_row = len(episode), self.num_transitions
        is_end = np.arange(num_steps) == num_steps - 1
        first = np.full(num_steps, self._num_frames)
        last = first + episode.leading + np.arange(num_steps)
        rows = {
            "actions": episode.actions,
            "rewards": episode.rewards,
            "terminated": is_end & episode.terminated,
            "truncated": is_end & (not episode.terminated),
            "last": last,
            "first": first,
            "next_last": last + 1,
            "next_first": first,
            "segment_end": np.full(num_steps, first_row + num_steps - 1),
        }
        for name, values in rows.items():
            self._append(name, first_row, values)
        self._append("frames", self._num_frames, episode.observations)
        self.num_transitions += num_steps
        self.num_episodes += 1
        self._num_frames += len(episode.observations)

    def _append(self, name: str, start: int, values: NDArray[Any]) -> None:
        """Puts `values` at `start`, into an array twice as long where there is no room."""
        end = start + len(values)
        array = self._arrays.get(name)
        if array is None or len(array) < end:
            longer = np.empty((2 * end, *values.shape[1:]), values.dtype)
            if array is not None:
                longer[:start] = array[:start]
            self._arrays[name] = array = longer
        array[start:end] = values

    def store(self) -> FrameStore:
        """What was appended until now: views, which later episodes leave as they are."""
        from offrl.replay.store import FrameStore, IngestReport

        counts = (self.num_transitions, self.num_episodes, self._num_frames)
        filled = {
            name: array[: self._num_frames if name == "frames" else self.num_transitions]
            for name, array in self._arrays.items()
        }
        return FrameStore(self._directory, self._spec, IngestReport("frames", 0, *counts), "", "ram", filled)


def _plan(
    env: envs.Env,
    environment: Mapping[str, Any] | None,
    generator: Mapping[str, Any],
    packages: tuple[str, ...] = _PACKAGES,
) -> Manifest:
    """The manifest of a dataset that is still to be collected."""
    about = dict(environment or {"id": env.spec.id if env.spec else type(env.unwrapped).__name__})
    if env.has_wrapper_attr("action_table"):
        about["action_table"] = np.asarray(env.get_wrapper_attr("action_table")).tolist()
    about["versions"] = installed_versions(packages)
    return Manifest(envs.task_spec(env), (), about, generator, complete=False)


def _progress_bar(transitions: int, done: int, progress: bool) -> tqdm[Any]:
    return tqdm(total=transitions, initial=done, desc="collect", unit=" steps", disable=None if progress else True)


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


def _saved_with(manifest: Manifest, record: ShardRecord, directory: Path) -> Manifest:
    """The manifest with one more shard, on disk before it is returned."""
    longer = _with_shards(manifest, (*manifest.shards, record), complete=False)
    longer.save(directory)
    return longer


def _completed(manifest: Manifest, directory: Path) -> Manifest:
    """The manifest of a dataset that has all it should, on disk before it is returned."""
    complete = _with_shards(manifest, manifest.shards, complete=True)
    complete.save(directory)
    return complete


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
