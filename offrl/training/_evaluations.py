"""Scores of a policy while it is trained."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from offrl.algorithms.algorithm import Algorithm
from offrl.checks import is_number
from offrl.errors import ConfigError
from offrl.system.workers import num_cores
from offrl.training.checkpoint import checkpoints, link_best, load_policy, step_of
from offrl.training.learner import Learner
from offrl.training.loggers import read_scores

Scores = Mapping[str, float]
Evaluator = Callable[[Algorithm], Scores]
"""Scores an algorithm's policy; among the numbers that it returns is "score", of which more is better."""


class Evaluations:
    """Runs an evaluator: at once while training waits, or in a thread where the processor has cores to spare.

    Args:
        evaluator: Scores the policy. Where it has a method `settings`, the run's config.json records what that returns.
        directory: The run's; None where it has none.
        device: The learner's.
    """

    def __init__(self, evaluator: Evaluator, directory: Path | None, device: torch.device) -> None:
        self._evaluator = evaluator
        self._directory = directory
        # Beside a busy neighbour an update of as many threads as there are cores takes many times as long.
        self.in_background = device.type != "cpu" or num_cores() >= 2 * torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._pending: deque[tuple[int, Future[Scores]]] = deque()
        self._scores: dict[int, float] = {}

    def __enter__(self) -> Evaluations:
        """Takes up the scores of a resumed run, which the CSV file has."""
        self._scores = {} if self._directory is None else read_scores(self._directory)
        if self.in_background:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="offrl-evaluate")
        return self

    def __exit__(self, *_: object) -> None:
        """Forgets what has not begun."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def settings(self) -> dict[str, Any]:
        """What the evaluator says of itself, JSON-ready."""
        settings = getattr(self._evaluator, "settings", None)
        return {} if settings is None else dict(settings())

    def start(self, step: int, algorithm: Algorithm) -> None:
        """Begins to score the policy of `step`; without a background, returns when that is done."""
        if self._pool is not None:
            self._pending.append((step, self._pool.submit(self._evaluator, algorithm)))
            return
        done: Future[Scores] = Future()
        done.set_result(self._evaluator(algorithm))
        self._pending.append((step, done))

    def finished(self, *, wait: bool) -> Iterator[tuple[int, Scores]]:
        """(step, scores) of the evaluations that are done, in the order in which they began; each once.

        Raises:
            ConfigError: The evaluator returned no score.
        """
        while self._pending and (wait or self._pending[0][1].done()):
            step, future = self._pending.popleft()
            scores = future.result()
            if not isinstance(scores, Mapping) or not is_number(scores.get("score")):
                raise ConfigError(f"{scores!r}", where="evaluator", expected='{"score": a finite number, ...}')
            self._scores[step] = float(scores["score"])
            yield step, scores

    def keep_best(self) -> None:
        """Points `checkpoints/best` to the checkpoint with the highest score; the earliest of several."""
        if self._directory is not None and self._scores:
            link_best(self._directory / "checkpoints", max(self._scores, key=lambda step: (self._scores[step], -step)))

    def missing(self, learner: Learner, period: int, total: int) -> Iterator[tuple[int, Algorithm]]:
        """Checkpoints of a resumed run, with their steps, that should have been scored and were not."""
        if self._directory is None:
            return
        for checkpoint in checkpoints(self._directory / "checkpoints"):
            step = step_of(checkpoint)
            is_due = step > 0 and (step % period == 0 or step == total)
            if is_due and step <= learner.step and step not in self._scores:
                yield step, load_policy(copy.deepcopy(learner.algorithm), checkpoint)
