"""The learner of an online collection on disk: a run's directory, from which a collection that was stopped goes on."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offrl.algorithms.building import described_encoder
from offrl.checks import is_whole
from offrl.replay.config import ReplayConfig
from offrl.runs.checkpoint import find_resumable, load_learner, read_logs, save_checkpoint, set_aside
from offrl.runs.directory import write_environment
from offrl.runs.files import write_run_config
from offrl.shards._recording import writing
from offrl.shards.manifest import plain_environment
from offrl.training.config import FitConfig

if TYPE_CHECKING:
    from offrl.collection.online import OnlineConfig
    from offrl.training.learner import Learner

LEARNER_NAME = "learner"
"""The directory of the learner, in that of the dataset."""
NUM_CHECKPOINTS = 20
"""In a whole collection: who is stopped has a twentieth of it to play again at most, and there are as many policies to
choose the best from."""


class KeptLearner:
    """Saves a learner beside the shards that it has seen, and finds where it can go on.

    Args:
        directory: of the dataset.
        learner: as it begins.
        period: transitions between two checkpoints.
    """

    def __init__(self, directory: Path, learner: Learner, period: int) -> None:
        self.directory = directory / LEARNER_NAME
        self._learner = learner
        self._period = period
        self._num_saved = 0
        self._step: int | None = None

    def resume(self, num_shards: int) -> int:
        """Puts the learner where its newest whole checkpoint left it, if the shards it had seen until then are there.

        Args:
            num_shards: of the dataset, whole ones.

        Returns:
            How many of them it has seen; where it begins again, 0, and what it had saved is removed.
        """
        found = find_resumable(self.directory / "checkpoints")
        for checkpoint, reason in found.damaged:
            warnings.warn(f"{reason}: the collection goes on from an earlier checkpoint", stacklevel=4)
            set_aside(checkpoint)
        if found.checkpoint is not None:
            seen = read_logs(found.checkpoint)
            if is_whole(seen.get("shards")) and seen["shards"] <= num_shards:
                load_learner(self._learner, found.checkpoint)
                self._num_saved, self._step = int(seen["transitions"]), self._learner.step
                return int(seen["shards"])
        with writing(self.directory):
            if self.directory.exists():
                shutil.rmtree(self.directory)
        return 0

    def begin(self, config: OnlineConfig, transitions: int, seed: int, environment: Mapping[str, Any]) -> None:
        """Writes what the learner is, so that its policy can be evaluated and exported as that of any run."""
        if (self.directory / "config.json").exists():
            return
        algorithm, learner = self._learner.algorithm, self._learner
        kind = type(algorithm)
        own = {} if kind.__module__.startswith("offrl.") else {"algorithm": f"{kind.__module__}:{kind.__qualname__}"}
        length = FitConfig(updates=max(1, config.num_updates(transitions)), batch_size=config.batch_size)
        replay = ReplayConfig(
            n_step=config.n_step, discount=config.discount, reward_scale=config.reward_scale, seed=seed
        )
        settings = {
            "algorithm": algorithm.name,
            **described_encoder(algorithm),
            "algorithm_config": {} if algorithm.config is None else asdict(algorithm.config),
            "algorithm_seed": algorithm.seed,
            "learner": asdict(learner.config),
            "fit": asdict(length),
            "replay": replay.to_dict(),
            "dataset": None,  # it has learned while the dataset was made
            "init": None,
            "spec": algorithm.spec.to_dict(),
            "notes": {**own, "environment": plain_environment(environment)},
        }
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            write_environment(self.directory, {"device": str(learner.device)})
            write_run_config(self.directory, settings)

    def save(self, num_shards: int, num_transitions: int, *, is_last: bool = False) -> None:
        """Saves it where a checkpoint is due; all that it has seen is in the dataset's first `num_shards` shards.

        Raises:
            RunError: it cannot be written, or its weights are not finite.
        """
        is_due = num_transitions // self._period > self._num_saved // self._period
        if self._step == self._learner.step or not (is_last or is_due):
            return
        self._learner.require_sound_weights()
        save_checkpoint(
            self._learner, self.directory / "checkpoints", {"shards": num_shards, "transitions": num_transitions}
        )
        self._num_saved, self._step = num_transitions, self._learner.step
