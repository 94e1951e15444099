"""A score while training: plays episodes with the policy of a run that goes on."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from offrl.envs.making import EnvFactory
from offrl.envs.seeds import TUNING_SEEDS
from offrl.errors import OfflineRLError
from offrl.evaluation._arguments import require_playable
from offrl.evaluation.scores import Evaluation
from offrl.evaluation.scoring import evaluate
from offrl.system.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from offrl.algorithms.algorithm import Algorithm


class EpisodeEvaluator:
    """The `evaluator` of `fit` that plays episodes, the same ones each time.

    The checkpoint with the best score is kept, and a choice flatters what it chooses: it plays on seeds for tuning, and
    refuses those that are kept for scores.

    Args:
        make_env: Makes one environment; must be picklable if there are worker processes.
        seeds: One for each episode, as for `evaluate`, but for `SCORE_SEEDS`.
        num_envs: Environments that step together.
        workers: Processes that step them, started for each evaluation; 0 steps them in this process, None takes one
            for each core.

    Raises:
        ConfigError: No seeds, seeds that are kept for scores or for data, a `make_env` that makes nothing, or numbers
            that are too small.
    """

    _num_stops = 0

    def __init__(
        self,
        make_env: EnvFactory,
        seeds: Sequence[int] = TUNING_SEEDS[:20],
        *,
        num_envs: int = 20,
        workers: int | None = None,
    ) -> None:
        require_playable("EpisodeEvaluator", make_env, seeds, num_envs=num_envs, workers=workers, choosing=True)
        self.make_env = make_env
        self.seeds = seeds
        self.num_envs = num_envs
        self.workers = workers

    def __call__(self, algorithm: Algorithm) -> dict[str, float]:
        """The mean score, the ends of its 95 % bootstrap interval if the episodes are enough for one, and the like.

        Args:
            algorithm: Whose policy plays.
        """
        return self.scores_of([self.play_share(algorithm)])

    def play_share(self, algorithm: Algorithm, ranks: Ranks = ALONE) -> dict[str, Any]:
        """Plays this rank's share of the episodes: each in turn, so that `scores_of` has them in order again.

        Returns:
            What they came to, JSON-ready.

        Raises:
            ConfigError: There are fewer episodes than ranks.
            OfflineRLError: `stop` was called meanwhile.
        """
        before = self._num_stops
        from offrl.policies.torch_policy import TorchPolicy  # collecting needs no torch

        def go_on(*_: object) -> None:
            if self._num_stops > before:
                raise OfflineRLError("stopped", where="EpisodeEvaluator")

        with algorithm.register_forward_pre_hook(go_on):
            found = evaluate(
                TorchPolicy(algorithm),
                self.make_env,
                ranks.share(self.seeds),
                num_envs=self.num_envs,
                workers=ranks.workers(self.workers),
                progress=None if ranks.is_first and threading.current_thread() is threading.main_thread() else False,
            )
        return asdict(found)

    def stop(self) -> None:
        """Ends what plays in other threads, at its next step: nobody waits for its scores any more."""
        self._num_stops += 1

    def scores_of(self, shares: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """What `__call__` returns, from the shares of all ranks."""
        found = Evaluation.of_shares([Evaluation.from_json(share) for share in shares])
        mean = found.mean
        scores = {
            "score": mean.mean,
            "low": mean.low,
            "high": mean.high,
            "median": found.median,
            "length": found.mean_length,
            "finished_share": found.finished_share,
        }
        return {name: value for name, value in scores.items() if value is not None}

    def settings(self) -> dict[str, Any]:
        """What a run's config.json records: that the environment was played, and how."""
        seeds = np.asarray(self.seeds)
        first = next(iter(getattr(self.make_env, "args", ())), None)
        function = getattr(self.make_env, "func", self.make_env)  # of a partial, or itself
        named = (
            f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
        )
        return {
            "environment": first if isinstance(first, str) else named,
            "episodes": len(seeds),
            "first_seed": int(seeds[0]),
            "last_seed": int(seeds[-1]),
        }
