"""Numbers to rank candidates by: pure functions of what a candidate says of held-out transitions and what was logged.

Here q, V and pi are the candidate's: V(s) = q(s, pi(s)). All that are squared are in squared units of the logged
rewards, the other values in units of the rewards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from offrl.errors import DatasetError
from offrl.ope.behaviour import support_floor
from offrl.selection.reading import Log, Reading

Model: TypeAlias = Literal["backups", "q", "behaviour"]
"""What a criterion needs fitted: see the attributes `backup`, `first_q` and `behaviour` of `Fitted`."""


@dataclass(frozen=True)
class Criterion:
    """A number to rank candidates by.

    Attributes:
        name: In tables.
        function: From what a candidate says and what was logged to the number.
        more_is_better: Whether the larger of two numbers speaks for a candidate; else the smaller does.
        needs_values: Whether it reads q: then candidates need an algorithm with values, and one discount.
        model: What `rank` fits on the training episodes for it, if anything.
        check: Raises where the log does not allow it, before any candidate is read.
    """

    name: str
    function: Callable[[Reading, Log], float]
    more_is_better: bool
    needs_values: bool
    model: Model | None = None
    check: Callable[[Log], None] | None = None


def one_step_backup(reading: Reading, log: Log) -> NDArray[np.float64]:
    """The reward + discount * V(s'), and the reward alone where the episode terminated. [N]."""
    _, next_q = reading.values()
    following = np.where(log.discount > 0, next_q[np.arange(len(next_q)), reading.next_action], 0.0)
    found: NDArray[np.float64] = log.reward + log.discount * following
    return found


def _td_error(reading: Reading, log: Log) -> float:
    """Mean of (q(s, a) - backup)**2."""
    return float(np.mean((_logged_q(reading, log) - one_step_backup(reading, log)) ** 2))


def _sbv(reading: Reading, log: Log) -> float:
    """Mean of (q(s, a) - regression(s, a))**2 (Zitovsky et al. 2023, arXiv:2302.00141, supervised Bellman validation).

    The regression of the backups estimates their mean given s and a, so that this estimates the squared Bellman error
    without the noise of rewards and transitions that is in `td_error`.
    """
    return float(np.mean((_logged_q(reading, log) - _regression(reading)) ** 2))


def _emsbe(reading: Reading, log: Log) -> float:
    """Mean of (q(s, a) - backup)**2 - (regression(s, a) - backup)**2.

    The empirical mean squared Bellman error with a learned correction: what the regression cannot explain is the noise
    of the backups, which is taken off (Antos, Szepesvari and Munos 2008, Machine Learning 71, their modified Bellman
    residual). It may be below 0.
    """
    backup = one_step_backup(reading, log)
    return float(np.mean((_logged_q(reading, log) - backup) ** 2 - (_regression(reading) - backup) ** 2))


def _initial_value(reading: Reading, log: Log) -> float:
    """Mean of V over the first observations of episodes."""
    q, _ = reading.values()
    first = np.flatnonzero(log.is_first)
    return float(np.mean(q[first, reading.action[first]]))


def _discounted_advantage(reading: Reading, log: Log) -> float:
    """Mean over episodes of the sum over t of discount**t * (q(s_t, a_t) - V(s_t)), of the logged actions.

    If q was the value of the candidate itself, this would be the behaviour's return less the candidate's (Murphy 2005,
    A generalization error for Q-learning, Journal of Machine Learning Research 6): the lower, the better is the
    candidate than the behaviour. A sum ends where the log cuts its episode.
    """
    q, _ = reading.values()
    rows = np.arange(len(q))
    advantage = _logged_q(reading, log) - q[rows, reading.action]
    first = np.flatnonzero(log.is_first)
    step = rows - np.repeat(first, np.diff(np.r_[first, len(rows)]))
    # Only an episode's last step may have another discount, of 0, and no later step reads it.
    return float(np.sum(log.discount.max() ** step * advantage) / len(first))


def _soft_opc(reading: Reading, log: Log) -> float:
    """Mean of q(s, a) over the steps of successful episodes, less that over all steps.

    Soft off-policy classification (Irpan et al. 2019, arXiv:1906.01624), with p(y = 1) = 1. An episode succeeds if its
    last reward is 1.
    """
    logged, of_successes = _logged_q(reading, log), _of_successes(log)
    if not of_successes.any():  # among episodes that are drawn again there may be none
        return float("nan")
    return float(np.mean(logged[of_successes]) - np.mean(logged))


def _require_successes(log: Log) -> None:
    """Refuses other rewards than a last 0 or 1, and data without a success.

    Raises:
        DatasetError: Soft-OPC says nothing there.
    """
    is_last = np.r_[log.is_first[1:], True]
    other = np.flatnonzero((log.reward != 0) & ~(is_last & (log.reward == 1)))
    what = None
    if len(other):
        what = f"a reward of {log.reward[other[0]]:g}" + (" as" if is_last[other[0]] else " before") + " the last one"
    elif not log.reward.any():
        what = "no held-out episode that succeeds"
    if what is not None:
        raise DatasetError(
            what,
            where="soft_opc",
            expected="episodes whose rewards are 0 but for the last one, which is 1 where they succeed",
            hint="rank by another statistic",
        )


def _agreement(reading: Reading, log: Log) -> float:
    """Share of the logged actions that the policy takes."""
    return float(np.mean(reading.action == log.action))


def _support(reading: Reading, log: Log) -> float:
    """Share of the policy's actions to which the behaviour model gives `support_floor` or more."""
    behaviour = reading.fitted.behaviour
    assert behaviour is not None
    taken = behaviour[np.arange(len(log.action)), reading.action]
    num_legal = (behaviour > 0).sum(axis=1)  # illegal actions have exactly 0
    return float(np.mean(taken >= support_floor(num_legal, behaviour.max(axis=1))))


def _fqe(reading: Reading, log: Log) -> float:
    """Mean over the first observations of episodes of the policy's value by fitted Q evaluation (`fit_q`)."""
    first_q = reading.fitted.first_q
    assert first_q is not None
    return float(np.mean(first_q[np.arange(len(first_q)), reading.action[log.is_first]]))


def _logged_q(reading: Reading, log: Log) -> NDArray[np.float64]:
    q, _ = reading.values()
    found: NDArray[np.float64] = q[np.arange(len(q)), log.action]
    return found


def _regression(reading: Reading) -> NDArray[np.float64]:
    assert reading.fitted.backup is not None
    return reading.fitted.backup


def _of_successes(log: Log) -> NDArray[np.bool_]:
    first = np.flatnonzero(log.is_first)
    ends = np.r_[first[1:], len(log.reward)]
    found: NDArray[np.bool_] = np.repeat(log.reward[ends - 1] == 1, ends - first)
    return found


CRITERIA = {
    each.name: each
    for each in (
        Criterion("td_error", _td_error, more_is_better=False, needs_values=True),
        Criterion("initial_value", _initial_value, more_is_better=True, needs_values=True),
        Criterion("agreement", _agreement, more_is_better=True, needs_values=False),
        Criterion("discounted_advantage", _discounted_advantage, more_is_better=False, needs_values=True),
        Criterion("soft_opc", _soft_opc, more_is_better=True, needs_values=True, check=_require_successes),
        Criterion("sbv", _sbv, more_is_better=False, needs_values=True, model="backups"),
        Criterion("emsbe", _emsbe, more_is_better=False, needs_values=True, model="backups"),
        Criterion("support", _support, more_is_better=True, needs_values=False, model="behaviour"),
        Criterion("fqe", _fqe, more_is_better=True, needs_values=False, model="q"),
    )
}
"""By name.

| name | what it is | better |
|---|---|---|
| `td_error` | mean squared difference of q(s, a) to reward + discount * q(s', policy's action) | less |
| `initial_value` | mean of q(s, policy's action) over the first observations of episodes | more |
| `agreement` | share of logged actions that the policy takes | more |
| `discounted_advantage` | mean over episodes of the sum of discount**t * (q(s, a) - q(s, policy's action)) | less |
| `soft_opc` | mean of q(s, a) over successful episodes, less that over all; only if rewards are success or not | more |
| `sbv` | mean squared difference of q(s, a) to a regression of the policy's one-step backups | less |
| `emsbe` | `td_error` less the mean squared difference of that regression to the backups | less |
| `support` | share of the policy's actions that a model of the behaviour takes, too, see `support_floor` | more |
| `fqe` | mean value of the policy at the first observations of episodes, by fitted Q evaluation | more |

The last four need models, fitted on the training episodes.
"""
