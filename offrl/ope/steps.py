"""What estimators read of held-out episodes: rewards, importance ratios and, where there is a model, its values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.checks import Checks, is_number
from offrl.errors import ConfigError


@dataclass(frozen=True)
class Steps:
    """E episodes of up to T steps, as the estimators read them.

    Whatever the arrays hold after the end of an episode is replaced: an ended episode counts as staying in an
    absorbing state, with reward 0, values 0 and ratio 1, so that it keeps its last weight and all episodes have the
    same T steps (the convention of Thomas and Brunskill 2016, arXiv:1604.00923). Weighted estimators depend on it.

    Attributes:
        reward: float64 [E, T].
        ratio: float64 [E, T], pi(a|s) / mu(a|s) of the logged action: of the evaluated policy's probability to the
            behaviour's. 0 where the policy never takes it: from there on, or for a history's length, the episode has
            weight 0.
        length: int64 [E], in steps, 1 to T.
        discount: Per step, in [0, 1].
        q: float64 [E, T], a model's Q(s, a) of the logged actions, or None.
        value: float64 [E, T], the model's V(s) = sum over a of pi(a|s) Q(s, a), or None.
        end_value: float64 [E], V of what the last step led to where the log was cut, and 0 where the episode
            terminated; None takes 0 everywhere: a cut is then an end, which is right where the time limit is part of
            the task.
        history: How many ratios, the latest ones, a weight is the product of; None for all.
        largest_weight: What larger weights are cut to; None cuts none.

    Raises:
        ConfigError: Shapes that do not fit; NaN or infinite numbers, negative ratios; a discount outside [0, 1]; a
            history under 0 or a largest weight of 0 or less.
    """

    reward: NDArray[np.float64]
    ratio: NDArray[np.float64]
    length: NDArray[np.int64]
    discount: float
    q: NDArray[np.float64] | None = None
    value: NDArray[np.float64] | None = None
    end_value: NDArray[np.float64] | None = None
    history: int | None = None
    largest_weight: float | None = None

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.number("discount", "a number in [0, 1]", lambda discount: 0 <= discount <= 1)
        if self.history is not None:
            checks.whole("history", least=0)
        if self.largest_weight is not None:
            checks.number("largest_weight", "a number over 0, or None", lambda weight: weight > 0)
        shape = np.shape(self.reward)
        if len(shape) != 2 or 0 in shape:
            raise ConfigError(f"of shape {list(shape)}", where="Steps.reward", expected="[episodes, steps]")
        length = self._array("length", shape[:1])
        if not (length >= 1).all() or not (length <= shape[1]).all():
            raise ConfigError(
                f"{length.min():g} to {length.max():g}",
                where="Steps.length",
                expected=f"1 to {shape[1]}",
            )
        object.__setattr__(self, "length", length.astype(np.int64))
        for name, after in (("reward", 0.0), ("ratio", 1.0), ("q", 0.0), ("value", 0.0)):
            if getattr(self, name) is None and name in ("q", "value"):
                continue
            found = np.where(self.is_running, self._array(name, shape), after)
            self._require_finite(name, found)
            object.__setattr__(self, name, found)
        if (self.ratio < 0).any():
            raise ConfigError(f"{self.ratio.min():g}", where="Steps.ratio", expected="0 or more")
        if self.end_value is not None:
            end_value = self._array("end_value", shape[:1])
            self._require_finite("end_value", end_value)
            object.__setattr__(self, "end_value", end_value)

    def _array(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        found = np.asarray(getattr(self, name), np.float64)
        if found.shape != shape:
            raise ConfigError(f"of shape {list(found.shape)}", where=f"Steps.{name}", expected=f"{list(shape)}")
        return found

    def _require_finite(self, name: str, found: NDArray[np.float64]) -> None:
        if not np.isfinite(found).all():
            episode = int(np.argwhere(~np.isfinite(found))[0][0])
            raise ConfigError(
                f"NaN or infinite in episode {episode}",
                where=f"Steps.{name}",
                expected="finite numbers",
                hint="fit a behaviour model where the log does not know its probabilities" if name == "ratio" else None,
            )

    def __len__(self) -> int:
        """E, the number of episodes."""
        return len(self.reward)

    @cached_property
    def is_running(self) -> NDArray[np.bool_]:
        """Which steps are of an episode that has not ended. [E, T]."""
        found: NDArray[np.bool_] = np.arange(np.shape(self.reward)[1]) < self.length[:, None]
        return found

    @cached_property
    def discounts(self) -> NDArray[np.float64]:
        """discount**t for t = 0 .. T. [T + 1]."""
        found: NDArray[np.float64] = self.discount ** np.arange(self.reward.shape[1] + 1, dtype=np.float64)
        return found

    @cached_property
    def returns(self) -> NDArray[np.float64]:
        """The logged return of each episode. [E]."""
        return self.reward @ self.discounts[:-1]

    @cached_property
    def log_weight(self) -> NDArray[np.float64]:
        """The logarithm of w_t, the product of the ratios up to and with step t; -inf for weight 0. [E, T].

        In logarithms, because the product of a thousand ratios leaves the range of floating point.
        """
        with np.errstate(divide="ignore"):
            log_ratio = np.log(self.ratio)
        if self.history is None or self.history >= log_ratio.shape[1]:
            log_weight = log_ratio.cumsum(axis=1)
        else:
            is_zero = np.isneginf(log_ratio)
            # What a window holds is the difference of two sums, but for what is infinite.
            zeros = _in_window(is_zero, self.history)
            log_weight = np.where(zeros > 0, -np.inf, _in_window(np.where(is_zero, 0.0, log_ratio), self.history))
            # The last weight of an ended episode, whose windows would else go on to ratios of 1.
            last = log_weight[np.arange(len(self)), self.length - 1]
            log_weight = np.where(self.is_running, log_weight, last[:, None])
        return log_weight if self.largest_weight is None else np.minimum(log_weight, np.log(self.largest_weight))


_NEGLIGIBLE = 1e-6
"""A share of all that the steps hold."""


def truncated(steps: Steps) -> Steps:
    """The steps up to where hardly anything is left: rewards and values after it are, discounted, a millionth of all.

    What estimators that weigh each step by itself need: with a discount of 0 the first decision alone counts, and later
    ones neither make a weight nor leave an estimate undefined.
    """
    arrays = [each for each in (steps.reward, steps.q, steps.value) if each is not None]
    largest = np.max([np.abs(each).max(axis=0) for each in arrays], axis=0) * steps.discounts[:-1]
    left = largest[::-1].cumsum()[::-1]  # from each step on
    count = max(1, int(np.count_nonzero(left > _NEGLIGIBLE * left[0])))
    if count == steps.reward.shape[1]:
        return steps
    return replace(
        steps,
        reward=steps.reward[:, :count],
        ratio=steps.ratio[:, :count],
        length=np.minimum(steps.length, count),
        q=None if steps.q is None else steps.q[:, :count],
        value=None if steps.value is None else steps.value[:, :count],
        end_value=None if steps.end_value is None else np.where(steps.length <= count, steps.end_value, 0.0),
    )


def clipped(steps: Steps, limit: float) -> Steps:
    """The steps with weights min(limit, w_t), where w_t is a product of ratios: truncated importance sampling.

    For bandit data that is clipping each ratio. It bounds the variance and adds a bias: what the policy does much more
    often than the behaviour counts too little, so that plain estimates of rewards that are never negative become too
    low on average. A doubly robust estimate leaves that part to its model, and stays unbiased where the model's Q is
    exact (Ionides 2008, Truncated importance sampling; Su et al. 2020, arXiv:1907.09623, for bandits).

    Args:
        steps: Of any ratios.
        limit: The largest weight, over 0.

    Raises:
        ConfigError: Another limit.
    """
    if not is_number(limit) or limit <= 0:
        raise ConfigError(f"{limit!r}", where="clipped.limit", expected="a number over 0")
    before = steps.largest_weight
    return replace(steps, largest_weight=float(limit) if before is None else min(before, float(limit)))


def _in_window(values: NDArray[Any], length: int) -> NDArray[np.float64]:
    """The sum of each value and those before it, `length` at most in all. [E, T]."""
    sums = np.pad(values.cumsum(axis=1, dtype=np.float64), ((0, 0), (1, 0)))
    step = np.arange(values.shape[1])
    found: NDArray[np.float64] = sums[:, step + 1] - sums[:, np.maximum(step + 1 - length, 0)]
    return found
