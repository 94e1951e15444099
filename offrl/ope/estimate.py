"""What policies are worth by logged data alone: all estimators together, and what their numbers rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offrl.errors import ConfigError
from offrl.networks import EncoderFactory, default_encoder
from offrl.ope._parts import BehaviourFound, Fitting, Parts, behaviour_of, parts_of
from offrl.ope.behaviour import num_legal_actions, support_floor
from offrl.ope.config import OpeConfig
from offrl.ope.episodes import Episodes
from offrl.ope.estimators import (
    ESTIMATORS,
    FITTED,
    PER_DECISION,
    WEIGHTED,
    direct_method,
    effective_sample_size,
    trajectory_is,
)
from offrl.ope.fitted_q import FittedQ, fit_q_again
from offrl.ope.fitted_values import FittedValues, fitting_gap, read
from offrl.ope.fitting import default_learner, enough_updates, steps_ahead
from offrl.ope.intervals import bootstrap
from offrl.ope.judgement import LEAST_EFFECTIVE, Estimated, Estimates, verdict
from offrl.ope.policy_table import Evaluated, PolicyTable, logged_table, tabulate_each
from offrl.ope.splits import split_on
from offrl.ope.steps import Steps, clipped, truncated
from offrl.policies import TorchPolicy
from offrl.replay import Replay
from offrl.statistics import LEAST_VALUES, Interval

_FEW_EPISODES = 30


def estimate(
    policy: Evaluated,
    replay: Replay,
    config: OpeConfig | None = None,
    *,
    name: str = "policy",
    encoder: EncoderFactory = default_encoder,
    device: str = "auto",
    fits: str | Path | None = None,
    progress: bool | None = None,
) -> Estimates:
    """What a policy is worth by logged data: its value with a 95 % interval, by each estimator.

    Models (fitted Q, and the behaviour where it has to be fitted) learn from the replay's training episodes; values are
    read on its held-out episodes, which the policy must not have been trained on either.

    Args:
        policy: A TorchPolicy, an OnnxPolicy, or a function of raw observations (and legal actions, where the data has
            them) that gives actions or probabilities.
        replay: Opened with `held_out` over 0; its n_step, reward_clip, reward_scale, sampling and legal_actions
            have no say.
        config: See `OpeConfig`.
        name: Of the policy, in the result.
        encoder: Of the networks that are fitted.
        device: Where they are fitted.
        fits: A directory that keeps them: the same call goes on there where it was stopped. None keeps nothing.
        progress: Whether to show bars; None shows them on a terminal only.

    Raises:
        ConfigError: No held-out episodes, a replay of some actions only, a policy that gives no probabilities, or one
            that `offrl.load` has read from a run that was trained on these held-out episodes.
        DatasetError: A logged action has probability 0.
        RunError: `fits` holds those of another policy, of other data or with other settings; the run that a policy was
            loaded from is damaged.
        SpecMismatchError: The policy is of another task.
    """
    found = estimate_each({name: policy}, replay, config, encoder=encoder, device=device, fits=fits, progress=progress)
    return found[name]


def estimate_each(
    policies: Mapping[str, Evaluated],
    replay: Replay,
    config: OpeConfig | None = None,
    *,
    encoder: EncoderFactory = default_encoder,
    device: str = "auto",
    fits: str | Path | None = None,
    progress: bool | None = None,
) -> dict[str, Estimates]:
    """What each of several policies is worth: `estimate`, with all fitted values from one pass over the data.

    Args:
        policies: By name.
        replay: See `estimate`, as for all that follow.
        config: How.
        encoder: Of the networks that are fitted.
        device: Where they are fitted.
        fits: Where they are kept.
        progress: Whether to show bars.

    Raises:
        ConfigError, DatasetError, SpecMismatchError, RunError: see `estimate`; no policies.
    """
    config, fitting = config or OpeConfig(), Fitting(encoder, device, None if fits is None else Path(fits), progress)
    if not policies:
        raise ConfigError("no policies", where="estimate_each", expected="one or more")
    parts = parts_of(replay, config)
    beware = {name: _beware(name, policy, replay) for name, policy in policies.items()}
    # What cannot be judged is refused before anything is fitted.
    at_held_out = _tables(policies, parts.held_out, parts, progress)
    at_training = _tables(policies, parts.train, parts, progress) if FITTED & {*config.estimators} else None
    behaviour = behaviour_of(parts, config, fitting)
    steps: dict[str | None, list[Steps]] = {}
    if at_training is not None:
        steps = _fits(at_training, at_held_out, parts, behaviour, config, fitting)
    own_steps = steps.get(None, [])
    plain = _steps(next(iter(at_held_out.values())), parts, behaviour)
    logged = bootstrap(trajectory_is, plain, config.resamples, config.seed).behaviour  # whatever the policy
    judged = {
        name: _judge(name, at_held_out[name], steps.get(name, []), own_steps, logged, parts, behaviour, config)
        for name in policies
    }
    return {name: replace(each, warnings=(*each.warnings, *beware[name])) for name, each in judged.items()}


def _beware(name: str, policy: Evaluated, replay: Replay) -> tuple[str, ...]:
    """What may flatter a policy that `offrl.load` has read from a run, in sentences.

    Raises:
        ConfigError: It was trained on some of the replay's held-out episodes.
        RunError: Its run is damaged.
    """
    run = policy.run if isinstance(policy, TorchPolicy) else None
    if run is None or replay.fingerprint is None or not (run / "config.json").is_file():
        return ()
    split, beware = split_on(run, replay.fingerprint)
    ours = replay.config.held_out, replay.config.split_seed
    if split is not None and (split.held_out, split.split_seed) != ours:
        raise ConfigError(
            f"was trained on episodes that held_out={ours[0]:g} and split_seed={ours[1]} hold out",
            where=name,
            expected=f"held_out={split.held_out:g} and split_seed={split.split_seed}, as its run has it: what it has "
            "learned from flatters it",
            hint="open the data with these",
        )
    return beware


def _tables(
    policies: Mapping[str, Evaluated], part: Replay, parts: Parts, progress: bool | None
) -> dict[str | None, PolicyTable]:
    """What each policy does; None is the behaviour, where its returns lack what comes after a cut."""
    tables = tabulate_each(policies, part, progress=progress)
    found: dict[str | None, PolicyTable] = {name: tables[name] for name in policies}
    if parts.num_cut:
        found[None] = logged_table(part)
    return found


def _fits(
    at_training: Mapping[str | None, PolicyTable],
    at_held_out: Mapping[str | None, PolicyTable],
    parts: Parts,
    behaviour: BehaviourFound,
    config: OpeConfig,
    fitting: Fitting,
) -> dict[str | None, list[Steps]]:
    """The held-out steps with each fit's values, by policy."""
    fits: dict[str | None, list[Steps]] = {name: [] for name in at_training}
    chosen = [*at_training]
    for number in range(config.refits):
        if number == 1 and config.refit_best is not None:
            of_first = {name: float(direct_method(each)[0]) for name, (each,) in fits.items()}
            ranked = sorted((name for name in chosen if name is not None), key=of_first.__getitem__, reverse=True)
            best = {None, *ranked[: config.refit_best]}
            chosen = [name for name in chosen if name in best]
        model = _fitted([at_training[name] for name in chosen], parts.train, config, number, fitting)
        values = read(model, parts.held_out, [at_held_out[name] for name in chosen])
        for index, name in enumerate(chosen):
            fits[name].append(_with_values(_steps(at_held_out[name], parts, behaviour), values, index, parts.episodes))
    return fits


