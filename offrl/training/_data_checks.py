"""What the data cannot teach, said before training: nothing of it stops a run, and none of it shows in a loss."""

from __future__ import annotations

import warnings

import numpy as np

from offrl.algorithms.algorithm import Algorithm
from offrl.errors import DatasetError
from offrl.replay._features import named
from offrl.replay.source import Contents
from offrl.spec import TaskSpec

_MOST_NAMES = 3


def check_data(algorithm: Algorithm, contents: Contents, *, warn: bool = True) -> None:
    """Warns of what cannot be learned from the data, a line each.

    Args:
        algorithm: That is to be trained.
        contents: What its replay draws from.
        warn: Whether to say anything; of several ranks one does, and all raise.

    Raises:
        DatasetError: The algorithm learns nothing at all from it.
    """
    if "next_action" in algorithm.needs and contents.num_terminated + contents.num_continued == 0:
        raise DatasetError(
            "no transition is followed by another one or terminates",
            where=f"the data of {algorithm.name}",
            expected="a next action, from which alone it learns",
            hint="log whole episodes, each step after the one before, or take another algorithm",
        )
    learns_values = type(algorithm).values is not Algorithm.values
    lines = [
        _never_taken(algorithm, contents),
        _equal_rewards(contents) if learns_values else None,
        _one_episode(contents),
        _large_features(contents, algorithm.spec),
    ]
    for line in filter(None, lines if warn else []):
        warnings.warn(line, stacklevel=3)


def _never_taken(algorithm: Algorithm, contents: Contents) -> str | None:
    never = np.flatnonzero(contents.legal & (contents.action_counts == 0))
    if not never.size:
        return None
    names = [repr(algorithm.spec.action_names[index]) for index in never[:_MOST_NAMES]]
    names += ["..."] if never.size > _MOST_NAMES else []
    return (
        f"{never.size} of {np.count_nonzero(contents.legal)} legal actions never occur in the data "
        f"({', '.join(names)}): no transition says what they are worth, so that algorithms which keep to the data "
        "avoid them and others, such as DQN, may overrate them; collect with more exploration, or name only the others "
        "in the replay's setting legal_actions"
    )


def _equal_rewards(contents: Contents) -> str | None:
    """Where all rewards are equal, values differ only by how soon episodes terminate; where these are 0, not at all."""
    reward = contents.highest_reward
    if contents.lowest_reward != reward or (reward != 0 and contents.num_terminated > 0):
        return None
    why = "" if reward == 0 else " and no episode terminates"
    return (
        f"every reward is {reward:g}{why}: all actions are worth the same, and nothing can be learned but imitation; "
        "check that the rewards were logged, or train BC"
    )


def _one_episode(contents: Contents) -> str | None:
    if contents.num_episodes > 1:
        return None
    return (
        "all transitions to train on are of one episode: what is learned is what happened in it once; record more "
        "episodes"
    )


def _large_features(contents: Contents, spec: TaskSpec) -> str | None:
    large = None if contents.largest_features is None else named(contents.largest_features, spec)
    if large is None:
        return None
    return (
        f"{large}; networks learn from numbers of about 1, such features drown the others, and policies become poor; "
        "offrl convert DATA NEW --standardise: policies of NEW subtract each feature's mean, and divide by its "
        "standard deviation, by themselves"
    )
