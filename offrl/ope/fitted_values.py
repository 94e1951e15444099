"""What fitted Q evaluation says of the episodes of a replay, and whether the fit has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offrl.ope.fitted_q import FittedQ
from offrl.ope.looked_up import read_values
from offrl.ope.policy_table import PolicyTable, require_part
from offrl.ope.steps import Steps
from offrl.replay import Replay


@dataclass(frozen=True)
class FittedValues:
    """What fitted Q evaluation says of N transitions in E episodes, for P policies.

    Attributes:
        q: float64 [P, N], Q(s, a) of the logged actions.
        value: float64 [P, N], V(s), the sum over a of pi(a|s) Q(s, a).
        end_value: float64 [P, E], V of what each episode's last step led to; 0 where it terminated.
    """

    q: NDArray[np.float64]
    value: NDArray[np.float64]
    end_value: NDArray[np.float64]


def read(model: FittedQ, replay: Replay, tables: Sequence[PolicyTable]) -> FittedValues:
    """The fitted values on the episodes of a replay, its held-out part say.

    Args:
        model: Of as many policies as there are tables.
        replay: The episodes.
        tables: What each policy does there.

    Raises:
        ConfigError: Tables of another part of the data.
    """
    require_part(tables, replay, "read.tables")
    store, rows = replay.store, replay.rows
    action = store.actions[rows]
    q = np.empty((len(tables), len(rows)))
    value = np.empty((len(tables), len(rows)))
    for part, found in read_values(model, store.observations, rows):
        q[:, part] = found[np.arange(len(found)), :, action[part]].T
        for number, table in enumerate(tables):
            value[number, part] = (table.current[part] * found[:, number]).sum(axis=1)
    last = np.flatnonzero(store.segment_end[rows] == rows)
    end_value = np.zeros((len(tables), len(last)))
    cut = np.flatnonzero(~store.terminated[rows[last]])
    for part, found in read_values(model, store.next_observations, rows[last[cut]]):
        for number, table in enumerate(tables):
            end_value[number, cut[part]] = (table.following[last[cut[part]]] * found[:, number]).sum(axis=1)
    return FittedValues(q, value, end_value)


def fitting_gap(steps: Steps) -> float:
    """By how much values are off as held-out steps show it: because the fit has not ended, or does not carry over.

    A fitted Q that has converged is right on average by its own equation: the mean of r + discount * V(s') - Q(s, a) is
    0. Where Q still grows towards its values the mean is positive. What is missing is that mean for each step to come,
    discounted: for an episode of L steps (1 - discount**L) / (1 - discount) times the mean, and 1 / (1 - discount)
    times where the log cuts it; the mean over the episodes counts. For bandit data it is the mean itself.

    Args:
        steps: With the model's values.

    Returns:
        What is missing, in units of returns; 0 where it is within two standard errors (over episodes) of 0.
    """
    assert steps.q is not None
    assert steps.value is not None
    if len(steps) < 2:
        return 0.0
    following = np.pad(steps.value[:, 1:], ((0, 0), (0, 1)))
    is_cut = np.zeros(len(steps), np.bool_)
    if steps.end_value is not None:
        following[np.arange(len(steps)), steps.length - 1] = steps.end_value
        is_cut = steps.end_value != 0
    errors = np.where(steps.is_running, steps.reward + steps.discount * following - steps.q, 0.0)
    sums = errors.sum(axis=1)
    mean = sums.sum() / steps.length.sum()
    deviation = np.sqrt(np.sum((sums - mean * steps.length) ** 2)) / steps.length.sum()
    if abs(mean) < 2 * deviation:
        return 0.0
    to_come = np.cumsum(steps.discounts)[steps.length - 1]
    if steps.discount < 1:
        to_come = np.where(is_cut, 1 / (1 - steps.discount), to_come)
    return float(mean * to_come.mean())
