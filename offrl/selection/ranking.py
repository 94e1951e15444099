"""Which of some policies to take, by statistics on held-out episodes: the environment is never asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from offrl.errors import ConfigError, OfflineRLError
from offrl.ope.episodes import require_replay
from offrl.replay import Replay
from offrl.selection._resampling import resamples
from offrl.selection.candidates import Candidate, read_candidates
from offrl.selection.criteria import Criterion
from offrl.selection.fits import Fits, FittingConfig, fit_models
from offrl.selection.ranked import Ranked, Ranking
from offrl.selection.reading import Log, Reading


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
    said = read_candidates(candidates, replay, with_values=with_values, title="candidates", progress=progress)
    for number, (name, threshold, plain) in enumerate(said):
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
    return Ranking(sorted(policies, key=lambda each: each.place), len(log.action), int(log.is_first.sum()), fitted)


_NAN = "its networks give NaN on the data: last, whatever its actions are"


def _require_all(what: str, found: Sequence[object], kind: type, expected: str) -> None:
    is_list = isinstance(found, Sequence) and not isinstance(found, str)
    if is_list and not found:
        raise ConfigError(f"no {what}", where="rank", expected="one or more")
    wrong = [each for each in found if not isinstance(each, kind)] if is_list else [found]
    if wrong:
        raise ConfigError(f"{str(wrong[0])[:80]!r} among the {what}", where="rank", expected=f"a list of {expected}")


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
        title = "candidates on training episodes"
        said = read_candidates(candidates, train, with_values=with_values, title=title, progress=progress)
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
    """How often each candidate comes first by its statistics in B resamples; None without any. [C, B, K] -> [C]."""
    ranked = [
        _ranks_by(criteria, again[:, number])
        for number in range(again.shape[1])
        if np.isfinite(again[:, number]).any(axis=0).all()
    ]
    if not ranked:
        return [None] * len(again)
    # Equals share a resample: that one of them must be taken makes nobody surer of it.
    means = np.stack([ranks.mean(axis=1) for ranks in ranked])
    is_first = means == means.min(axis=1, keepdims=True)
    shares: list[float] = (is_first / is_first.sum(axis=1, keepdims=True)).mean(axis=0).tolist()
    return shares


def _ranks_by(criteria: Sequence[Criterion], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[C, K] -> [C, K]."""
    return np.stack([_ranks(values[:, k], each.more_is_better) for k, each in enumerate(criteria)], axis=1)


def _ranks(values: NDArray[np.float64], more_is_better: bool) -> NDArray[np.float64]:
    """1 for the best; equals share the mean of their places; what is no finite number comes last. [C] -> [C]."""
    cost = np.where(np.isfinite(values), -values if more_is_better else values, np.inf)
    before = (cost[None] < cost[:, None]).sum(axis=1)
    equal = (cost[None] == cost[:, None]).sum(axis=1)
    ranks: NDArray[np.float64] = before + (equal + 1) / 2
    return ranks
