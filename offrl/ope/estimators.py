"""Off-policy estimators of a policy's value: the equations, for all resamples of a bootstrap at once.

Each maps `Steps` of E episodes to the value of the evaluated policy, float64 [R]: `counts` [R, E] says how often each
episode is in each of R resamples; None takes each episode once, and R is 1. An episode that is in a resample k times
counts as k episodes.

Notation: r_t, rho_t and w_t are reward, ratio and weight at step t, w_t = rho_0 ... rho_t (where `Steps` have a
history, at most so many of the latest ones) and w_-1 = 1, g is the discount, Q and V are the model's values, L is an
episode's length; mean and sum are over the episodes of a resample.
Weights are kept as logarithms, so that long episodes neither overflow nor underflow on the way; an estimate that itself
leaves the range of floating point is infinite.

An episode in which the policy would never have taken some logged action (ratio 0) has weight 0 from there on, with a
history for as long as that reaches: it pulls
unweighted estimates towards 0 and drops out of weighted ones. Where no episode of a resample has any weight, weighted
estimates are undefined, NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from offrl.errors import ConfigError
from offrl.ope.steps import Steps

Counts = NDArray[np.float64] | NDArray[np.int64] | None
_LARGEST_LOG = 600.0  # exp of it times any number of episodes is still a number
_LEAST_TOTAL = 1e-100  # below it a sum of weights is scaled anew: its smaller terms may be lost
_RESCALED_BY = 230.0  # a little under -log(_LEAST_TOTAL)


class Estimator(Protocol):
    """An estimator of this module, or a function of your own like it."""

    def __call__(self, steps: Steps, counts: Counts = None) -> NDArray[np.float64]:
        """The value of the evaluated policy in each resample. [R, E] -> [R]."""
        ...


def trajectory_is(steps: Steps, counts: Counts = None) -> NDArray[np.float64]:
    """Ordinary importance sampling of whole episodes: mean of w_L-1 sum_t g^t r_t (Precup et al. 2000).

    For bandit data this is inverse propensity scoring (IPS). Unbiased where the ratios are exact and the behaviour
    takes every action that the policy takes; its variance grows exponentially with the episodes' length.
    """
    return _weighted_mean(counts, steps.log_weight[:, -1:], steps.returns[:, None])


def weighted_is(steps: Steps, counts: Counts = None) -> NDArray[np.float64]:
    """Self-normalised importance sampling: sum of w_L-1 sum_t g^t r_t, over sum of w_L-1 (Precup et al. 2000).

    For bandit data this is SNIPS (Swaminathan and Joachims 2015). Consistent, of less variance, always between the
    lowest and the highest logged return, and biased towards the behaviour's value.
    """
    return _self_normalised(counts, steps.log_weight[:, -1:], steps.returns[:, None])[:, 0]


def per_decision_is(steps: Steps, counts: Counts = None) -> NDArray[np.float64]:
    """Per-decision importance sampling: mean of sum_t g^t w_t r_t (Precup et al. 2000).

    Unbiased as `trajectory_is`, with less variance: a reward is not weighted by what was done after it.
    """
    return _weighted_mean(counts, steps.log_weight, _discounted(steps, steps.reward))


def weighted_per_decision_is(steps: Steps, counts: Counts = None) -> NDArray[np.float64]:
    """Weighted per-decision importance sampling: sum_t g^t (sum of w_t r_t) / (sum of w_t).

    Normalised at each step over all episodes, the ended ones with their last weights: the consistent form of Thomas
    2015 (Safe Reinforcement Learning, CWPDIS). That of Precup et al. 2000 divides by one sum over all steps, and does
    not converge to the value.
    """
    return _sum(_self_normalised(counts, steps.log_weight, _discounted(steps, steps.reward)))


def direct_method(steps: Steps, counts: Counts = None) -> NDArray[np.float64]:
    """The model's value of the first observations: mean of V(s_0). As good as the model, whatever the log says.

    Raises:
        ConfigError: The steps have no model's values.
    """
    first_value = _needed(steps, "value")[:, 0]
    return _weighted_mean(counts, np.zeros((len(steps), 1)), first_value[:, None])


def doubly_robust(steps: Steps, counts: Counts = None) -> NDArray[np.float64]:
    """Doubly robust: mean of sum_t g^t (w_t (r_t - Q(s_t, a_t)) + w_t-1 V(s_t)) (Jiang and Li 2016, arXiv:1511.03722).

    Where the log was cut, g^L w_L-1 V(s_L) is added. Unbiased where the ratios are exact, or the model is; the better
    the model, the less variance. For bandit data: Dudik et al. 2011, arXiv:1103.4601.

    Raises:
        ConfigError: The steps have no model's values.
    """
    return _weighted_mean(counts, *_doubly_robust_terms(steps))


def weighted_doubly_robust(steps: Steps, counts: Counts = None) -> NDArray[np.float64]:
    """Weighted doubly robust: as `doubly_robust`, with w_t over the sum of w_t in place of the mean of w_t.

    Thomas and Brunskill 2016, arXiv:1604.00923. Consistent, not unbiased. At steps at which no episode has any weight
    the model's value stands: where already the first weights are 0, without a history, it is the direct method.

    Raises:
        ConfigError: The steps have no model's values.
    """
    return _sum(np.nan_to_num(_self_normalised(counts, *_doubly_robust_terms(steps)), copy=False))


def effective_sample_size(steps: Steps, counts: Counts = None) -> NDArray[np.float64]:
    """How many episodes of the policy's own the weighted ones are worth: (sum of w_L-1)^2 / sum of w_L-1^2 (Kish 1965).

    E where all weights are equal, 1 where one episode outweighs all others, 0 where none has any. With a limited
    history other episodes have weight at other steps: there an episode's weight is the sum over t of g^t times its
    share of the weights at t. [R].
    """
    given = _given(counts, len(steps))
    if steps.history is not None:
        weight = np.array([_shares(steps, each) for each in given])
    else:
        log_weight = np.where(given > 0, steps.log_weight[:, -1], -np.inf)
        weight = np.exp(log_weight - _largest(log_weight, axis=1))
    total = (given * weight).sum(axis=1)
    squares = (given * weight**2).sum(axis=1)
    size: NDArray[np.float64] = np.divide(total**2, squares, out=np.zeros(len(given)), where=squares > 0)
    return size


def covered_share(steps: Steps) -> float:
    """The share of the steps, discounted, at which some episode has weight: elsewhere a model's value stands alone.

    An ended episode that keeps its weight counts: it says that the policy's episodes end there, too.
    """
    is_covered = np.isfinite(steps.log_weight).any(axis=0)
    return float(steps.discounts[:-1] @ is_covered / steps.discounts[:-1].sum())


def _shares(steps: Steps, count: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each episode in one resample, over all steps: sum over t of g^t w_t over the sum of w_t. [E]."""
    log_weight = np.where(count[:, None] > 0, steps.log_weight, -np.inf)
    weight = np.exp(log_weight - _largest(log_weight, axis=0))
    total = count @ weight  # 1 or more, where there is any weight
    found: NDArray[np.float64] = weight @ np.where(total > 0, steps.discounts[:-1] / np.maximum(total, 1.0), 0.0)
    return found


