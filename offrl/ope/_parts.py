"""What an estimate starts from: both parts of the data, and how probable the logged actions were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from offrl.errors import ConfigError, RunError
from offrl.networks import EncoderFactory
from offrl.ope.behaviour import fit_behaviour, logged_behaviour, num_legal_actions, require_apart
from offrl.ope.config import OpeConfig
from offrl.ope.episodes import Episodes
from offrl.ope.fitting import LEAST_UPDATES
from offrl.replay import Replay
from offrl.runs.files import read_run_config
from offrl.training import LearnerConfig

_COUNTS = 0.01
"""Of what comes after an episode, discounted: the mean over all episodes."""

_LEAST_PROBABILITY = 1e-3
"""Of a logged action, as fitted: no weight is above one over it."""
_LEAST_SHARE = 0.1
"""Of what each action had if all were equally likely; with more than 100 actions that is less."""
_ASKED_FOR = 0.99
"""The share of certain episodes up to which logged probabilities are taken where they are asked for."""


class Parts(NamedTuple):
    """The data, in single steps with rewards as logged."""

    train: Replay
    held_out: Replay
    episodes: Episodes
    discount: float

    @property
    def num_cut(self) -> int:
        """Held-out episodes that the log cuts, where what would have come after them counts; else 0."""
        is_cut = ~self.episodes.terminated
        share = float(np.mean(is_cut * self.discount**self.episodes.length))
        return int(is_cut.sum()) if share > _COUNTS else 0


class BehaviourFound(NamedTuple):
    probability: NDArray[np.float64]
    """[N], of the logged actions."""
    all_actions: NDArray[np.float32] | None
    """[N, A]; None where only those of the logged actions are known."""
    source: str
    warnings: tuple[str, ...]


def parts_of(replay: Replay, config: OpeConfig) -> Parts:
    """Both parts of a replay's split.

    Raises:
        ConfigError: No held-out episodes.
    """
    held_out = replay.held_out() if isinstance(replay, Replay) else None
    if held_out is None and isinstance(replay, Replay) and replay.config.part == "held_out":
        raise ConfigError(
            "the held-out episodes alone",
            where="estimate.replay",
            expected="the whole replay: models are fitted on its training episodes",
            hint="pass the replay that you called held_out() of",
        )
    if held_out is None:
        raise ConfigError(
            "no held-out episodes",
            where="estimate.replay",
            expected="a Replay over a store, of which some episodes are held out",
            hint="open_replay(..., held_out=0.2); values read where models were fitted would flatter them",
        )
    discount = replay.config.discount if config.discount is None else config.discount
    plain: dict[str, Any] = {
        "n_step": 1,
        "reward_clip": None,
        "reward_scale": 1.0,
        "sampling": "uniform",
        "include": (),
        "legal_actions": None,
    }
    train, test = (Replay(part.store, replace(part.config, discount=discount, **plain)) for part in (replay, held_out))
    require_apart(train, test)
    return Parts(train, test, Episodes.of(test), discount)


class Fitting(NamedTuple):
    """What all fits of an estimate share."""

    encoder: EncoderFactory
    device: str
    directory: Path | None
    progress: bool | None

    def run(self, name: str, updates: int) -> Path | None:
        """Where the fit of that name is kept; None keeps nothing.

        Raises:
            RunError: It is there, of another number of updates: the others there would not fit it any more.
        """
        if self.directory is None:
            return None
        run = self.directory / name
        if (run / "config.json").exists():
            fit = read_run_config(run).get("fit")
            made = fit.get("updates") if isinstance(fit, Mapping) else None
            if made != updates:
                raise RunError(
                    f"a fit of {made} updates", where=run, expected=f"{updates}", hint="name a new directory"
                )
        return run


def behaviour_of(parts: Parts, config: OpeConfig, fitting: Fitting) -> BehaviourFound:
    """The behaviour's probabilities at the held-out transitions."""
    reason = "asked for"
    if config.behaviour != "fitted":
        certain = {"most_certain": _ASKED_FOR} if config.behaviour == "logged" else {}
        logged = logged_behaviour(parts.held_out, **certain)
        if logged.probability is not None:
            return BehaviourFound(logged.probability, None, "logged", logged.doubts)
        reason = str(logged.reason)
        if config.behaviour == "logged":
            raise ConfigError(
                f"logged probabilities that say nothing: {reason}",
                where="OpeConfig.behaviour",
                expected="those of a behaviour that explores",
                hint="take fitted ones, or put the episodes that have probabilities into a dataset of their own",
            )
    updates = config.updates or LEAST_UPDATES
    fitted = fit_behaviour(
        parts.train,
        parts.held_out,
        updates=updates,
        batch_size=config.batch_size,
        seed=config.seed,
        floor=min(_LEAST_PROBABILITY, _LEAST_SHARE / int(num_legal_actions(parts.held_out).max())),
        learner=LearnerConfig(precision=config.precision, compile="off", threads=torch.get_num_threads()),
        device=fitting.device,
        encoder=fitting.encoder,
        run=fitting.run("behaviour", updates),
        progress=fitting.progress,
    )
    return BehaviourFound(
        fitted.probability, fitted.probabilities, f"fitted, not logged ({reason})", (f"{str(fitted).capitalize()}.",)
    )
