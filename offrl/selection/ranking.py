"""Which of some policies to take, by statistics on held-out episodes: the environment is never asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from offrl.algorithms.algorithm import Algorithm
from offrl.checks import Checks, is_number
from offrl.errors import ConfigError, OfflineRLError
from offrl.ope.episodes import require_replay
from offrl.replay import Replay
from offrl.selection._resampling import resamples
from offrl.selection.criteria import Criterion
from offrl.selection.fits import Fits, FittingConfig, fit_models
from offrl.selection.reading import Log, Reading, read_candidate


@dataclass(frozen=True)
class Candidate:
    """A trained policy that may be taken.

    Attributes:
        name: Such as its checkpoint's path.
        load: Gives its algorithm, when its turn comes.
        thresholds: That it may act with, in [0, 1); each is ranked by itself. None is the algorithm's own.
        reward_scale: That it was trained with; finite and not 0.

    Raises:
        ConfigError: Another threshold or scale, no thresholds, or an algorithm in place of a function.
    """

    name: str
    load: Callable[[], Algorithm]
    thresholds: Sequence[float] | None = None
    reward_scale: float = 1.0

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.that(isinstance(self.name, str), "name", "a text, such as the checkpoint's path")
        if isinstance(self.load, Algorithm) or not callable(self.load):
            raise ConfigError(
                f"a {type(self.load).__name__}",
                where="Candidate.load",
                expected="a function that gives the algorithm",
                hint="pass lambda: algorithm",
            )
        if self.thresholds is not None:
            is_list = isinstance(self.thresholds, Sequence | np.ndarray) and not isinstance(self.thresholds, str)
            known = is_list and all(is_number(each) and 0 <= each < 1 for each in self.thresholds)
            checks.that(known and len(self.thresholds) > 0, "thresholds", "one or more numbers in [0, 1), or None")
        checks.number("reward_scale", "a finite number other than 0", lambda scale: scale != 0)


@dataclass(frozen=True)
class Ranked:
    """A policy with its place.

    Attributes:
        name: Of the candidate.
        threshold: That the policy acts with.
        statistics: By name.
        ranks: By the name of a statistic: 1 is the best; equals share the mean of their places.
        first_in: The share of resamples of the held-out episodes in which it would be taken; None with fewer than five.
        remark: What is wrong with the policy, in words; "" for nothing that is known.
    """

    name: str
    threshold: float
    statistics: Mapping[str, float]
    ranks: Mapping[str, float]
    first_in: float | None = None
    remark: str = ""

    @property
    def mean_rank(self) -> float:
        """The mean of the ranks, by which several statistics decide together."""
        return float(np.mean([*self.ranks.values()]))


@dataclass(frozen=True)
class Ranking:
    """Policies, the best one first.

    Attributes:
        policies: Of all candidates and thresholds.
        num_transitions: That they were read on.
        num_episodes: Of these.
        fitted: By the name of a statistic, the updates of the model that was fitted for it.
    """

    policies: Sequence[Ranked]
    num_transitions: int
    num_episodes: int
    fitted: Mapping[str, int] = field(default_factory=dict)

    @property
    def winner(self) -> Ranked:
        """The one to take."""
        return self.policies[0]

    def reason(self) -> str:
        """Why the winner is taken, in one line."""
        best, count = self.winner, len(self.policies)
        where = f"on {self.num_transitions:,} held-out transitions of {self.num_episodes:,} episodes"
        if best.first_in is not None and count > 1:
            where += f" and in {best.first_in:.0%} of resamples of these"
        taken = f"{best.name} with threshold {best.threshold:g}"
        equals = sum(_place(each) == _place(best) for each in self.policies) - 1
        equal = "" if equals == 0 else f" (equal to {equals} other{'s' * (equals > 1)}; of equals the first is taken)"
        if len(best.statistics) == 1:
            ((name, value),) = best.statistics.items()
            return f"{taken}: its {name} of {value:.4g} is the best of {count} policies{equal}, {where}"
        parts = ", ".join(f"{name} {value:.4g} (rank {best.ranks[name]:g})" for name, value in best.statistics.items())
        return (
            f"{taken}: its mean rank of {best.mean_rank:.3g} is the best of {count} policies{equal}, {where}: {parts}"
        )

    def to_text(self) -> str:
        """A table, the best policy first, and under it what is wrong with some."""
        names = [*self.winner.statistics]
        several = len(names) > 1
        head = ["policy", "threshold", *(word for name in names for word in ([name, "rank"] if several else [name]))]
        is_sure = self.winner.first_in is not None and len(self.policies) > 1
        rows = [[*head, *(["mean rank"] if several else []), *(["first in"] if is_sure else [])]]
        for each in self.policies:
            row = [each.name, f"{each.threshold:g}"]
            for name in names:
                row += [f"{each.statistics[name]:.4g}", *([f"{each.ranks[name]:g}"] if several else [])]
            row += [f"{each.mean_rank:.3g}"] if several else []
            rows.append([*row, *([f"{each.first_in:.0%}"] if is_sure else [])])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        remarks = [f"{each.name}: {each.remark}" for each in self.policies if each.remark]
        return "\n".join([*lines, *(["", *dict.fromkeys(remarks)] if remarks else [])])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; a statistic that is no number is null."""
        policies = [
            {
                "policy": each.name,
                "threshold": each.threshold,
                "statistics": {name: value if np.isfinite(value) else None for name, value in each.statistics.items()},
                "ranks": dict(each.ranks),
                "mean_rank": each.mean_rank,
                "first_in": each.first_in,
                "remark": each.remark,
            }
            for each in self.policies
        ]
        return {
            "winner": policies[0],
            "reason": self.reason(),
            "num_transitions": self.num_transitions,
            "num_episodes": self.num_episodes,
            "fitted": dict(self.fitted),
            "policies": policies,
        }