def _largest(log_weight: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Of each row or column; 0 where all weights are 0."""
    largest: NDArray[np.float64] = log_weight.max(axis=axis, keepdims=True)
    return np.where(np.isneginf(largest), 0.0, largest)


def _doubly_robust_terms(steps: Steps) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The logarithms of weights and what they weigh: T errors of the model, T + 1 values. Both [E, 2 T + 1]."""
    q, value = _needed(steps, "q"), _needed(steps, "value")
    values = np.pad(value, ((0, 0), (0, 1)))
    if steps.end_value is not None:
        values[np.arange(len(steps)), steps.length] = steps.end_value
    errors = _discounted(steps, steps.reward - q)
    log_before = np.pad(steps.log_weight, ((0, 0), (1, 0)))
    return (
        np.concatenate([steps.log_weight, log_before], axis=1),
        np.concatenate([errors, values * steps.discounts], axis=1),
    )


def _discounted(steps: Steps, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values * steps.discounts[:-1]


def _needed(steps: Steps, name: str) -> NDArray[np.float64]:
    found: NDArray[np.float64] | None = getattr(steps, name)
    if found is None:
        raise ConfigError(
            "no values of a model",
            where=f"Steps.{name}",
            expected="Q and V of the policy for this estimator",
            hint="fit them, or use importance sampling",
        )
    return found


def _given(counts: Counts, num_episodes: int) -> NDArray[np.float64]:
    """The counts [R, E]."""
    return np.ones((1, num_episodes)) if counts is None else np.asarray(counts, np.float64)


def _sum(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """[R, K] -> [R]."""
    found: NDArray[np.float64] = terms.sum(axis=1)
    return found


def _weighted_mean(counts: Counts, log_weight: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the episodes of sum_k w_k value_k. [E, K] -> [R]."""
    given = _given(counts, len(value))
    mean: NDArray[np.float64]
    if log_weight.max() <= _LARGEST_LOG:
        mean = given @ _sum(np.exp(log_weight) * value) / given.sum(axis=1)
        return mean
    # A weight may be too large for a float and its term be none, because what it weighs is 0.
    with np.errstate(divide="ignore"):
        log_term = log_weight + np.log(np.abs(value))
    # Each resample has a scale of its own: an episode that is not in it must not move what is.
    largest = np.where(given > 0, log_term.max(axis=1), -np.inf).max(axis=1)
    scales = np.maximum(0.0, largest - _LARGEST_LOG)
    mean = np.empty(len(given))
    for scale in np.unique(scales):
        rows = scales == scale
        terms = np.sign(value) * np.exp(np.minimum(log_term - scale, _LARGEST_LOG))
        with np.errstate(over="ignore", invalid="ignore"):
            found = given[rows] @ _sum(terms) / given[rows].sum(axis=1)
            mean[rows] = np.where(found == 0, 0.0, found * np.exp(scale))
    return mean


def _self_normalised(
    counts: Counts, log_weight: NDArray[np.float64], value: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(sum of w_k value_k) / (sum of w_k) over the episodes, for each k; NaN without any weight. [E, K] -> [R, K].

    Weights are relative to the largest of all episodes. A resample that lacks the heaviest episodes may have only such
    that are 0 on that scale: it is done again on a smaller one, until all that have weight are done.
    """
    given = _given(counts, len(value))
    result = np.full((len(given), value.shape[1]), np.nan)
    has_weight = given @ np.isfinite(log_weight) > 0
    scale = log_weight.max(axis=0)
    todo = np.flatnonzero(has_weight.any(axis=0))
    while len(todo):
        # On a smaller scale only episodes that are not in the resample have weights over 1.
        weight = np.exp(np.minimum(log_weight[:, todo] - scale[todo], 0.0))
        total = given @ weight
        weighed = given @ (weight * value[:, todo])
        is_new = np.isnan(result[:, todo]) & (total >= _LEAST_TOTAL)
        result[:, todo] = np.where(is_new, weighed / np.where(is_new, total, 1.0), result[:, todo])
        scale[todo] -= _RESCALED_BY
        todo = todo[(np.isnan(result[:, todo]) & has_weight[:, todo]).any(axis=0)]
    return result


ESTIMATORS: Mapping[str, Estimator] = {
    "fqe": direct_method,
    "phdr": weighted_doubly_robust,
    "wdr": weighted_doubly_robust,
    "dr": doubly_robust,
    "wpdis": weighted_per_decision_is,
    "pdis": per_decision_is,
    "wis": weighted_is,
    "is": trajectory_is,
}
"""By the names that the field uses; FQE is the direct method with the values of fitted Q evaluation.

PHDR, partial-history doubly robust, is WDR on steps with a limited history: importance weights of the latest decisions
only are those of Hu and Wager 2023, arXiv:2110.12343, for where observations do not show all of the state. With a
history as long as the longest episode it is WDR, and at steps that no window of agreement ends at the model stands.
"""
PARTIAL_HISTORY = frozenset({"phdr"})
FITTED = frozenset({"fqe", "phdr", "wdr", "dr"})
"""Those that read values of fitted Q evaluation."""
WEIGHTED = frozenset(ESTIMATORS) - {"fqe"}
"""Those that read the behaviour's probabilities."""
PER_DECISION = WEIGHTED - {"is", "wis"}
"""Those of them that weigh each step by itself."""