def _fitted(tables: Sequence[PolicyTable], train: Replay, config: OpeConfig, number: int, fitting: Fitting) -> FittedQ:
    """Fitted Q of all policies: on the training episodes, or in a refit on as many that are drawn from them."""
    updates = _updates(train, config)
    return fit_q_again(
        {str(index): table for index, table in enumerate(tables)},
        train,
        updates,
        number,
        config.refits,
        seed=config.seed,
        batch_size=config.batch_size,
        learner=default_learner(steps_ahead(train), updates, config.learning_rate, config.precision),
        encoder=fitting.encoder,
        device=fitting.device,
        run=fitting.run(f"fitted-q-{number + 1}", updates),
        progress=fitting.progress,
    )


def _updates(train: Replay, config: OpeConfig) -> int:
    return config.updates or enough_updates(train)


def _taken(table: PolicyTable, held_out: Replay) -> NDArray[np.float64]:
    """The policy's probabilities of the logged actions. [N]."""
    action = held_out.store.actions[held_out.rows]
    taken: NDArray[np.float64] = table.current[np.arange(len(action)), action].astype(np.float64)
    return taken


def _steps(table: PolicyTable, parts: Parts, behaviour: BehaviourFound) -> Steps:
    """The held-out steps, weighted by how much likelier the policy takes the logged action than the behaviour does."""
    episodes = parts.episodes
    ratio = episodes.pad(_taken(table, parts.held_out) / behaviour.probability, fill=1.0)
    return Steps(episodes.reward, ratio, episodes.length, parts.discount)


def _with_values(plain: Steps, values: FittedValues, policy: int, episodes: Episodes) -> Steps:
    """The steps with what one fit says of the policy with this number among its own."""
    return replace(
        plain,
        q=episodes.pad(values.q[policy]),
        value=episodes.pad(values.value[policy]),
        end_value=values.end_value[policy],
    )


