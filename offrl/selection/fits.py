"""What `rank` fits on the training episodes, for all candidates in one pass each."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.checks import Checks
from offrl.networks import EncoderFactory, default_encoder
from offrl.ope.behaviour import fit_behaviour
from offrl.ope.fitted_q import FittedQ, fit_q_again
from offrl.ope.fitting import LEAST_UPDATES, default_learner, enough_updates
from offrl.ope.looked_up import read_values
from offrl.replay import Replay
from offrl.selection.bellman import fit_backups
from offrl.selection.criteria import Model, one_step_backup
from offrl.selection.reading import Fitted, Log, Reading


@dataclass(frozen=True)
class FittingConfig:
    """How the models of a ranking are fitted, see `offrl.selection.rank`.

    Attributes:
        updates: Of each model; None takes `enough_updates` for fitted Q evaluation and 5,000 for the others.
        seed: Of each model's first weights and batches: the same seed gives the same ranking.
        refits: How often fitted Q evaluation is fitted anew, each time on training episodes drawn again but for the
            first; its values are the mean of theirs. One fit alone ranks by its own errors as well.
        batch_size: Of an update.
        discount: Of fitted Q evaluation, in [0, 1]; None takes the replay's. A larger one tells long episodes apart.
        encoder: Of the observations.
        device: Where to train.
    """

    updates: int | None = None
    seed: int = 0
    refits: int = 3
    batch_size: int = 256
    discount: float | None = None
    encoder: EncoderFactory = default_encoder
    device: str = "auto"

    def __post_init__(self) -> None:
        checks = Checks(self)
        for name in ("refits", "batch_size", *(() if self.updates is None else ("updates",))):
            checks.whole(name, least=1)
        checks.whole("seed", least=0)
        if self.discount is not None:
            checks.number("discount", "a number in [0, 1], or None", lambda discount: 0 <= discount <= 1)

    def updates_of(self, model: Model, train: Replay) -> int:
        """Of one model, on these episodes."""
        if self.updates is not None:
            return self.updates
        return enough_updates(self.discounted(train)) if model == "q" else LEAST_UPDATES

    def discounted(self, replay: Replay) -> Replay:
        """The replay with the discount of fitted Q evaluation."""
        if self.discount is None:
            return replay
        return Replay(replay.store, replace(replay.config, discount=self.discount))


@dataclass(frozen=True)
class Fits:
    """Fitted models, read on the held-out part, for K policies.

    Attributes:
        backups: float64 [N, K], see `Fitted.backup`.
        first_q: float64 [E, K, A].
        behaviour: float32 [N, A].
    """

    backups: NDArray[np.float64] | None = None
    first_q: NDArray[np.float64] | None = None
    behaviour: NDArray[np.float32] | None = None

    def of(self, policy: int) -> Fitted:
        """What they say for one of the policies."""
        return Fitted(
            backup=None if self.backups is None else self.backups[:, policy],
            first_q=None if self.first_q is None else self.first_q[:, policy],
            behaviour=self.behaviour,
        )


def fit_models(
    models: Collection[Model],
    readings: Iterable[Reading],
    train: Replay,
    held_out: Replay,
    config: FittingConfig,
    progress: bool | None = None,
) -> Fits:
    """Fits on the training part what criteria need, and reads it on the held-out part.

    Args:
        models: Which.
        readings: What each policy says of the training part, with values where "backups" are asked for; not looked at
            for "behaviour" alone.
        train: The training part.
        held_out: The held-out part.
        config: How.
        progress: Whether to show bars; None shows them on a terminal only.
    """
    backups: dict[str, NDArray[np.float32]] = {}
    following: dict[str, NDArray[np.int16]] = {}
    if {"backups", "q"} & {*models}:
        log = Log.of(train)
        # Of each reading only what is learned from stays in memory.
        for number, reading in enumerate(readings):
            if "backups" in models:
                backups[str(number)] = one_step_backup(reading, log).astype(np.float32)
            if "q" in models:
                following[str(number)] = reading.next_action.astype(np.int16)
    how: dict[str, Any] = {
        "encoder": config.encoder,
        "seed": config.seed,
        "device": config.device,
        "progress": progress,
    }
    found_backups = found_q = found_behaviour = None
    if "backups" in models:
        regression = fit_backups(
            backups, train, config.updates_of("backups", train), batch_size=config.batch_size, **how
        )
        found_backups = regression.read(held_out)
    if "q" in models:
        discounted, updates = config.discounted(train), config.updates_of("q", train)
        found_q = np.mean(
            [
                _first_q(
                    fit_q_again(
                        following, discounted, updates, number, config.refits, batch_size=config.batch_size, **how
                    ),
                    held_out,
                )
                for number in range(config.refits)
            ],
            axis=0,
        )
    if "behaviour" in models:
        updates = config.updates_of("behaviour", train)
        learner = default_learner(1, updates)
        behaviour = fit_behaviour(
            train, held_out, updates=updates, batch_size=config.batch_size, learner=learner, **how
        )
        found_behaviour = behaviour.probabilities
    return Fits(found_backups, found_q, found_behaviour)


def _first_q(model: FittedQ, replay: Replay) -> NDArray[np.float64]:
    """The q of all policies at the first observation of each episode. [E, K, A]."""
    rows = replay.rows[Log.of(replay).is_first]
    return np.concatenate([found for _, found in read_values(model, replay.store.observations, rows)])
