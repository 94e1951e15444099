"""Episodes played by a policy: several environments at once, one batch of inference for all, seeded."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from offrl.envs import EnvFactory
from offrl.errors import ConfigError, OfflineRLError
from offrl.policy import Policy
from offrl.statistics import Interval, bootstrap_mean
from offrl.workers import deaf_to_interrupts, num_cores, require_sendable

TUNING_SEEDS = range(1_000_000, 2_000_000)
"""For choosing settings; a score on seeds that settings were chosen on flatters."""
SCORE_SEEDS = range(2_000_000, 3_000_000)
"""For scores that are reported. Data is collected from 1,000,000,000 on: no track is in two of the three."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of whole episodes, one for each seed, in the order of the seeds.

    Attributes:
        seeds: given to `reset`.
        scores: undiscounted returns.
        lengths: steps.
        finished: whether `info["lap_finished"]` was true at the end; empty where no episode's end says.
    """

    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    lengths: tuple[int, ...]
    finished: tuple[bool, ...] = ()

    @property
    def mean(self) -> Interval:
        """Mean score and its 95 % bootstrap interval."""
        return bootstrap_mean(self.scores)

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
        mean = self.mean
        summary: dict[str, Any] = {
            "episodes": len(self.seeds),
            "mean": mean.mean,
            "interval_95": [mean.low, mean.high],
            "standard_deviation": float(np.std(self.scores)),
            "median": float(np.median(self.scores)),
            "percentile_10": float(np.percentile(self.scores, 10)),
            "mean_length": float(np.mean(self.lengths)),
        }
        if self.finished:
            summary["finished"] = sum(self.finished)
        columns: Mapping[str, Sequence[Any]] = {"seed": self.seeds, "score": self.scores, "length": self.lengths}
        if self.finished:
            columns = {**columns, "finished": self.finished}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return {**summary, "per_episode": rows}


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
        seeds: one for each episode, given to `reset`.
        num_envs: environments that step together.
        workers: processes that step them; 0 steps them in this process, None takes one for each core.
        progress: show a progress bar; None shows it on a terminal only.

    Raises:
        ConfigError: no seeds, numbers below 1, or a `make_env` that cannot be sent to worker processes.
        OfflineRLError: an environment failed in its worker.
    """
    if not len(seeds) or num_envs < 1:
        raise ConfigError(
            f"{len(seeds)} seeds, {num_envs} environments", where="evaluate", expected="1 or more of each"
        )
    num_envs = min(num_envs, len(seeds))
    workers = min(num_cores() if workers is None else workers, num_envs)
    results: dict[int, EpisodeEnd] = {}
    with (
        _environments(make_env, num_envs, workers) as environments,
        tqdm(total=len(seeds), desc="evaluate", unit="episode", disable=_hidden(progress)) as bar,
    ):
        playing = {slot: slot for slot in range(num_envs)}  # environment -> index of the episode that it plays
        first = environments.reset({slot: int(seeds[slot]) for slot in playing})
        observations = np.stack([first[slot] for slot in range(num_envs)])
        upcoming = iter(range(num_envs, len(seeds)))
        while playing:
            actions = policy(observations)
            steps = environments.step({slot: int(actions[slot]) for slot in playing})
            ended = {slot: step.end for slot, step in steps.items() if step.end is not None}
            for slot, step in steps.items():
                observations[slot] = step.observation
            for slot, end in sorted(ended.items()):
                results[playing.pop(slot)] = end
                bar.update()
            if ended:
                bar.set_postfix_str(f"mean {np.mean([end.score for end in results.values()]):.1f}")
            fresh = dict(zip(sorted(ended), upcoming, strict=False))
            playing |= fresh
            for slot, observation in environments.reset({s: int(seeds[i]) for s, i in fresh.items()}).items():
                observations[slot] = observation
    ends = [results[index] for index in range(len(seeds))]
    has_laps = any(end.finished is not None for end in ends)  # said only where an episode terminates
    return Evaluation(
        seeds=tuple(int(seed) for seed in seeds),
        scores=tuple(end.score for end in ends),
        lengths=tuple(end.length for end in ends),
        finished=tuple(bool(end.finished) for end in ends) if has_laps else (),
    )


class EpisodeEnd(NamedTuple):
    """What an episode came to."""

    score: float
    length: int
    finished: bool | None


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
                finished = bool(info["lap_finished"]) if "lap_finished" in info else None
                end = EpisodeEnd(self._scores[slot], self._lengths[slot], finished)
            steps[slot] = Step(observation, end)
        return steps

    def close(self) -> None:
        for env in self._envs.values():
            env.close()


class _RemoteEnvironments:
    """The same, spread over worker processes; slot s lives in worker s modulo their number."""

    def __init__(self, make_env: EnvFactory, num_envs: int, workers: int) -> None:
        # Never fork: torch and pygame hold threads and locks that a forked child inherits broken.
        context = multiprocessing.get_context("spawn")
        require_sendable(make_env, "evaluate", "make_env")
        self._connections: list[Connection] = []
        self._processes = []
        for worker in range(workers):
            ours, theirs = context.Pipe()
            slots = range(worker, num_envs, workers)
            process = context.Process(target=_serve, args=(theirs, make_env, slots), daemon=True)
            with deaf_to_interrupts():
                process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)

    def reset(self, seeds: Mapping[int, int]) -> dict[int, NDArray[Any]]:
        return self._call("reset", seeds)

    def step(self, actions: Mapping[int, int]) -> dict[int, Step]:
        return self._call("step", actions)

    def _call(self, method: str, arguments: Mapping[int, int]) -> dict[int, Any]:
        count = len(self._connections)
        shares = [{s: a for s, a in arguments.items() if s % count == worker} for worker in range(count)]
        asked = [connection for connection, share in zip(self._connections, shares, strict=True) if share]
        merged: dict[int, Any] = {}
        try:
            for connection, share in zip(self._connections, shares, strict=True):
                if share:
                    connection.send((method, share))
            answers = [connection.recv() for connection in asked]
        except (EOFError, OSError) as error:
            raise OfflineRLError(
                "a worker process ended",
                where="evaluate",
                mend="run it with workers=0 to see why; a script needs its `if __name__ == '__main__':` line",
            ) from error
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            merged |= answer
        return merged

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()


def _serve(connection: Connection, make_env: EnvFactory, slots: Sequence[int]) -> None:
    """A worker's life: answers reset and step until the other side closes."""
    environments: _LocalEnvironments | None = None
    try:
        while True:
            method, arguments = connection.recv()
            try:
                environments = environments or _LocalEnvironments(make_env, slots)
                connection.send(getattr(environments, method)(arguments))
            except OfflineRLError as error:
                connection.send(error)
            except Exception as error:
                connection.send(OfflineRLError(f"{type(error).__name__}: {error}", where="environment in a worker"))
    except (EOFError, OSError):
        pass
    finally:
        if environments is not None:
            environments.close()


@contextmanager
def _environments(
    make_env: EnvFactory, num_envs: int, workers: int
) -> Iterator[_LocalEnvironments | _RemoteEnvironments]:
    environments: _LocalEnvironments | _RemoteEnvironments
    if workers == 0:
        environments = _LocalEnvironments(make_env, range(num_envs))
    else:
        environments = _RemoteEnvironments(make_env, num_envs, workers)
    try:
        yield environments
    finally:
        environments.close()


def _hidden(progress: bool | None) -> bool | None:
    """What tqdm calls `disable`: None hides the bar where there is no terminal."""
    return None if progress is None else not progress