def _judge(
    name: str,
    table: PolicyTable,
    fits: Sequence[Steps],
    own_fits: Sequence[Steps],
    logged: Interval,
    parts: Parts,
    behaviour: BehaviourFound,
    config: OpeConfig,
) -> Estimates:
    episodes, held_out, plain = parts.episodes, parts.held_out, _steps(table, parts, behaviour)
    support, most_support = _support(table, parts, behaviour)
    gap = _gap(fits)
    rows = []
    for estimator in config.estimators:
        is_fitted, is_weighted = estimator in FITTED, estimator in WEIGHTED
        used = fits if is_fitted else [plain]
        if estimator in PER_DECISION:
            used = [truncated(each) for each in used]
        if config.clip is not None and is_weighted:
            used = [clipped(each, config.clip) for each in used]
        own = own_fits[: len(used)] if is_fitted and own_fits else None
        found = bootstrap(ESTIMATORS[estimator], used, config.resamples, config.seed, behaviour=own)
        size = None
        if not is_weighted:
            # How the first observations vary says nothing of how much a single fit is off.
            found = found.widened_by(gap, _gap(own_fits)) if len(fits) > 1 else found.without_intervals()
        elif (size := float(effective_sample_size(used[0])[0])) < LEAST_EFFECTIVE:
            found = found.without_intervals()
        remark = verdict(estimator, found, size, len(episodes), support=support, most_support=most_support, gap=gap)
        fitted = (len(used), _updates(parts.train, config)) if is_fitted else (0, 0)
        rows.append(Estimated(estimator, found, size, *fitted, remark))
    return Estimates(
        policy=name,
        discount=parts.discount,
        held_out=len(episodes),
        training=len(np.unique(parts.train.store.segment_end[parts.train.rows])),
        split={"held_out": held_out.config.held_out, "split_seed": held_out.config.split_seed},
        behaviour=logged,
        behaviour_fitted=_fitted_behaviour(own_fits, config) if own_fits else None,
        behaviour_source=behaviour.source,
        support=support,
        rows=tuple(rows),
        warnings=(*behaviour.warnings, *_warnings(plain, parts, config, len(fits))),
    )


def _fitted_behaviour(own_fits: Sequence[Steps], config: OpeConfig) -> Interval:
    """What fitted values say of the behaviour, with an interval as the policy's has one."""
    found = bootstrap(direct_method, own_fits, config.resamples, config.seed)
    return (found.widened_by(_gap(own_fits)) if len(own_fits) > 1 else found.without_intervals()).value


def _gap(fits: Sequence[Steps]) -> float:
    """By how much the mean of the fits' values is off, as held-out steps show it; 0 without any."""
    return float(np.mean([fitting_gap(each) for each in fits])) if fits else 0.0


def _support(table: PolicyTable, parts: Parts, behaviour: BehaviourFound) -> tuple[float, float]:
    """The share of the policy's actions that the behaviour takes often enough, and what the share may be at most.

    Where the log knows the probability of its own action only, it is estimated on the steps at which the two agree:
    the mean of pi(a|s) over mu(a|s) is 1 where the behaviour takes all that the policy takes. Two standard errors above
    it, over episodes, are then still possible.
    """
    floor = support_floor(num_legal_actions(parts.held_out))
    if behaviour.all_actions is not None:
        share = float((table.current * (behaviour.all_actions >= floor[:, None])).sum(axis=1).mean())
        return share, share
    taken = _taken(table, parts.held_out)
    seen = np.where(behaviour.probability >= floor, taken / behaviour.probability, 0.0)
    share, length = float(seen.mean()), parts.episodes.length
    # Of each episode: its steps are not independent.
    excess = parts.episodes.pad(seen - share).sum(axis=1) / length.mean()
    error = float(excess.std(ddof=1)) / len(length) ** 0.5 if len(length) > 1 else 1.0
    unseen = 3 / float(floor.sum())  # where both agree nowhere: as often as that with a probability of 5 %
    return min(share, 1.0), min(max(share + 2 * error, unseen), 1.0)


def _warnings(plain: Steps, parts: Parts, config: OpeConfig, refits: int) -> tuple[str, ...]:
    found = []
    if parts.num_cut:
        found.append(
            f"The log cuts {parts.num_cut:,} of {len(parts.episodes):,} held-out episodes: importance sampling and the "
            "behaviour's own return miss what would have come after. Fitted values do not, and are compared with the "
            "behaviour's own fitted value. Where a file ends in the middle of an episode, both parts count as episodes."
        )
    if config.clip is not None and WEIGHTED & {*config.estimators} and (plain.log_weight > np.log(config.clip)).any():
        found.append(
            f"Weights above {config.clip:g} are cut: with rewards that are never negative is and pdis become too low "
            "on average, and wis and wpdis move towards the plain mean of the episodes that agree."
        )
    if refits == 1:
        found.append("Fitted Q was fitted once: how much fits differ is not known.")
    if (count := len(parts.episodes)) < LEAST_VALUES:
        found.append(f"Only {count} held-out episode{'s' * (count > 1)}: too few for intervals.")
    elif count < _FEW_EPISODES:
        found.append(f"Only {count} held-out episodes: the intervals are wide, and hold less often than they say.")
    return tuple(found)
