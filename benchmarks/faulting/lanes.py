"""Several tries at once: processes that share a list of tasks, each with a directory and inputs of its own."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.faulting.operations import Operation, make_operations
from benchmarks.faulting.tries import CANNOT, Bench, Outcome

Task = tuple[str, str, Callable[[Bench, dict[str, Operation]], Iterator[Outcome]]]
"""An operation's name and a fault's, and the tries; what is random in them depends on the two names and the seed."""


class Lanes:
    """Does tasks in `count` processes; iterate for their outcomes, in the order in which they come.

    Args:
        tasks: Of all processes.
        count: How many tries are under way at once.
        folder: For all files.
        address: Of the archive that fetch brings.
        names: Of the operations that are tried.
        settings: Of each `Bench`.
        seed: Of whatever is random.
        watched: Whether file events can be seen.

    Attributes:
        cannot: Why a fault is not possible here, by its name.
        events: How many file events an operation has.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        count: int,
        folder: Path,
        address: str,
        *,
        names: Sequence[str],
        settings: dict[str, Any],
        seed: int,
        watched: bool,
    ) -> None:
        self._tasks, self._count, self._folder, self._address = tasks, count, folder, address
        self._names, self._settings, self._seed, self._watched = names, settings, seed, watched
        self.cannot: dict[str, str] = {}
        self.events: dict[str, int] = {}

    def __iter__(self) -> Iterator[Outcome]:
        """Raises RuntimeError where one of the processes fails."""
        context = get_context("fork")
        taken = context.Value("i", 0)
        open_pipes: dict[Connection, Any] = {}
        try:
            for number in range(self._count):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=self._work, args=(self._folder / f"lane-{number}", taken, theirs))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of forks beside threads
                    process.start()
                theirs.close()
                open_pipes[ours] = process
            while open_pipes:
                for pipe in wait([*open_pipes]):
                    assert isinstance(pipe, Connection)
                    try:
                        kind, content = pipe.recv()
                    except EOFError:
                        process = open_pipes.pop(pipe)
                        process.join()
                        if process.exitcode:
                            raise RuntimeError(f"a lane ended with exit code {process.exitcode}") from None
                        continue
                    if kind == "outcome":
                        yield content
                    else:
                        getattr(self, kind).update(content)
        finally:
            for process in open_pipes.values():
                process.terminate()  # which raises there, so that no disk stays mounted
            for process in open_pipes.values():
                process.join()

    def _work(self, folder: Path, taken: Any, pipe: Connection) -> None:
        os.environ["OFFRL_CACHE"] = f"{folder}/cache"
        bench = Bench(folder / "work", folder / "log", random.Random(self._seed), **self._settings)
        bench.work.mkdir(parents=True)
        made = make_operations(folder / "inputs", bench.work, self._address)
        for name in self._names:
            bench.learn(made[name], watched=self._watched)
        pipe.send(("events", {name: len(events) for name, events in bench.events.items()}))
        while True:
            with taken.get_lock():
                index, taken.value = taken.value, taken.value + 1
            if index >= len(self._tasks):
                return
            operation, fault, tries = self._tasks[index]
            bench.random = random.Random(f"{self._seed} {operation} {fault}")
            try:
                for outcome in tries(bench, made):
                    pipe.send(("outcome", outcome))
            except CANNOT as error:  # no root, or a container without disks of its own
                pipe.send(("cannot", {fault: f"{type(error).__name__}: {error}"}))
