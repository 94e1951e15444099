"""How well probabilities fit what happened, and the temperature that makes them fit better."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LARGEST_TEMPERATURE = 20.0
_NUM_HALVINGS = 40


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities; logits of -inf give 0. [N, A] -> [N, A]."""
    found: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    return found


def negative_log_likelihood(probabilities: NDArray[np.float64], action: NDArray[np.int64]) -> float:
    """Mean of -log p(a), in nats. [N, A], [N]."""
    taken = probabilities[np.arange(len(action)), action]
    return float(-np.log(np.maximum(taken, np.finfo(np.float64).tiny)).mean())


def expected_calibration_error(
    probabilities: NDArray[np.float64], action: NDArray[np.int64], num_bins: int = 15
) -> float:
    """How far the likeliest action's probability is from how often it was taken (Guo et al. 2017, equation 3).

    Transitions are put into bins of equal width by that probability; the mean over bins, weighted by their sizes, of
    |share taken - mean probability|. In [0, 1].

    Args:
        probabilities: [N, A].
        action: [N], as logged.
        num_bins: 15, as in the paper.
    """
    confidence = probabilities.max(axis=1)
    error = (probabilities.argmax(axis=1) == action) - confidence
    bins = np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)
    return float(np.abs(np.bincount(bins, weights=error, minlength=num_bins)).sum() / len(action))


def fit_temperature(logits: NDArray[np.float64], action: NDArray[np.int64]) -> float:
    """The temperature T in [1/20, 20] at which softmax(logits / T) has the least negative log likelihood.

    It is convex in 1/T, and its slope there, mean of E[logit] - logit of the action, vanishes at the minimum: found by
    bisection (Guo et al. 2017, arXiv:1706.04599, section 4.2).

    Args:
        logits: [N, A], -inf for illegal actions.
        action: [N], as logged.
    """
    finite = np.where(np.isneginf(logits), 0.0, logits)  # where the probability is 0
    taken = finite[np.arange(len(action)), action].mean()

    def slope(log_temperature: float) -> float:
        expected = (softmax(logits / np.exp(log_temperature)) * finite).sum(axis=1).mean()
        return float(expected - taken)

    if slope(0.0) == 0:  # such as logits that are all equal: every temperature is as good
        return 1.0
    low, high = -np.log(_LARGEST_TEMPERATURE), np.log(_LARGEST_TEMPERATURE)
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        # More than 0: a little less sure would do better.
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return float(np.exp((low + high) / 2))
