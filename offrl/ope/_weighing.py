"""Held-out steps as a policy weighs them, and how much of what it does the behaviour does, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from offrl.ope._parts import BehaviourFound, Parts
from offrl.ope.behaviour import num_legal_actions, support_floor
from offrl.ope.config import OpeConfig
from offrl.ope.estimators import FITTED, PARTIAL_HISTORY, PER_DECISION, WEIGHTED, covered_share
from offrl.ope.policy_table import PolicyTable
from offrl.ope.steps import Steps, clipped, truncated
from offrl.replay import Replay


def steps_of(table: PolicyTable, parts: Parts, behaviour: BehaviourFound) -> Steps:
    """The held-out steps, weighted by how much likelier the policy takes the logged action than the behaviour does."""
    episodes = parts.episodes
    ratio = episodes.pad(_taken(table, parts.held_out) / behaviour.probability, fill=1.0)
    return Steps(episodes.reward, ratio, episodes.length, parts.discount)


class Weighed(NamedTuple):
    """The steps as one estimator reads them."""

    steps: Sequence[Steps]
    """By each fit, or once."""
    covered: float | None
    """Where weights are of the latest decisions, the share of the steps that have any."""
    is_cut: bool
    """Whether some weights are larger than `OpeConfig.clip`."""


def weighed_for(estimator: str, plain: Steps, fits: Sequence[Steps], config: OpeConfig) -> Weighed:
    """The steps, with the values of each fit where the estimator reads them, and weights as it has them."""
    steps = [*fits] if estimator in FITTED else [plain]
    covered, is_cut = None, False
    if estimator in PER_DECISION:
        steps = [truncated(each) for each in steps]
    if estimator in PARTIAL_HISTORY and config.history < steps[0].reward.shape[1]:
        steps = [replace(each, history=config.history) for each in steps]
        covered = covered_share(steps[0])
    if config.clip is not None and estimator in WEIGHTED:
        is_cut = bool((steps[0].log_weight > np.log(config.clip)).any())
        steps = [clipped(each, config.clip) for each in steps]
    return Weighed(steps, covered, is_cut)


def support_of(table: PolicyTable, parts: Parts, behaviour: BehaviourFound) -> tuple[float, float]:
    """The share of the policy's actions that the behaviour takes often enough, and what the share may be at most.

    Where the log knows the probability of its own action only, it is estimated on the steps at which the two agree:
    the mean of pi(a|s) over mu(a|s) is 1 where the behaviour takes all that the policy takes. Two standard errors above
    it, over episodes, are then still possible.
    """
    num_legal = num_legal_actions(parts.held_out)
    if (known := behaviour.all_actions) is not None:
        floor = support_floor(num_legal, known.max(axis=1))
        share = float((table.current * (known >= floor[:, None])).sum(axis=1).mean())
        return share, share
    floor = support_floor(num_legal)
    taken = _taken(table, parts.held_out)
    seen = np.where(behaviour.probability >= floor, taken / behaviour.probability, 0.0)
    share, length = float(seen.mean()), parts.episodes.length
    # Of each episode: its steps are not independent.
    excess = parts.episodes.pad(seen - share).sum(axis=1) / length.mean()
    error = float(excess.std(ddof=1)) / len(length) ** 0.5 if len(length) > 1 else 1.0
    unseen = 3 / float(floor.sum())  # where both agree nowhere: as often as that with a probability of 5 %
    return min(share, 1.0), min(max(share + 2 * error, unseen), 1.0)


def _taken(table: PolicyTable, held_out: Replay) -> NDArray[np.float64]:
    """The policy's probabilities of the logged actions. [N]."""
    action = held_out.store.actions[held_out.rows]
    taken: NDArray[np.float64] = table.current[np.arange(len(action)), action].astype(np.float64)
    return taken
