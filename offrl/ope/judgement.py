"""What an estimate rests on, and in plain words whether it can be used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from offrl.ope.config import OpeConfig
from offrl.ope.estimators import FITTED
from offrl.ope.intervals import Estimate
from offrl.statistics import Interval, number_text

_LEAST_EFFECTIVE = 10.0
"""Under so many effective episodes an estimate by importance sampling is not to be used."""
_LEAST_OF_HISTORY = 5.0
"""Likewise where weights are of the latest decisions: other episodes then have them at other steps."""
_LEAST_COVERED = 0.5
"""Of the steps, by such weights; at the others the fit stands as it is."""
_FEW_EFFECTIVE = 30.0
_LARGEST_GAP = 0.1
"""Of a fitted value, or of the behaviour's where that is larger: what it may be off by its own equation."""
LEAST_SUPPORT = 0.5
"""Under that share of supported actions a fitted value is extrapolated more than learned."""


@dataclass(frozen=True)
class Estimated:
    """One estimator's answer.

    Attributes:
        estimator: its name.
        estimate: the value, the behaviour's, and their difference, with 95 % intervals.
        effective_size: how many of the held-out episodes the estimate rests on; None where it weights none.
        refits: of the fitted values; 0 where it reads none.
        updates: of each refit; 0 likewise.
        remark: what is wrong with it, in a sentence; "" for nothing that is known.
    """

    estimator: str
    estimate: Estimate
    effective_size: float | None
    refits: int
    updates: int
    remark: str

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; an undefined value is None."""
        return {
            "estimator": self.estimator,
            "value": _finite(self.estimate.value),
            "difference_to_behaviour": _finite(self.estimate.difference),
            "effective_size": self.effective_size,
            "refits": self.refits,
            "updates": self.updates,
            "remark": self.remark,
        }


@dataclass(frozen=True)
class Estimates:
    """What a policy is worth by the held-out episodes of a dataset.

    Attributes:
        policy: its name.
        discount: per step; all values are discounted returns from the first observation of an episode.
        held_out: the number of episodes on which values are read.
        training: the number of episodes on which models are fitted.
        split: `held_out` and `split_seed` of the replay.
        behaviour: the mean discounted return of the held-out episodes as they were logged.
        behaviour_fitted: what fitted Q evaluation says of the behaviour where the log cuts episodes: differences of
            fitted values are to this; None where returns say it.
        behaviour_source: "logged", or "fitted" and why not logged.
        support: the share of the policy's actions on the held-out observations that the behaviour takes with a
            probability of `support_floor` or more.
        rows: one for each estimator.
        warnings: what to know of the data, a sentence each.
    """

    policy: str
    discount: float
    held_out: int
    training: int
    split: dict[str, float | int]
    behaviour: Interval
    behaviour_fitted: Interval | None
    behaviour_source: str
    support: float
    rows: tuple[Estimated, ...]
    warnings: tuple[str, ...]

    def __getitem__(self, estimator: str) -> Estimated:
        """The row of an estimator.

        Raises:
            KeyError: it was not asked for.
        """
        return {row.estimator: row for row in self.rows}[estimator]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "policy": self.policy,
            "discount": self.discount,
            "held_out_episodes": self.held_out,
            "training_episodes": self.training,
            "split": self.split,
            "behaviour": self.behaviour.to_dict(),
            "behaviour_fitted": None if self.behaviour_fitted is None else self.behaviour_fitted.to_dict(),
            "behaviour_probabilities": self.behaviour_source,
            "support": self.support,
            "estimates": [row.to_dict() for row in self.rows],
            "warnings": [*self.warnings],
        }

    def to_text(self) -> str:
        """A table, and under it what to beware of."""
        fitted = self.behaviour_fitted
        beyond = "" if fitted is None else f", {_number(fitted)} by fitted Q, beyond where the log is cut, too"
        facts = {
            "policy": self.policy,
            "episodes": f"{self.held_out:,} held out, on which values are read; {self.training:,} to fit models on",
            "discount": f"{self.discount:g} a step; values are discounted returns of an episode",
            "behaviour": f"{_number(self.behaviour)}, as logged{beyond}; probabilities {self.behaviour_source}",
            "support": f"{self.support:.0%} of the policy's actions are ones that the behaviour takes, too",
        }
        if fits := {(row.refits, row.updates) for row in self.rows if row.refits}:
            ((refits, updates),) = fits
            facts["fitted Q"] = f"{refits} fits of {updates:,} updates"
        table = [("estimator", "value", "95 % interval", "above the behaviour", "effective episodes")]
        for row in self.rows:
            size = "" if row.effective_size is None else f"{row.effective_size:,.1f}"
            value, difference = row.estimate.value, row.estimate.difference
            shown = _mean(value) if math.isfinite(value.mean) else "undefined"
            table.append((row.estimator, shown, _bounds(value), _number(difference, sign="+"), size))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [f"{name:<9}  {text}" for name, text in facts.items()]
        lines.append("")
        for name, *cells in table:
            padded = [f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)]
            lines.append("  ".join([f"{name:<{widths[0]}}", *padded]).rstrip())
        remarks = [f"{row.estimator}: {row.remark}" for row in self.rows if row.remark]
        if remarks or self.warnings:
            lines += ["", *remarks, *self.warnings]
        return "\n".join(lines)


def is_too_small(effective_size: float | None, covered: float | None) -> bool:
    """Whether too few episodes have weight for an interval; the arguments are those of `verdict`."""
    least = _LEAST_EFFECTIVE if covered is None else _LEAST_OF_HISTORY
    return effective_size is not None and effective_size < least


def verdict(
    estimator: str,
    estimate: Estimate,
    effective_size: float | None,
    held_out: int,
    *,
    support: float,
    most_support: float | None = None,
    gap: float = 0.0,
    covered: float | None = None,
    resamples: int = OpeConfig.resamples,
) -> str:
    """Why an estimate is not to be used, or only with care; "" where nothing speaks against it.

    Args:
        estimator: its name.
        estimate: what it found.
        effective_size: Kish's, of the weights that it uses; None where it uses none.
        held_out: the number of episodes.
        support: see `Estimates`.
        most_support: what it may be at most, where it is itself an estimate; None for `support`.
        gap: by how much fitted values are off as held-out steps show it, see `fitting_gap`.
        covered: with weights of the latest decisions the share of the steps that have any, see `covered_share`; else
            None.
        resamples: of the bootstrap.
    """
    if math.isnan(estimate.value.mean):
        return "hardly any held-out episode could have come from this policy: do not use"
    if math.isinf(estimate.value.mean):
        return "the weights leave the range of floating point: do not use"
    is_fitted = estimator in FITTED
    most = support if most_support is None else most_support
    if is_fitted and most < LEAST_SUPPORT:
        share = f"{'at least ' * (most > support)}{1 - most:.0%}"
        return f"{share} of the policy's actions are hardly in the data: their values are extrapolated, do not use"
    if effective_size is not None:
        size = f"effective sample size {effective_size:.1f} of {held_out:,} episodes"
        if is_too_small(effective_size, covered):
            return f"{size}: do not use"
        if covered is not None and covered < _LEAST_COVERED:
            return f"at {1 - covered:.0%} of the steps nothing agrees with the policy for so long: do not use"
        if estimate.infinite:
            lost = f"{estimate.infinite:,} of {resamples:,} resamples"
            return f"the weights leave the range of floating point in {lost}: do not use"
        if estimate.undefined:
            return f"undefined in {estimate.undefined:,} of {resamples:,} resamples, so no interval: a rough number"
        if effective_size < _FEW_EFFECTIVE and not is_fitted:
            return f"{size}: a rough number"
        return ""  # enough episodes that agree with the policy correct a fit, whatever it is
    scale = max(abs(estimate.value.mean), abs(estimate.behaviour.mean))
    if abs(gap) > _LARGEST_GAP * scale:
        side = "low" if gap > 0 else "high"
        return (
            f"held-out steps show values about {number_text(abs(gap))} too {side}: do not use, take more updates, or "
            "more data where these do not help"
        )
    if support < LEAST_SUPPORT:
        return (
            f"about {1 - support:.0%} of the policy's actions, of few that tell, are hardly in the data: a rough number"
        )
    return ""


def _finite(value: Interval) -> dict[str, Any]:
    return {**value.to_dict(), "mean": value.mean if math.isfinite(value.mean) else None}


def _number(value: Interval, sign: str = "") -> str:
    bounds = _bounds(value, sign)
    if not math.isfinite(value.mean):
        return ""
    return _mean(value, sign) + (f" [{bounds}]" if bounds else "")


def _mean(value: Interval, sign: str = "") -> str:
    return number_text(value.mean, beside=_ends(value), sign=sign)


def _bounds(value: Interval, sign: str = "") -> str:
    beside = value.mean, *_ends(value)
    return " to ".join(number_text(end, beside=beside, sign=sign) for end in _ends(value))


def _ends(value: Interval) -> list[float]:
    """Both, or none."""
    return [] if value.low is None or value.high is None else [value.low, value.high]
