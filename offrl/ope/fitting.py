"""How models are fitted whose targets are looked up by the number of the transition."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from offrl.algorithms.algorithm import Algorithm
from offrl.ope._progress import PERIOD, FittingBar
from offrl.replay import Replay
from offrl.replay.sampling import Candidates, Sampling
from offrl.training import FitConfig, LearnerConfig, fit
from offrl.training.config import Precision

Fittable = TypeVar("Fittable", bound=Algorithm[Any])


@dataclass(frozen=True)
class EpisodesAgain:
    """A sampling: as many episodes as there are, drawn with replacement, each step as often as its episode.

    Fits on different draws say how much a fit depends on its data.
    """

    seed: int

    def weights(self, candidates: Candidates) -> NDArray[np.float64]:
        """[n]."""
        episodes, which = np.unique(candidates.episode, return_inverse=True)
        drawn = np.random.default_rng(self.seed).integers(len(episodes), size=len(episodes))
        counts = np.bincount(drawn, minlength=len(episodes))
        return counts[which].astype(np.float64)

    def __str__(self) -> str:
        return f"episodes-again:{self.seed}"


class _Rows(Replay):
    """A replay whose numbers of transitions are those of the tables of targets: the held-out part counts its own."""

    def held_out(self) -> None:
        """Nothing is measured while values are fitted."""
        return


def rows_of(replay: Replay, sampling: Sampling | str, seed: int, **changes: Any) -> _Rows:
    """The transitions of a replay one step at a time, with their numbers in each batch, whatever is legal.

    Args:
        replay: Of any n_step.
        sampling: How often each transition is drawn.
        seed: Of the batches.
        changes: Further settings that differ from the replay's.
    """
    config = replace(
        replay.config, n_step=1, sampling=sampling, seed=seed, include=("index",), legal_actions=None, **changes
    )
    return _Rows(replay.store, config)


def fit_on(
    rows: _Rows,
    model: Fittable,
    updates: int,
    *,
    batch_size: int,
    learner: LearnerConfig,
    bar: FittingBar,
    device: str,
    run: str | Path | None = None,
) -> Fittable:
    """The model after so many updates, as evaluation sees it.

    Args:
        rows: To learn from.
        model: It is trained in place.
        updates: Of the networks.
        batch_size: Of an update.
        learner: How an update is made.
        bar: Shows how far it is.
        device: Where to train.
        run: A directory for checkpoints and metrics; None writes nothing. A run that is there goes on.
    """
    fitting = FitConfig(updates=updates, batch_size=batch_size, log_period=PERIOD, checkpoint_period=1000)
    resume = run is not None and (Path(run) / "config.json").exists()
    with warnings.catch_warnings():
        # What data cannot teach a policy, and how to go on with a slow run, is no advice to who waits for an estimate.
        warnings.simplefilter("ignore", UserWarning)
        trained = fit(model, rows, fitting, learner=learner, loggers=[bar], device=device, run=run, resume=resume)
    fitted = trained.snapshot()
    assert isinstance(fitted, type(model))
    return fitted


LEAST_UPDATES = 5_000
"""Of a model that is fitted where nobody says how many."""


def enough_updates(replay: Replay) -> int:
    """How many updates fitted Q evaluation makes where nobody says: 50 for each step that the discount looks ahead.

    These are `steps_ahead`: 5,000 updates with a discount of 0.99, 16,667 with 0.997. It is never less than 5,000 nor
    more than 50,000; the remark on fits that have not ended says where that is too few.

    Args:
        replay: The training episodes.
    """
    return min(max(round(50 * steps_ahead(replay)), LEAST_UPDATES), 50_000)


def steps_ahead(replay: Replay) -> float:
    """How far the discount looks: 1 / (1 - discount) steps, and with a discount of 1 those of the longest episode.

    Args:
        replay: The training episodes.
    """
    discount = replay.config.discount
    if discount < 1:
        return 1 / (1 - discount)
    _, lengths = np.unique(replay.store.segment_end[replay.rows], return_counts=True)
    return float(lengths.max())


def default_learner(
    steps: float, updates: int, learning_rate: float = 5e-4, precision: Precision = "fp32"
) -> LearnerConfig:
    """How fitted Q evaluation is trained, so that its target network moves far enough in so many updates.

    A value is known at most as many steps ahead as the target network has moved after the online one. What lies
    6 * `steps_ahead` away is worth 0.25 % of what lies at hand, so that many moves are made, of a share of
    6 * `steps_ahead` / updates each: 0.12 in 5,000 updates with a discount of 0.99.

    Args:
        steps: `steps_ahead`; 1 for what has no targets that move.
        updates: That are made.
        learning_rate: Of the optimiser.
        precision: Of the networks.
    """
    share = min(max(round(6 * steps / updates, 6), 0.005), 0.5)
    return LearnerConfig(
        learning_rate=learning_rate,
        polyak=share,
        average_decay=0.99,
        # Nothing is settled by measuring: the same seed gives the same values.
        precision=precision,
        compile="off",
        threads=torch.get_num_threads(),
    )
