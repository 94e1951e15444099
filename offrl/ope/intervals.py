"""Intervals of an estimate: the bootstrap over whole episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from offrl.checks import is_whole
from offrl.errors import ConfigError
from offrl.ope.estimators import Estimator
from offrl.ope.steps import Steps
from offrl.statistics import LEAST_VALUES, Interval, t_quantile

_MOST_COUNTS = 4_000_000  # in one slice of resamples, or of terms for each step of them: arrays of 32 MB


class Estimate(NamedTuple):
    """What a policy is worth, and how sure that is.

    Attributes:
        value: Of the evaluated policy, per episode.
        behaviour: The mean return of the same episodes as they were logged.
        difference: Value minus behaviour; its interval is paired: both are of the same resamples.
        undefined: Resamples in which the estimate is NaN or infinite. One is enough for an interval to be left out:
            the log then holds too few episodes that the policy could have produced.
    """

    value: Interval
    behaviour: Interval
    difference: Interval
    undefined: int

    def without_intervals(self) -> Estimate:
        """Where too few episodes count to say how sure the value is."""
        return self._replace(value=_unsure(self.value), difference=_unsure(self.difference))

    def reaching(self, correction: float) -> Estimate:
        """With intervals that hold the value plus a correction, too: what it may be off beside what varies."""
        return self._replace(value=_reaching(self.value, correction), difference=_reaching(self.difference, correction))


def bootstrap(estimator: Estimator, steps: Steps | Sequence[Steps], resamples: int = 1000, seed: int = 0) -> Estimate:
    """An estimate with its 95 % percentile bootstrap interval over episodes (Efron 1979).

    The interval says how much the estimate varies from log to log. Where a model was fitted several times it is wider
    by how much the fits differ: their standard deviation times Student's t for so many fits, added in quadrature to
    each side; what differs from fit to fit does so from log to log. It does not know of what all fits have wrong, nor
    of errors of fitted behaviour probabilities, and where the effective sample size is a few episodes it is much too
    narrow: what the log does not hold is in no resample. Under five episodes there is none. The same seed draws the
    same resamples for every estimator.

    The difference compares like with like only where both count the same steps: where logs are cut and the model's
    values reach beyond the cut, the behaviour's returns do not.

    Args:
        estimator: One of `offrl.ope.estimators`.
        steps: Of E episodes; or several of the same episodes with the values of one fit each: the value is the mean
            of theirs, and the resamples take them in turn.
        resamples: How often E episodes are drawn with replacement, 2 or more.
        seed: Seed of the draws.

    Raises:
        ConfigError: Fewer resamples; steps without what the estimator needs.
    """
    if not is_whole(resamples) or resamples < 2:
        raise ConfigError(f"{resamples!r}", where="bootstrap.resamples", expected="2 or more, a whole number")
    fits = [steps] if isinstance(steps, Steps) else [*steps]
    if not fits:
        raise ConfigError("no steps", where="bootstrap.steps", expected="those of one fit or more")
    size = len(fits[0])
    generator = np.random.default_rng(seed)
    of_fits = np.array([float(estimator(fit)[0]) for fit in fits])
    found, own = float(of_fits.mean()), float(fits[0].returns.mean())
    values, means = [], []
    at_once = max(1, _MOST_COUNTS // max(fits[0].reward.shape))
    for number, fit in enumerate(fits):
        share = len(range(number, resamples, len(fits)))
        for start in range(0, share, at_once):
            counts = _draw(generator, min(at_once, share - start), size)
            shift = found - of_fits[number] if len(fits) > 1 else 0.0
            values.append(estimator(fit, counts) + shift)
            means.append(counts @ fit.returns / size)
    value, behaviour = np.concatenate(values), np.concatenate(means)
    spread = 0.0
    if len(fits) > 1:
        spread = t_quantile(len(fits) - 1) * float(of_fits.std(ddof=1))
    return Estimate(
        value=_interval(found, value, size, spread),
        behaviour=_interval(own, behaviour, size),
        difference=_interval(found - own, value - behaviour, size, spread),
        undefined=int((~np.isfinite(value)).sum()),
    )


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


def _reaching(interval: Interval, correction: float) -> Interval:
    """The interval together with the one around the corrected value."""
    if interval.low is None or interval.high is None:
        return interval
    return Interval(interval.mean, interval.low + min(correction, 0.0), interval.high + max(correction, 0.0))
