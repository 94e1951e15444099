"""Episodes played by a policy: several environments at once, one batch of inference for all, seeded."""

from __future__ import annotations

import copy
import multiprocessing
import multiprocessing.connection
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from offrl.envs import EnvFactory
from offrl.envs.drivers import Behaviour
from offrl.errors import ConfigError, OfflineRLError
from offrl.seeds import SCORE_SEEDS, TUNING_SEEDS, episode_rng, require_evaluation_seeds
from offrl.statistics import Interval, bootstrap_mean
from offrl.versions import installed_versions
from offrl.workers import deaf_to_interrupts, num_cores, require_sendable

if TYPE_CHECKING:  # worker processes play without paying for torch
    from offrl.policy import Policy, ThresholdPolicy

__all__ = [
    "SCORE_SEEDS",
    "TUNING_SEEDS",
    "EpisodeEnd",
    "Evaluation",
    "Sweep",
    "evaluate",
    "evaluate_behaviour",
    "sweep_thresholds",
]


@dataclass(frozen=True)
class Evaluation:
    """Scores of whole episodes, one for each seed, in the order of the seeds.

    Attributes:
        seeds: given to `reset`.
        scores: undiscounted returns.
        lengths: steps.
        finished: whether `info["lap_finished"]` was true at the end; empty where no episode's end says.
        versions: of the packages that it was played with; empty where that is not known.
    """

    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    lengths: tuple[int, ...]
    finished: tuple[bool, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def mean(self) -> Interval:
        """Mean score and its 95 % bootstrap interval."""
        return bootstrap_mean(self.scores)

    @property
    def standard_deviation(self) -> float:
        """Of the scores: the root of the mean squared distance to their mean."""
        return float(np.std(self.scores))

    @property
    def median(self) -> float:
        """Of the scores."""
        return float(np.median(self.scores))

    @property
    def percentile_10(self) -> float:
        """The score that a tenth of the episodes stay below."""
        return float(np.percentile(self.scores, 10))

    @property
    def mean_length(self) -> float:
        """Steps."""
        return float(np.mean(self.lengths))

    @property
    def finished_share(self) -> float | None:
        """Share of the episodes with a finished lap, in 0..1; None where there are no laps."""
        return sum(self.finished) / len(self.finished) if self.finished else None

    @property
    def best(self) -> int:
        """The seed of the best episode."""
        return self.seeds[int(np.argmax(self.scores))]

    @property
    def worst(self) -> int:
        """The seed of the worst episode."""
        return self.seeds[int(np.argmin(self.scores))]

    def minus(self, other: Evaluation) -> Interval:
        """Mean and 95 % interval of the paired differences to another policy's scores on the same seeds.

        Raises:
            ConfigError: the seeds differ.
        """
        if self.seeds != other.seeds:
            raise ConfigError("the evaluations' seeds differ", where="Evaluation.minus", expected="the same seeds")
        return bootstrap_mean(np.subtract(self.scores, other.scores))

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the summary first, then each episode."""
        summary: dict[str, Any] = {
            "episodes": len(self.seeds),
            **_interval(self.mean),
            "standard_deviation": self.standard_deviation,
            "median": self.median,
            "percentile_10": self.percentile_10,
            "mean_length": self.mean_length,
        }
        columns: dict[str, Sequence[Any]] = {"seed": self.seeds, "score": self.scores, "length": self.lengths}
        if self.finished:
            summary |= {"finished": sum(self.finished), "finished_share": self.finished_share}
            columns["finished"] = self.finished
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return {**summary, "versions": dict(self.versions), "per_episode": rows}

    def to_text(self) -> str:
        """Tables for people: each episode, then, where a terminal ends, the summary."""
        head = ["seed", "score", "steps"]
        rows = [
            [str(seed), f"{score:.1f}", str(length)]
            for seed, score, length in zip(self.seeds, self.scores, self.lengths, strict=True)
        ]
        if self.finished:
            head.append("lap")
            rows = [[*row, "finished" if lap else "-"] for row, lap in zip(rows, self.finished, strict=True)]
        summary = {
            "episodes": f"{len(self.seeds)}, seeds {min(self.seeds)} to {max(self.seeds)}",
            "mean score": "{:.1f}, 95 % interval {:.1f} to {:.1f}".format(*self.mean),
            "standard deviation": f"{self.standard_deviation:.1f}",
            "median score": f"{self.median:.1f}",
            "10th percentile": f"{self.percentile_10:.1f}",
            "mean length": f"{self.mean_length:.1f} steps",
        }
        if self.finished:
            summary["finished laps"] = f"{sum(self.finished)} of {len(self.seeds)} ({self.finished_share:.0%})"
        if self.versions:
            summary["versions"] = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        width = max(map(len, summary))
        return "\n".join([*_table(head, rows), "", *(f"{name:<{width}}  {text}" for name, text in summary.items())])


@dataclass(frozen=True)
class Sweep:
    """One policy with several thresholds, all on the same seeds.

    Attributes:
        evaluations: by threshold.
        baseline: the threshold that the others are compared with.
    """

    evaluations: Mapping[float, Evaluation]
    baseline: float

    @property
    def differences(self) -> dict[float, Interval]:
        """By threshold: mean and 95 % interval of the paired differences to the baseline's scores."""
        base = self.evaluations[self.baseline]
        return {threshold: each.minus(base) for threshold, each in self.evaluations.items()}

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: an entry for each threshold, under names that `offrl report` shows."""
        differences = self.differences
        return {
            "baseline": self.baseline,
            "policies": {
                f"threshold {threshold:g}": {
                    "threshold": threshold,
                    "minus_baseline": _interval(differences[threshold]),
                    **each.to_dict(),
                }
                for threshold, each in self.evaluations.items()
            },
        }

    def to_text(self) -> str:
        """A table for people, a row for each threshold."""
        base = self.evaluations[self.baseline]
        head = ["threshold", "mean", "95 % interval", "median", "10th percentile", "steps"]
        head += ["laps"] if base.finished else []
        rows = []
        for threshold, difference in self.differences.items():
            each = self.evaluations[threshold]
            mean, low, high = each.mean
            row = [f"{threshold:g}", f"{mean:.1f}", f"{low:.1f} to {high:.1f}", f"{each.median:.1f}"]
            row += [f"{each.percentile_10:.1f}", f"{each.mean_length:.1f}"]
            row += [str(sum(each.finished))] if base.finished else []
            is_base = threshold == self.baseline
            rows.append([*row, "-" if is_base else "{:+.1f}, {:+.1f} to {:+.1f}".format(*difference)])
        lines = _table([*head, f"paired difference to {self.baseline:g}"], rows)
        return "\n".join([*lines, "", f"{len(base.seeds)} episodes, seeds {min(base.seeds)} to {max(base.seeds)}"])


def _interval(interval: Interval) -> dict[str, Any]:
    return {"mean": interval.mean, "interval_95": [interval.low, interval.high]}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns that are as wide as they must be, aligned on the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return ["  ".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True)) for line in (head, *rows)]


def evaluate(
    policy: Policy,
    make_env: EnvFactory,
    seeds: Sequence[int],
    *,
    num_envs: int = 20,
    workers: int | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Plays one episode for each seed.

    A fixed number of environments step together, and the policy always sees a batch of that many observations
    (those of finished environments are ignored), so that the scores do not depend on the number of workers.

    Args:
        policy: raw observations [num_envs, ...] -> actions [num_envs].
        make_env: makes one environment; must be picklable if there are worker processes.
        seeds: one for each episode, given to `reset`: `SCORE_SEEDS[:100]`, `TUNING_SEEDS[:20]` or your own.
        num_envs: environments that step together.
        workers: processes that step them; 0 steps them in this process, None takes one for each core.
        progress: show a progress bar; None shows it on a terminal only.

    Raises:
        ConfigError: no seeds, seeds that `require_evaluation_seeds` refuses, numbers below 1, or a `make_env` that
            cannot be sent to worker processes.
        OfflineRLError: an environment failed in its worker.
    """
    if not len(seeds) or num_envs < 1:
        raise ConfigError(
            f"{len(seeds)} seeds, {num_envs} environments", where="evaluate", expected="1 or more of each"
        )
    require_evaluation_seeds(seeds, "evaluate")
    num_playing = min(num_envs, len(seeds))
    workers = _num_workers(workers, num_playing, "evaluate")
    ends: dict[int, EpisodeEnd] = {}
    environments = _environments(make_env, num_playing, workers)
    with closing(environments), _progress_bar(len(seeds), progress) as bar:
        playing = {slot: slot for slot in range(num_playing)}  # environment -> index of the episode that it plays
        first = environments.reset({slot: int(seeds[slot]) for slot in playing})
        # Rounding depends on the size of a batch, so with fewer episodes than `num_envs` it is filled up all the same.
        observations = np.stack([first[slot % num_playing] for slot in range(num_envs)])
        upcoming = iter(range(num_playing, len(seeds)))
        while playing:
            actions = policy(observations)
            steps = environments.step({slot: int(actions[slot]) for slot in playing})
            ended = {slot: step.end for slot, step in steps.items() if step.end is not None}
            for slot, step in steps.items():
                observations[slot] = step.observation
            for slot, end in sorted(ended.items()):
                ends[playing.pop(slot)] = end
            if ended:
                _show_progress(bar, ends)
            fresh = dict(zip(sorted(ended), upcoming, strict=False))
            playing |= fresh
            for slot, observation in environments.reset({s: int(seeds[i]) for s, i in fresh.items()}).items():
                observations[slot] = observation
    return _evaluation(seeds, ends)


def evaluate_behaviour(
    behaviour: Behaviour,
    make_env: EnvFactory,
    seeds: Sequence[int],
    *,
    workers: int | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Plays one episode for each seed with a behaviour, such as a scripted driver that sees the environment itself.

    A worker plays whole episodes, each in an environment and with a copy of the behaviour of its own, so the scores
    do not depend on the number of workers. What the behaviour draws depends on the seed of the episode alone.

    Args:
        behaviour: chooses the actions.
        make_env: makes one environment; this and the behaviour must be picklable if there are worker processes.
        seeds: as for `evaluate`.
        workers: processes that play; 0 plays in this process, None takes one for each core.
        progress: show a progress bar; None shows it on a terminal only.

    Raises:
        ConfigError: no seeds, seeds that `require_evaluation_seeds` refuses, or what cannot be sent to worker
            processes.
        OfflineRLError: an environment or behaviour failed in its worker.
    """
    if not len(seeds):
        raise ConfigError("no seeds", where="evaluate_behaviour", expected="1 or more")
    require_evaluation_seeds(seeds, "evaluate_behaviour")
    workers = _num_workers(workers, len(seeds), "evaluate_behaviour")
    ends: dict[int, EpisodeEnd] = {}
    played = _play_episodes(_Player(make_env, behaviour), [int(seed) for seed in seeds], workers)
    with closing(played), _progress_bar(len(seeds), progress) as bar:
        for index, end in played:
            ends[index] = end
            _show_progress(bar, ends)
    return _evaluation(seeds, ends)


def sweep_thresholds(
    policy: ThresholdPolicy,
    thresholds: Sequence[float],
    make_env: EnvFactory,
    seeds: Sequence[int] = TUNING_SEEDS[:20],
    *,
    num_envs: int = 20,
    workers: int | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Plays the same episodes with each threshold; nothing is trained again.

    A sweep chooses a setting, so it keeps off `SCORE_SEEDS`: score the threshold that you choose there, once.

    Args:
        policy: a TorchPolicy or OnnxPolicy. Its own threshold is the baseline where it is among those that are
            played, else the first of them is.
        thresholds: in [0, 1).
        make_env: as for `evaluate`.
        seeds: as for `evaluate`, but for `SCORE_SEEDS`.
        num_envs: as for `evaluate`.
        workers: as for `evaluate`.
        progress: as for `evaluate`.

    Raises:
        ConfigError: no thresholds, one that the policy cannot act with, seeds kept for scores, or what `evaluate`
            refuses.
    """
    if not thresholds:
        raise ConfigError("no thresholds", where="sweep_thresholds", expected="1 or more")
    require_evaluation_seeds(seeds, "sweep_thresholds", choosing=True)
    policies = {threshold: policy.with_threshold(threshold) for threshold in thresholds}
    play = partial(evaluate, make_env=make_env, seeds=seeds, num_envs=num_envs, workers=workers, progress=progress)
    evaluations = {threshold: play(each) for threshold, each in policies.items()}
    return Sweep(evaluations, policy.threshold if policy.threshold in evaluations else thresholds[0])


def _num_workers(workers: int | None, most: int, where: str) -> int:
    if workers is not None and workers < 0:
        raise ConfigError(f"{workers} workers", where=where, expected="0 or more, or None for one on each core")
    return min(num_cores() if workers is None else workers, most)


def _evaluation(seeds: Sequence[int], ends: Mapping[int, EpisodeEnd]) -> Evaluation:
    """Of episodes by their index, which may have ended in any order."""
    ordered = [ends[index] for index in range(len(seeds))]
    has_laps = any(end.finished is not None for end in ordered)  # said only where an episode terminates
    return Evaluation(
        seeds=tuple(int(seed) for seed in seeds),
        scores=tuple(end.score for end in ordered),
        lengths=tuple(end.length for end in ordered),
        finished=tuple(bool(end.finished) for end in ordered) if has_laps else (),
        versions=installed_versions(),
    )


def _progress_bar(num_episodes: int, progress: bool | None) -> tqdm[Any]:
    hidden = None if progress is None else not progress  # None hides the bar where there is no terminal
    return tqdm(total=num_episodes, desc="evaluate", unit="episode", disable=hidden)


def _show_progress(bar: tqdm[Any], ends: Mapping[int, EpisodeEnd]) -> None:
    bar.update(len(ends) - bar.n)
    bar.set_postfix_str(f"mean {np.mean([end.score for end in ends.values()]):.1f}")


class EpisodeEnd(NamedTuple):
    """What an episode came to."""

    score: float
    length: int
    finished: bool | None


def _lap_finished(info: Mapping[str, Any]) -> bool | None:
    return bool(info["lap_finished"]) if "lap_finished" in info else None


class Step(NamedTuple):
    """One environment's answer to one action."""

    observation: NDArray[Any]
    end: EpisodeEnd | None


class _LocalEnvironments:
    """Some environments, stepped one after the other."""

    def __init__(self, make_env: EnvFactory, slots: Sequence[int]) -> None:
        self._envs = {slot: make_env() for slot in slots}
        self._scores = dict.fromkeys(slots, 0.0)
        self._lengths = dict.fromkeys(slots, 0)

    def reset(self, seeds: Mapping[int, int]) -> dict[int, NDArray[Any]]:
        observations = {}
        for slot, seed in seeds.items():
            observations[slot], _ = self._envs[slot].reset(seed=seed)
            self._scores[slot], self._lengths[slot] = 0.0, 0
        return observations

    def step(self, actions: Mapping[int, int]) -> dict[int, Step]:
        steps = {}
        for slot, action in actions.items():
            observation, reward, terminated, truncated, info = self._envs[slot].step(action)
            self._scores[slot] += float(reward)
            self._lengths[slot] += 1
            end = None
            if terminated or truncated:
                end = EpisodeEnd(self._scores[slot], self._lengths[slot], _lap_finished(info))
            steps[slot] = Step(observation, end)
        return steps

    def close(self) -> None:
        for env in self._envs.values():
            env.close()


class _RemoteEnvironments:
    """The same, spread over worker processes; slot s lives in worker s modulo their number."""

    def __init__(self, make_env: EnvFactory, num_envs: int, workers: int) -> None:
        require_sendable(make_env, "evaluate", "make_env")
        self._count = workers
        shares = (range(worker, num_envs, workers) for worker in range(workers))
        self._workers = _Workers([partial(_LocalEnvironments, make_env, share) for share in shares])

    def reset(self, seeds: Mapping[int, int]) -> dict[int, NDArray[Any]]:
        return self._call("reset", seeds)

    def step(self, actions: Mapping[int, int]) -> dict[int, Step]:
        return self._call("step", actions)

    def _call(self, method: str, arguments: Mapping[int, int]) -> dict[int, Any]:
        shares: dict[int, dict[int, int]] = {}
        for slot, argument in arguments.items():
            shares.setdefault(slot % self._count, {})[slot] = argument
        for worker, share in shares.items():
            self._workers.ask(worker, method, share)
        merged: dict[int, Any] = {}
        for worker in shares:
            merged |= self._workers.answer(worker)
        return merged

    def close(self) -> None:
        self._workers.close()


@dataclass(frozen=True)
class _Player:
    """Plays whole episodes with a behaviour."""

    make_env: EnvFactory
    behaviour: Behaviour

    def play(self, seed: int) -> EpisodeEnd:
        behaviour = copy.deepcopy(self.behaviour)
        # A new environment for every episode: what one leaves behind cannot depend on who played it.
        with closing(self.make_env()) as env:
            observation, _ = env.reset(seed=seed)
            behaviour.begin(env, episode_rng(seed))
            score, length = 0.0, 0
            while True:
                action, _ = behaviour(observation)
                observation, reward, terminated, truncated, info = env.step(action)
                score, length = score + float(reward), length + 1
                if terminated or truncated:
                    return EpisodeEnd(score, length, _lap_finished(info))

    def close(self) -> None:
        """Nothing is open between episodes."""


def _play_episodes(
    player: _Player, seeds: Sequence[int], workers: int
) -> Generator[tuple[int, EpisodeEnd], None, None]:
    """(index, end) of every episode, in the order in which they end; closing the iterator ends the workers."""
    if workers == 0:
        for index, seed in enumerate(seeds):
            yield index, player.play(seed)
        return
    require_sendable(player, "evaluate_behaviour", "make_env or behaviour")
    with closing(_Workers([partial(_Player, player.make_env, player.behaviour)] * workers)) as pool:
        upcoming = iter(enumerate(seeds))
        playing: dict[int, int] = {}
        idle = list(range(workers))
        while True:
            for worker, (index, seed) in zip(idle, upcoming, strict=False):
                pool.ask(worker, "play", seed)
                playing[worker] = index
            if not playing:
                return
            idle = pool.ready(playing)
            for worker in idle:
                yield playing.pop(worker), pool.answer(worker)


class _Served(Protocol):
    """What lives in a worker."""

    def close(self) -> None: ...


class _Workers:
    """Processes that each make something to serve, and answer calls of its methods."""

    def __init__(self, makers: Sequence[Callable[[], _Served]]) -> None:
        # Never fork: torch and pygame hold threads and locks that a forked child inherits broken.
        context = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes = []
        for make in makers:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make), daemon=True)
            with deaf_to_interrupts():
                process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)

    def ask(self, worker: int, method: str, argument: Any) -> None:
        """Has a worker call a method; each call has one answer."""
        with _speaking_of_workers():
            self._connections[worker].send((method, argument))

    def answer(self, worker: int) -> Any:
        """What the worker's method returned; waits for it, and raises what it raised."""
        with _speaking_of_workers():
            answer = self._connections[worker].recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def ready(self, workers: Collection[int]) -> list[int]:
        """Those of the workers that have an answer; waits until one has."""
        found = multiprocessing.connection.wait([self._connections[worker] for worker in workers])
        return [worker for worker in workers if self._connections[worker] in found]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()


@contextmanager
def _speaking_of_workers() -> Iterator[None]:
    """Says in words that the other side of a connection is gone."""
    try:
        yield
    except (EOFError, OSError) as error:
        raise OfflineRLError(
            "a worker process ended",
            where="evaluate",
            mend="run it with workers=0 to see why; a script needs its `if __name__ == '__main__':` line",
        ) from error


def _serve(connection: Connection, make: Callable[[], _Served]) -> None:
    """A worker's life: answers calls until the other side closes."""
    served: _Served | None = None
    try:
        while True:
            method, argument = connection.recv()
            try:
                served = served or make()
                connection.send(getattr(served, method)(argument))
            except OfflineRLError as error:
                connection.send(error)
            except Exception as error:
                connection.send(OfflineRLError(f"{type(error).__name__}: {error}", where="environment in a worker"))
    except (EOFError, OSError):
        pass
    finally:
        if served is not None:
            served.close()


def _environments(make_env: EnvFactory, num_envs: int, workers: int) -> _LocalEnvironments | _RemoteEnvironments:
    if workers == 0:
        return _LocalEnvironments(make_env, range(num_envs))
    return _RemoteEnvironments(make_env, num_envs, workers)
