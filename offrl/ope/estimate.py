"""What policies are worth by logged data alone: all estimators together, and what their numbers rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from offrl.errors import ConfigError
from offrl.networks import EncoderFactory, default_encoder
from offrl.ope._fits import fits_of, gap_of, updates_of
from offrl.ope._parts import BehaviourFound, Fitting, Parts, behaviour_of, parts_of
from offrl.ope._weighing import steps_of, support_of, weighed_for
from offrl.ope.config import OpeConfig
from offrl.ope.estimators import (
    ESTIMATORS,
    FITTED,
    WEIGHTED,
    direct_method,
    effective_sample_size,
    trajectory_is,
)
from offrl.ope.intervals import bootstrap
from offrl.ope.judgement import Estimated, Estimates, is_too_small, verdict
from offrl.ope.policy_table import Evaluated, PolicyTable, logged_table, tabulate_each
from offrl.ope.splits import split_on
from offrl.ope.steps import Steps
from offrl.policies import OnnxPolicy, TorchPolicy
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
        steps = fits_of(at_training, at_held_out, parts, behaviour, config, fitting)
    plain = steps_of(next(iter(at_held_out.values())), parts, behaviour)
    own = _own_values(plain, steps.get(None, []), config)
    judged = {
        name: _judge(name, at_held_out[name], steps.get(name, []), own, parts, behaviour, config) for name in policies
    }
    return {name: replace(each, warnings=(*each.warnings, *beware[name])) for name, each in judged.items()}


def _beware(name: str, policy: Evaluated, replay: Replay) -> tuple[str, ...]:
    """What may flatter a policy that is read from a file, or by `offrl.load` from a run, in sentences.

    Raises:
        ConfigError: It was trained on some of the replay's held-out episodes.
        RunError: Its run is damaged.
    """
    if isinstance(policy, OnnxPolicy):
        return ("An ONNX file does not say what it was trained on: if on these episodes, the values flatter it.",)
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


class _Own(NamedTuple):
    """What is said of the behaviour itself."""

    fits: Sequence[Steps]
    """With the behaviour's own values, by each fit; none where its returns say all."""
    logged: Interval
    fitted: Interval | None


def _own_values(plain: Steps, fits: Sequence[Steps], config: OpeConfig) -> _Own:
    """Of the held-out steps, by whatever policy they are weighed."""
    logged = bootstrap(trajectory_is, plain, config.resamples, config.seed).behaviour
    if not fits:
        return _Own((), logged, None)
    found = bootstrap(direct_method, fits, config.resamples, config.seed)
    found = found.widened_by(gap_of(fits)) if len(fits) > 1 else found.without_intervals()
    return _Own(fits, logged, found.value)


def _judge(
    name: str,
    table: PolicyTable,
    fits: Sequence[Steps],
    own: _Own,
    parts: Parts,
    behaviour: BehaviourFound,
    config: OpeConfig,
) -> Estimates:
    episodes, held_out, plain = parts.episodes, parts.held_out, steps_of(table, parts, behaviour)
    support, most_support = support_of(table, parts, behaviour)
    gap = gap_of(fits)
    rows, is_cut = [], False
    for estimator in config.estimators:
        used, covered, weights_are_cut = weighed_for(estimator, plain, fits, config)
        is_cut |= weights_are_cut
        is_fitted = estimator in FITTED
        alike = own.fits[: len(used)] if is_fitted and own.fits else None
        found = bootstrap(ESTIMATORS[estimator], used, config.resamples, config.seed, behaviour=alike)
        size = float(effective_sample_size(used[0])[0]) if estimator in WEIGHTED else None
        stands_on_fit = size is None or covered is not None
        if is_too_small(size, covered) or (stands_on_fit and len(fits) == 1):
            # How the first observations vary says nothing of how much a single fit is off.
            found = found.without_intervals()
        elif stands_on_fit:
            found = found.widened_by(gap * (1 - (covered or 0.0)), gap_of(own.fits))
        remark = verdict(
            estimator,
            found,
            size,
            len(episodes),
            support=support,
            most_support=most_support,
            gap=gap,
            covered=covered,
            resamples=config.resamples,
        )
        fitted = (len(used), updates_of(parts.train, config)) if is_fitted else (0, 0)
        rows.append(Estimated(estimator, found, size, *fitted, remark))
    return Estimates(
        policy=name,
        discount=parts.discount,
        held_out=len(episodes),
        training=len(np.unique(parts.train.store.segment_end[parts.train.rows])),
        split={"held_out": held_out.config.held_out, "split_seed": held_out.config.split_seed},
        behaviour=own.logged,
        behaviour_fitted=own.fitted,
        behaviour_source=behaviour.source,
        support=support,
        rows=tuple(rows),
        warnings=(*behaviour.warnings, *_warnings(parts, config, len(fits), is_cut=is_cut)),
    )


def _warnings(parts: Parts, config: OpeConfig, refits: int, *, is_cut: bool) -> tuple[str, ...]:
    found = []
    if parts.num_cut:
        found.append(
            f"The log cuts {parts.num_cut:,} of {len(parts.episodes):,} held-out episodes: importance sampling and the "
            "behaviour's own return miss what would have come after. Fitted values do not, and are compared with the "
            "behaviour's own fitted value. Where a file ends in the middle of an episode, both parts count as episodes."
        )
    if is_cut:
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
