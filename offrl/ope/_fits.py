"""Fits of fitted Q evaluation: held-out steps with what each fit says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from offrl.ope._parts import BehaviourFound, Fitting, Parts
from offrl.ope._weighing import steps_of
from offrl.ope.config import OpeConfig
from offrl.ope.episodes import Episodes
from offrl.ope.estimators import direct_method
from offrl.ope.fitted_q import FittedQ, fit_q_again
from offrl.ope.fitted_values import FittedValues, fitting_gap, read
from offrl.ope.fitting import default_learner, enough_updates, steps_ahead
from offrl.ope.policy_table import PolicyTable
from offrl.ope.steps import Steps
from offrl.replay import Replay


def fits_of(
    at_training: Mapping[str | None, PolicyTable],
    at_held_out: Mapping[str | None, PolicyTable],
    parts: Parts,
    behaviour: BehaviourFound,
    config: OpeConfig,
    fitting: Fitting,
) -> dict[str | None, list[Steps]]:
    """The held-out steps with each fit's values, by policy."""
    fits: dict[str | None, list[Steps]] = {name: [] for name in at_training}
    chosen = [*at_training]
    for number in range(config.refits):
        if number == 1 and config.refit_best is not None:
            of_first = {name: float(direct_method(each)[0]) for name, (each,) in fits.items()}
            ranked = sorted((name for name in chosen if name is not None), key=of_first.__getitem__, reverse=True)
            best = {None, *ranked[: config.refit_best]}
            chosen = [name for name in chosen if name in best]
        model = _fitted([at_training[name] for name in chosen], parts.train, config, number, fitting)
        values = read(model, parts.held_out, [at_held_out[name] for name in chosen])
        for index, name in enumerate(chosen):
            plain = steps_of(at_held_out[name], parts, behaviour)
            fits[name].append(_with_values(plain, values, index, parts.episodes))
    return fits


def updates_of(train: Replay, config: OpeConfig) -> int:
    return config.updates or enough_updates(train)


def gap_of(fits: Sequence[Steps]) -> float:
    """By how much the mean of the fits' values is off, as held-out steps show it; 0 without any."""
    return float(np.mean([fitting_gap(each) for each in fits])) if fits else 0.0


def _fitted(tables: Sequence[PolicyTable], train: Replay, config: OpeConfig, number: int, fitting: Fitting) -> FittedQ:
    """Fitted Q of all policies: on the training episodes, or in a refit on as many that are drawn from them."""
    updates = updates_of(train, config)
    return fit_q_again(
        {str(index): table for index, table in enumerate(tables)},
        train,
        updates,
        number,
        config.refits,
        seed=config.seed,
        batch_size=config.batch_size,
        learner=default_learner(steps_ahead(train), updates, config.learning_rate, config.precision),
        encoder=fitting.encoder,
        device=fitting.device,
        run=fitting.run(f"fitted-q-{number + 1}", updates),
        progress=fitting.progress,
    )


def _with_values(plain: Steps, values: FittedValues, policy: int, episodes: Episodes) -> Steps:
    """The steps with what one fit says of the policy with this number among its own."""
    return replace(
        plain,
        q=episodes.pad(values.q[policy]),
        value=episodes.pad(values.value[policy]),
        end_value=values.end_value[policy],
    )