def rank(
    candidates: Sequence[Candidate],
    replay: Replay,
    criteria: Sequence[Criterion],
    *,
    fitting: FittingConfig | None = None,
    progress: bool | None = None,
) -> Ranking:
    """Ranks policies by statistics on a replay's episodes, by the mean of their ranks where there are several.

    How sure the choice is, as far as the held-out episodes go, says how often each policy would be taken if they were
    drawn again (`Ranked.first_in`). What training and the fits leave to chance is not in it.

    Where a statistic needs a model, it is fitted on the other part of the replay's split, the training episodes, once
    for all candidates: rank them in one call.

    What a candidate was trained on it does not ask: call `offrl.ope.shared_split(runs)` first, which refuses runs that
    were trained on the held-out episodes, themselves or by their first weights. `offrl select` does so.

    A candidate whose networks give NaN on the data has no statistic that is a number, and comes last.

    Args:
        candidates: In the order in which equals are taken.
        replay: The held-out part, `replay.held_out()`, of data that no candidate was trained on. Its discount and
            `reward_clip` are what the candidates' values mean; its n_step and `reward_scale` have no say.
        criteria: Some of `offrl.selection.CRITERIA`, or your own.
        fitting: How models are fitted; None takes the defaults.
        progress: Whether to show a bar; None shows it on a terminal only.

    Raises:
        ConfigError: Nothing to choose from or by, or what is no candidate or statistic; no replay, its training part,
            or one that leaves out transitions; a statistic that needs a model, and a replay without a training part.
        DatasetError: soft_opc, and rewards that are not success or failure.
        OfflineRLError: A statistic reads values, and a candidate learns none; or it is a number for no candidate.
        SpecMismatchError: A candidate is of another task, or its policy may take no action at some transition.
    """
    candidates = list(candidates) if isinstance(candidates, Iterable) else candidates
    criteria = list(criteria) if isinstance(criteria, Iterable) else criteria
    _require_all("candidates", candidates, Candidate, "offrl.selection.Candidate")
    _require_all("statistics", criteria, Criterion, "CRITERIA['agreement'], say, or your own Criterion")
    require_replay(replay, "rank.replay")
    if replay.config.held_out > 0 and replay.config.part == "train":
        raise ConfigError(
            "the episodes that are trained on", where="rank", expected="the others", hint="pass replay.held_out()"
        )
    log = Log.of(replay)
    for each in criteria:
        if each.check is not None:
            each.check(log)
    fitting = fitting or FittingConfig()
    has_nan: set[int] = set()
    fits, fitted = _fits(candidates, replay, criteria, fitting, progress, has_nan)
    with_values = any(each.needs_values for each in criteria)
    found: list[tuple[str, float, list[float]]] = []
    again: list[list[list[float]]] = []
    for number, (name, threshold, plain) in enumerate(_readings(candidates, replay, with_values, "", progress)):
        reading = replace(plain, fitted=fits.of(number), has_nan=plain.has_nan or number in has_nan)
        if reading.has_nan:
            has_nan.add(number)
        found.append((name, threshold, _statistics(criteria, reading, log)))
        again.append(
            [_statistics(criteria, reading.take(drawn), log.take(drawn)) for drawn in resamples(log, fitting.seed)]
        )
    for number, each in enumerate(criteria):
        if not any(np.isfinite(row[2][number]) for row in found):
            raise OfflineRLError(
                f"no candidate has a number as its {each.name}",
                where="rank",
                expected="one that has",
                hint="the candidates' values are NaN or infinite: their training has failed",
            )
    names = [each.name for each in criteria]
    ranks = _ranks_by(criteria, np.array([values for _, _, values in found]))
    first_in = _first_in(criteria, np.array(again))
    policies = [
        Ranked(
            name,
            threshold,
            dict(zip(names, values, strict=True)),
            dict(zip(names, map(float, row), strict=True)),
            share,
            _NAN if number in has_nan else "",
        )
        for number, ((name, threshold, values), row, share) in enumerate(zip(found, ranks, first_in, strict=True))
    ]
    return Ranking(sorted(policies, key=_place), len(log.action), int(log.is_first.sum()), fitted)


