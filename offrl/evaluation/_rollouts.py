"""Episodes, played here or in worker processes: environments that step together, and behaviours that play alone."""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from offrl.envs.behaviours import Behaviour, act
from offrl.envs.episodes import EpisodeEnd, EpisodeRunner
from offrl.envs.making import EnvFactory
from offrl.envs.seeds import episode_rng
from offrl.system.workers import WorkerPool, require_sendable


class Step(NamedTuple):
    """What one environment shows after a reset or an action, and at the end of an episode what that came to."""

    observation: NDArray[Any]
    action_mask: NDArray[np.bool_] | None
    """bool [A], the legal actions; None where the environment states none."""
    end: EpisodeEnd | None


class Environments(Protocol):
    """Several environments, each in a slot of its own, that are asked together."""

    def reset(self, seeds: Mapping[int, int]) -> dict[int, Step]:
        """Begins an episode in each slot that has a seed here. Slot -> what it shows first."""
        ...

    def step(self, actions: Mapping[int, int]) -> dict[int, Step]:
        """One step in each slot that has an action here."""
        ...

    def num_actions(self) -> int | None:
        """Of an environment; None where its actions are not discrete."""
        ...

    def close(self) -> None:
        """Ends the environments."""
        ...


def make_environments(make_env: EnvFactory, num_envs: int, workers: int) -> Environments:
    """Environments in slots 0 .. `num_envs` - 1, over so many processes; with 0 of them in this one.

    Raises:
        ConfigError: `make_env` cannot be sent to worker processes.
    """
    if workers == 0:
        return _LocalEnvironments(make_env, range(num_envs))
    return _RemoteEnvironments(make_env, num_envs, workers)


def play_episodes(
    make_env: EnvFactory, behaviour: Behaviour, seeds: Sequence[int], workers: int
) -> Generator[tuple[int, EpisodeEnd], None, None]:
    """Plays an episode for each seed with a behaviour, over so many processes; with 0 of them in this one.

    Yields:
        (index of the seed, what the episode came to), in the order in which they end. Closing ends the workers.

    Raises:
        ConfigError: `make_env` or `behaviour` cannot be sent to worker processes.
        OfflineRLError: an environment or the behaviour failed in its worker.
    """
    player = _Player(make_env, behaviour)
    if workers == 0:
        for index, seed in enumerate(seeds):
            yield index, player.play(seed)
        return
    require_sendable(player, "evaluate_behaviour", "make_env or behaviour")
    with closing(WorkerPool([partial(_Player, make_env, behaviour)] * workers)) as pool:
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


class _LocalEnvironments:
    """Some environments, stepped one after the other."""

    def __init__(self, make_env: EnvFactory, slots: Sequence[int]) -> None:
        self._runners = {slot: EpisodeRunner(make_env()) for slot in slots}

    def reset(self, seeds: Mapping[int, int]) -> dict[int, Step]:
        for slot, seed in seeds.items():
            self._runners[slot].reset(seed)
        return {slot: self._shown(slot) for slot in seeds}

    def step(self, actions: Mapping[int, int]) -> dict[int, Step]:
        for slot, action in actions.items():
            self._runners[slot].step(action)
        return {slot: self._shown(slot) for slot in actions}

    def _shown(self, slot: int) -> Step:
        runner = self._runners[slot]
        runner.require_finite()
        return Step(runner.observation, runner.action_mask, runner.end)

    def num_actions(self, _: None = None) -> int | None:
        return next(iter(self._runners.values())).num_actions

    def close(self) -> None:
        for runner in self._runners.values():
            runner.env.close()


class _RemoteEnvironments:
    """The same, spread over worker processes; slot s lives in worker s modulo their number."""

    def __init__(self, make_env: EnvFactory, num_envs: int, workers: int) -> None:
        require_sendable(make_env, "evaluate", "make_env")
        self._count = workers
        shares = (range(worker, num_envs, workers) for worker in range(workers))
        self._pool = WorkerPool([partial(_LocalEnvironments, make_env, share) for share in shares])

    def reset(self, seeds: Mapping[int, int]) -> dict[int, Step]:
        return self._call("reset", seeds)

    def step(self, actions: Mapping[int, int]) -> dict[int, Step]:
        return self._call("step", actions)

    def _call(self, method: str, arguments: Mapping[int, int]) -> dict[int, Any]:
        shares: dict[int, dict[int, int]] = {}
        for slot, argument in arguments.items():
            shares.setdefault(slot % self._count, {})[slot] = argument
        for worker, share in shares.items():
            self._pool.ask(worker, method, share)
        merged: dict[int, Any] = {}
        for worker in shares:
            merged |= self._pool.answer(worker)
        return merged

    def num_actions(self) -> int | None:
        for worker in range(self._count):  # all make their environments meanwhile
            self._pool.ask(worker, "num_actions", None)
        found: list[int | None] = [self._pool.answer(worker) for worker in range(self._count)]
        return found[0]

    def close(self) -> None:
        self._pool.close()


@dataclass(frozen=True)
class _Player:
    """Plays whole episodes with a behaviour."""

    make_env: EnvFactory
    behaviour: Behaviour

    def play(self, seed: int) -> EpisodeEnd:
        behaviour = copy.deepcopy(self.behaviour)
        # A new environment for every episode: what one leaves behind cannot depend on who played it.
        with closing(self.make_env()) as env:
            runner = EpisodeRunner(env)
            runner.reset(seed)
            behaviour.begin(env, episode_rng(seed))
            while (end := runner.end) is None:
                action, _ = act(behaviour, runner.observation, runner.action_mask)
                runner.step(action)
                runner.require_finite()
            return end

    def close(self) -> None:
        """Nothing is open between episodes."""
