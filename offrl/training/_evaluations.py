"""Scores of a policy while it is trained."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from offrl.algorithms.algorithm import Algorithm
from offrl.checks import is_number
from offrl.errors import ConfigError
from offrl.runs._tables import read_scores
from offrl.runs.checkpoint import checkpoints, link_best, load_policy, step_of
from offrl.system.ranks import ALONE, Ranks
from offrl.system.workers import num_cores
from offrl.training.learner import Learner

Scores = Mapping[str, float]
Evaluator = Callable[[Algorithm], Scores]
"""Scores an algorithm's policy; among the numbers that it returns is "score", of which more is better."""

_MOST_WAITING = 2
"""Evaluations that are not done: one that runs, and the next. Each holds a copy of the networks."""


class Evaluations:
    """Runs an evaluator: at once while training waits, or in a thread where the processor has cores to spare.

    Args:
        evaluator: Scores the policy. Where it has a method `settings`, the run's config.json records what that returns.
            Where it has a method `stop`, that is called when an evaluation in a thread is not needed any more.
        directory: The run's; None where it has none.
        device: The learner's.
        ranks: The processes that train together. An evaluator that has methods `play_share` and `scores_of`, as
            `EpisodeEvaluator` does, is run by all of them, each for its share; another one by rank 0 alone.
    """

    def __init__(
        self, evaluator: Evaluator, directory: Path | None, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        self._evaluator = evaluator
        self._directory = directory
        self._ranks = ranks
        self._device = device
        self._pool: ThreadPoolExecutor | None = None
        self._pending: deque[tuple[int, Future[Scores]]] = deque()
        self._scores: dict[int, float] = {}

    def __enter__(self) -> Evaluations:
        """Takes up the scores of a resumed run, which the CSV file has: it may have fewer than when the run ended."""
        self._scores = {} if self._directory is None else read_scores(self._directory)
        self.keep_best()
        # Beside a busy neighbour an update of as many threads as there are cores takes many times as long.
        has_spare_cores = self._device.type != "cpu" or num_cores() >= 2 * torch.get_num_threads()
        # What ranks tell each other has an order, which a thread would upset.
        if self._ranks.count == 1 and has_spare_cores:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="offrl-evaluate")
        return self

    def __exit__(self, *_: object) -> None:
        """Forgets what has not begun, and has stopped what runs: the process would wait for it before it ends."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            stop = getattr(self._evaluator, "stop", None)
            if callable(stop):
                stop()

    def settings(self) -> dict[str, Any]:
        """What the evaluator says of itself, JSON-ready."""
        settings = getattr(self._evaluator, "settings", None)
        return {} if settings is None else dict(settings())

    def start(self, step: int, algorithm: Algorithm) -> None:
        """Begins to score the policy of `step`; without a background, returns when that is done.

        In the background it waits for the oldest where evaluations take longer than what lies between them.
        """
        if self._pool is not None:
            unfinished = [future for _, future in self._pending if not future.done()]
            wait(unfinished[: 1 + len(unfinished) - _MOST_WAITING])
            self._pending.append((step, self._pool.submit(self._evaluator, algorithm)))
            return
        done: Future[Scores] = Future()
        done.set_result(self._evaluator(algorithm))
        self._pending.append((step, done))

    def play_share(self, algorithm: Algorithm) -> Any:
        """What this rank has to say of a policy, JSON-ready; for `add_shares`."""
        if hasattr(self._evaluator, "play_share"):
            return self._evaluator.play_share(algorithm, self._ranks)
        return dict(self._evaluator(algorithm)) if self._ranks.is_first else {}

    def add_shares(self, step: int, share: Any) -> None:
        """Makes scores of all ranks' shares, on rank 0; none where a rank was stopped and has None. Collective."""
        shares = self._ranks.gather(share)
        if self._ranks.is_first and None not in shares:
            done: Future[Scores] = Future()
            scores_of = getattr(self._evaluator, "scores_of", None)
            done.set_result(shares[0] if scores_of is None else scores_of(shares))
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
        if self._directory is not None:
            best = max(self._scores, key=lambda step: (self._scores[step], -step), default=None)
            link_best(self._directory / "checkpoints", best)

    def missing(self, learner: Learner, period: int, total: int) -> Iterator[tuple[int, Algorithm]]:
        """Checkpoints of a resumed run, with their steps, that should have been scored and were not."""
        found = [] if self._directory is None else checkpoints(self._directory / "checkpoints")
        steps = {step_of(checkpoint): checkpoint for checkpoint in found}
        due = [step for step in steps if step > 0 and (step % period == 0 or step == total)]
        # The others need not see the directory.
        for step in self._ranks.first([step for step in due if step <= learner.step and step not in self._scores]):
            algorithm = copy.deepcopy(learner.algorithm)
            if self._ranks.is_first:
                load_policy(algorithm, steps[step])
            self._ranks.copy_first_(algorithm.state_dict().values())
            yield step, algorithm.eval()