_NAN = "its networks give NaN on the data: last, whatever its actions are"


def _require_all(what: str, found: Sequence[object], kind: type, expected: str) -> None:
    is_list = isinstance(found, Sequence) and not isinstance(found, str)
    if is_list and not found:
        raise ConfigError(f"no {what}", where="rank", expected="one or more")
    wrong = [each for each in found if not isinstance(each, kind)] if is_list else [found]
    if wrong:
        raise ConfigError(f"{str(wrong[0])[:80]!r} among the {what}", where="rank", expected=f"a list of {expected}")


def _readings(
    candidates: Sequence[Candidate], replay: Replay, with_values: bool, where: str, progress: bool | None
) -> Iterator[tuple[str, float, Reading]]:
    """What each policy says of a part of the data, with its name and threshold."""
    hidden = None if progress is None else not progress
    for candidate in tqdm(candidates, f"candidates{where}", unit="candidate", disable=hidden, leave=False):
        algorithm = candidate.load()
        if not isinstance(algorithm, Algorithm):
            raise ConfigError(
                f"load gives a {type(algorithm).__name__}", where=candidate.name, expected="an offrl.Algorithm"
            )
        algorithm.eval()
        algorithm.spec.require_same(
            replay.spec, candidate.name, hint="select among policies of the data's task", legal_actions=False
        )
        thresholds = [algorithm.threshold] if candidate.thresholds is None else [*candidate.thresholds]
        readings = read_candidate(
            algorithm,
            replay,
            thresholds,
            with_values=with_values,
            reward_scale=candidate.reward_scale,
            name=candidate.name,
        )
        for threshold, reading in zip(thresholds, readings, strict=True):
            yield candidate.name, threshold, reading


def _fits(
    candidates: Sequence[Candidate],
    replay: Replay,
    criteria: Sequence[Criterion],
    fitting: FittingConfig,
    progress: bool | None,
    has_nan: set[int],
) -> tuple[Fits, dict[str, int]]:
    """The models that the criteria need, fitted on the training part, and their updates.

    Policies whose networks give NaN there are added to `has_nan`, by their numbers.
    """
    fitted = [each for each in criteria if each.model is not None]
    if not fitted:
        return Fits(), {}
    if replay.config.held_out == 0:
        raise ConfigError(
            "a replay without training episodes",
            where="rank",
            expected=f"some to fit what {fitted[0].name} needs",
            hint="pass replay.held_out() of data opened with held_out=0.1, say",
        )
    train = Replay(replay.store, replace(replay.config, part="train"))
    with_values = any(each.model == "backups" for each in fitted)

    def readings() -> Iterator[Reading]:
        said = _readings(candidates, train, with_values, " on training episodes", progress)
        for number, (_, _, reading) in enumerate(said):
            if reading.has_nan:
                has_nan.add(number)
            yield reading

    models = {each.model for each in fitted if each.model is not None}
    updates = {each.name: fitting.updates_of(each.model, train) for each in fitted if each.model is not None}
    return fit_models(models, readings(), train, replay, fitting, progress), updates


def _statistics(criteria: Sequence[Criterion], reading: Reading, log: Log) -> list[float]:
    return [math.nan if reading.has_nan else float(each.function(reading, log)) for each in criteria]


def _first_in(criteria: Sequence[Criterion], again: NDArray[np.float64]) -> Sequence[float | None]:
    """How often each candidate would be taken, by its statistics in B resamples; None without any. [C, B, K] -> [C]."""
    ranked = [
        _ranks_by(criteria, again[:, number])
        for number in range(again.shape[1])
        if np.isfinite(again[:, number]).any(axis=0).all()
    ]
    if not ranked:
        return [None] * len(again)
    # As `_place` decides: of equal means the first statistic counts.
    first = [int(np.argmin(ranks.mean(axis=1) + ranks[:, 0] * 1e-6)) for ranks in ranked]
    return [first.count(number) / len(first) for number in range(len(again))]


def _ranks_by(criteria: Sequence[Criterion], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[C, K] -> [C, K]."""
    return np.stack([_ranks(values[:, k], each.more_is_better) for k, each in enumerate(criteria)], axis=1)


def _place(policy: Ranked) -> tuple[float, float]:
    """Less is better: the mean of the ranks; of equals that of the first statistic."""
    return policy.mean_rank, next(iter(policy.ranks.values()))


def _ranks(values: NDArray[np.float64], more_is_better: bool) -> NDArray[np.float64]:
    """1 for the best; equals share the mean of their places; what is no finite number comes last. [C] -> [C]."""
    cost = np.where(np.isfinite(values), -values if more_is_better else values, np.inf)
    before = (cost[None] < cost[:, None]).sum(axis=1)
    equal = (cost[None] == cost[:, None]).sum(axis=1)
    ranks: NDArray[np.float64] = before + (equal + 1) / 2
    return ranks
