"""Intervals of an estimate: the bootstrap over whole episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from offrl.checks import is_whole
from offrl.errors import ConfigError
from offrl.ope.estimators import Estimator, direct_method
from offrl.ope.steps import Steps
from offrl.statistics import LEAST_VALUES, Interval, t_quantile

_MOST_COUNTS = 4_000_000  # in one slice of resamples, or of terms for each step of them: arrays of 32 MB


class Estimate(NamedTuple):
    """What a policy is worth, and how sure that is.

    Attributes:
        value: Of the evaluated policy, per episode.
        behaviour: The mean return of the same episodes as they were logged, or what fitted values say of it.
        difference: Value minus behaviour; its interval is paired: both are of the same resamples.
        undefined: Resamples in which the estimate is NaN or infinite. One is enough for an interval to be left out.
            NaN is a resample that holds no episode that the policy could have produced.
        infinite: Those of them in which it leaves the range of floating point.
    """

    value: Interval
    behaviour: Interval
    difference: Interval
    undefined: int
    infinite: int = 0

    def without_intervals(self) -> Estimate:
        """Where too few episodes count to say how sure the value is."""
        return self._replace(value=_unsure(self.value), difference=_unsure(self.difference))

    def widened_by(self, correction: float, behaviour: float = 0.0) -> Estimate:
        """With intervals that hold the corrected values, too: what they may be off beside what varies.

        Args:
            correction: Of the value.
            behaviour: Of the behaviour's value, where that is fitted, too: either may be off, or both.
        """
        either = (correction, -behaviour, correction - behaviour)
        return self._replace(
            value=_reaching(self.value, correction),
            behaviour=_reaching(self.behaviour, behaviour),
            difference=_reaching(self.difference, *either),
        )


def bootstrap(
    estimator: Estimator,
    steps: Steps | Sequence[Steps],
    resamples: int = 1000,
    seed: int = 0,
    *,
    behaviour: Sequence[Steps] | None = None,
) -> Estimate:
    """An estimate with its 95 % percentile bootstrap interval over episodes (Efron 1979).

    The interval says how much the estimate varies from log to log. Where a model was fitted several times it is wider
    by how much the fits differ: their standard deviation times Student's t for so many fits, added in quadrature to
    each side; what differs from fit to fit does so from log to log. It does not know of what all fits have wrong, nor
    of errors of fitted behaviour probabilities, and where the effective sample size is a few episodes it is much too
    narrow: what the log does not hold is in no resample. Under five episodes there is none. The same seed draws the
    same resamples for every estimator.

    The difference compares like with like only where both count the same steps. Where logs are cut, values of a model
    reach beyond the cut and returns do not: compare them with values of the behaviour by the same fits.

    Args:
        estimator: One of `offrl.ope.estimators`.
        steps: Of E episodes; or several of the same episodes with the values of one fit each: the value is the mean
            of theirs, and the resamples take them in turn.
        resamples: How often E episodes are drawn with replacement, 2 or more.
        seed: Seed of the draws.
        behaviour: The steps with the behaviour's own values, by the same fits; None takes its returns.

    Raises:
        ConfigError: Fewer resamples; steps without what the estimator needs, or not of the same episodes; another
            number of fits of the behaviour.
    """
    if not is_whole(resamples) or resamples < 2:
        raise ConfigError(f"{resamples!r}", where="bootstrap.resamples", expected="2 or more, a whole number")
    fits = [steps] if isinstance(steps, Steps) else [*steps]
    if not fits:
        raise ConfigError("no steps", where="bootstrap.steps", expected="those of one fit or more")
    size = len(fits[0])
    _require_alike("bootstrap.steps", fits, len(fits), size)
    if behaviour is not None:
        _require_alike("bootstrap.behaviour", behaviour, len(fits), size)
    generator = np.random.default_rng(seed)
    of_fits = np.array([float(estimator(fit)[0]) for fit in fits])
    logged = (
        [partial(_mean_return, fit) for fit in fits]
        if behaviour is None
        else [partial(direct_method, each) for each in behaviour]
    )
    own_of_fits = np.array([float(own(None)[0]) for own in logged])
    found, own = float(of_fits.mean()), float(own_of_fits.mean())
    values, means = [], []
    at_once = max(1, _MOST_COUNTS // max(fits[0].reward.shape))
    for number, fit in enumerate(fits):
        share = len(range(number, resamples, len(fits)))
        for start in range(0, share, at_once):
            counts = _draw(generator, min(at_once, share - start), size)
            values.append(estimator(fit, counts) + _shift(of_fits, number))
            means.append(logged[number](counts) + _shift(own_of_fits, number))
    value, behaved = np.concatenate(values), np.concatenate(means)
    return Estimate(
        value=_interval(found, value, size, _spread(of_fits)),
        behaviour=_interval(own, behaved, size, _spread(own_of_fits)),
        difference=_interval(found - own, value - behaved, size, _spread(of_fits - own_of_fits)),
        undefined=int((~np.isfinite(value)).sum()),
        infinite=int(np.isinf(value).sum()),
    )


def _require_alike(where: str, fits: Sequence[Steps], num_fits: int, num_episodes: int) -> None:
    if len(fits) != num_fits:
        raise ConfigError(f"{len(fits)} Steps", where=where, expected=f"{num_fits}, one for each fit")
    for fit in fits:
        if len(fit) != num_episodes:
            raise ConfigError(
                f"{len(fit):,} episodes", where=where, expected=f"{num_episodes:,}, the same ones in each fit"
            )


def _shift(of_fits: NDArray[np.float64], number: int) -> float:
    """From a fit's value to the mean of theirs; NaN where one has none, or an infinite one."""
    if len(of_fits) < 2:
        return 0.0
    return float(of_fits.mean() - of_fits[number]) if np.isfinite(of_fits).all() else math.nan


def _spread(of_fits: NDArray[np.float64]) -> float:
    """How far the value of one fit may be from that of another."""
    if len(of_fits) < 2 or not np.isfinite(of_fits).all():
        return 0.0
    return t_quantile(len(of_fits) - 1) * float(of_fits.std(ddof=1))


def _mean_return(steps: Steps, counts: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Of the episodes as they were logged. [R]."""
    if counts is None:
        return np.array([steps.returns.mean()])
    found: NDArray[np.float64] = counts @ steps.returns / len(steps)
    return found


def _draw(generator: np.random.Generator, num_resamples: int, size: int) -> NDArray[np.int64]:
    """How often each of `size` episodes is in each resample. [num_resamples, size]."""
    drawn = generator.integers(size, size=(num_resamples, size)) + size * np.arange(num_resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=num_resamples * size).reshape(num_resamples, size)


def _interval(mean: float, resampled: NDArray[np.float64], num_episodes: int, spread: float = 0.0) -> Interval:
    if num_episodes < LEAST_VALUES or not np.isfinite(resampled).all():
        return Interval(mean, None, None)
    low, high = map(float, np.quantile(resampled, [0.025, 0.975]))
    if spread == 0:
        return Interval(mean, low, high)
    return Interval(mean, mean - math.hypot(mean - low, spread), mean + math.hypot(high - mean, spread))


def _unsure(interval: Interval) -> Interval:
    return Interval(interval.mean, None, None)


def _reaching(interval: Interval, *corrections: float) -> Interval:
    """The interval together with those around the corrected values."""
    if interval.low is None or interval.high is None:
        return interval
    return Interval(interval.mean, interval.low + min(0.0, *corrections), interval.high + max(0.0, *corrections))
