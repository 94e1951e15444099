"""What policies are worth by logged data alone: all estimators together, and what their numbers rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from offrl.errors import ConfigError
from offrl.networks import EncoderFactory, default_encoder
from offrl.ope.behaviour import SUPPORT_FLOOR, fit_behaviour, logged_behaviour, require_apart
from offrl.ope.config import OpeConfig
from offrl.ope.episodes import Episodes
from offrl.ope.estimators import ESTIMATORS, FITTED, WEIGHTED, effective_sample_size
from offrl.ope.fitted_q import FittedQ, fit_q
from offrl.ope.fitted_values import FittedValues, fitting_gap, read
from offrl.ope.fitting import LEAST_UPDATES, EpisodesAgain, default_learner, enough_updates
from offrl.ope.intervals import bootstrap
from offrl.ope.judgement import LEAST_EFFECTIVE, Estimated, Estimates, verdict
from offrl.ope.policy_table import Evaluated, PolicyTable, tabulate
from offrl.ope.steps import Steps, clipped
from offrl.replay import Replay
from offrl.statistics import LEAST_VALUES
from offrl.training import LearnerConfig

_FEW_EPISODES = 30


def estimate(
    policy: Evaluated,
    replay: Replay,
    config: OpeConfig | None = None,
    *,
    name: str = "policy",
    encoder: EncoderFactory = default_encoder,
    device: str = "auto",
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
        progress: Whether to show bars; None shows them on a terminal only.

    Raises:
        ConfigError: No held-out episodes, a replay of some actions only, a policy that gives no probabilities.
        DatasetError: A logged action has probability 0.
        SpecMismatchError: The policy is of another task.
    """
    return estimate_each({name: policy}, replay, config, encoder=encoder, device=device, progress=progress)[name]


def estimate_each(
    policies: Mapping[str, Evaluated],
    replay: Replay,
    config: OpeConfig | None = None,
    *,
    encoder: EncoderFactory = default_encoder,
    device: str = "auto",
    progress: bool | None = None,
) -> dict[str, Estimates]:
    """What each of several policies is worth: `estimate`, with all fitted values from one pass over the data.

    Args:
        policies: By name.
        replay: See `estimate`, as for all that follow.
        config: How.
        encoder: Of the networks that are fitted.
        device: Where they are fitted.
        progress: Whether to show bars.

    Raises:
        ConfigError, DatasetError, SpecMismatchError: see `estimate`; no policies.
    """
    config = config or OpeConfig()
    if not policies:
        raise ConfigError("no policies", where="estimate_each", expected="one or more")
    parts = _parts(replay, config)
    behaviour = _behaviour(parts, config, encoder, device, progress)
    at_held_out = {
        name: tabulate(each, parts.held_out, name=name, progress=progress) for name, each in policies.items()
    }
    values: list[FittedValues] = []
    if FITTED & {*config.estimators}:
        at_training = {
            name: tabulate(each, parts.train, name=name, progress=progress) for name, each in policies.items()
        }
        for number in range(config.refits):
            model = _fitted(at_training, parts.train, config, number, encoder, device, progress)
            values.append(read(model, parts.held_out, [*at_held_out.values()]))
    return {
        name: _judge(name, number, table, parts, behaviour, values, config)
        for number, (name, table) in enumerate(at_held_out.items())
    }


class _Parts(NamedTuple):
    """The data, in single steps with rewards as logged."""

    train: Replay
    held_out: Replay
    episodes: Episodes
    discount: float


class _BehaviourFound(NamedTuple):
    probability: NDArray[np.float64]
    """[N], of the logged actions."""
    all_actions: NDArray[np.float32] | None
    """[N, A]; None where only those of the logged actions are known."""
    source: str
    warnings: tuple[str, ...]


def _parts(replay: Replay, config: OpeConfig) -> _Parts:
    held_out = replay.held_out() if isinstance(replay, Replay) else None
    if held_out is None:
        raise ConfigError(
            "no held-out episodes",
            where="estimate.replay",
            expected="a Replay over a store, of which some episodes are held out",
            hint="open_replay(..., held_out=0.2); values read where models were fitted would flatter them",
        )
    discount = replay.config.discount if config.discount is None else config.discount
    plain: dict[str, Any] = {
        "n_step": 1,
        "reward_clip": None,
        "reward_scale": 1.0,
        "sampling": "uniform",
        "include": (),
        "legal_actions": None,
    }
    train, test = (Replay(part.store, replace(part.config, discount=discount, **plain)) for part in (replay, held_out))
    require_apart(train, test)
    return _Parts(train, test, Episodes.of(test), discount)


def _behaviour(
    parts: _Parts, config: OpeConfig, encoder: EncoderFactory, device: str, progress: bool | None
) -> _BehaviourFound:
    """The behaviour's probabilities at the held-out transitions."""
    reason = "asked for"
    if config.behaviour != "fitted":
        logged = logged_behaviour(parts.held_out)
        if logged.probability is not None:
            return _BehaviourFound(logged.probability, None, "logged", ())
        reason = str(logged.reason)
        if config.behaviour == "logged":
            raise ConfigError(
                f"logged probabilities that say nothing: {reason}",
                where="OpeConfig.behaviour",
                expected="those of a behaviour that explores",
                hint='take behaviour="fitted"',
            )
    fitted = fit_behaviour(
        parts.train,
        parts.held_out,
        updates=config.updates or LEAST_UPDATES,
        batch_size=config.batch_size,
        seed=config.seed,
        learner=LearnerConfig(precision=config.precision, compile="off", threads=torch.get_num_threads()),
        device=device,
        encoder=encoder,
        progress=progress,
    )
    return _BehaviourFound(
        fitted.probability, fitted.probabilities, f"fitted, not logged ({reason})", (f"{str(fitted).capitalize()}.",)
    )


def _fitted(
    tables: Mapping[str, PolicyTable],
    train: Replay,
    config: OpeConfig,
    number: int,
    encoder: EncoderFactory,
    device: str,
    progress: bool | None,
) -> FittedQ:
    """Fitted Q of all policies: on the training episodes, or in a refit on as many that are drawn from them."""
    seed = config.seed + number
    updates = _updates(train, config)
    sampling: Any = "uniform" if number == 0 else EpisodesAgain(seed)
    return fit_q(
        tables,
        train,
        updates,
        batch_size=config.batch_size,
        learner=default_learner(train.config.discount, updates, config.learning_rate, config.precision),
        encoder=encoder,
        sampling=sampling,
        seed=seed,
        device=device,
        title=f"fitted Q evaluation, {number + 1} of {config.refits}",
        progress=progress,
    )


def _updates(train: Replay, config: OpeConfig) -> int:
    return config.updates or enough_updates(train)


def _judge(
    name: str,
    number: int,
    table: PolicyTable,
    parts: _Parts,
    behaviour: _BehaviourFound,
    values: Sequence[FittedValues],
    config: OpeConfig,
) -> Estimates:
    episodes, held_out = parts.episodes, parts.held_out
    action = held_out.store.actions[held_out.rows]
    taken = table.current[np.arange(len(action)), action].astype(np.float64)
    # The policy's probability of the logged action, by the behaviour's.
    ratio = episodes.pad(taken / behaviour.probability, fill=1.0)
    plain = Steps(episodes.reward, ratio, episodes.length, parts.discount)
    fits = [
        replace(
            plain,
            q=episodes.pad(each.q[number]),
            value=episodes.pad(each.value[number]),
            end_value=each.end_value[number],
        )
        for each in values
    ]
    support = _support(table, taken, behaviour)
    gap = float(np.mean([fitting_gap(each) for each in fits])) if fits else 0.0  # the value is the mean of theirs, too
    rows = []
    for estimator in config.estimators:
        is_fitted, is_weighted = estimator in FITTED, estimator in WEIGHTED
        used = fits if is_fitted else [plain]
        if config.clip is not None and is_weighted:
            used = [clipped(each, config.clip) for each in used]
        found = bootstrap(ESTIMATORS[estimator], used, config.resamples, config.seed)
        size = None
        if not is_weighted:
            found = found.reaching(gap)
        elif (size := float(effective_sample_size(used[0])[0])) < LEAST_EFFECTIVE and estimator != "wdr":
            found = found.without_intervals()
        remark = verdict(estimator, found, size, len(episodes), support=support, gap=gap)
        fitted = (len(used), _updates(parts.train, config)) if is_fitted else (0, 0)
        rows.append(Estimated(estimator, found, size, *fitted, remark))
    return Estimates(
        policy=name,
        discount=parts.discount,
        held_out=len(episodes),
        training=len(np.unique(parts.train.store.segment_end[parts.train.rows])),
        split={"held_out": held_out.config.held_out, "split_seed": held_out.config.split_seed},
        behaviour=rows[0].estimate.behaviour,
        behaviour_source=behaviour.source,
        support=support,
        rows=tuple(rows),
        warnings=(*behaviour.warnings, *_warnings(parts, config)),
    )


def _support(table: PolicyTable, taken: NDArray[np.float64], behaviour: _BehaviourFound) -> float:
    """The share of the policy's actions that the behaviour takes often enough.

    Where the log knows the probability of its own action only, it is estimated on the steps at which the two agree:
    the mean of pi(a|s) over mu(a|s) is 1 where the behaviour takes all that the policy takes.
    """
    if behaviour.all_actions is not None:
        return float((table.current * (behaviour.all_actions >= SUPPORT_FLOOR)).sum(axis=1).mean())
    seen = np.where(behaviour.probability >= SUPPORT_FLOOR, taken / behaviour.probability, 0.0)
    return float(min(seen.mean(), 1.0))


def _warnings(parts: _Parts, config: OpeConfig) -> tuple[str, ...]:
    found = []
    cut = int((~parts.episodes.terminated).sum())
    if cut and parts.discount ** float(np.mean(parts.episodes.length[~parts.episodes.terminated])) > 0.01:
        found.append(
            f"The log cuts {cut:,} of {len(parts.episodes):,} held-out episodes: importance sampling and the "
            "behaviour's own return miss what would have come after, fitted values do not: differences of these to "
            "the behaviour are too high where rewards are positive."
        )
    if config.clip is not None:
        found.append(
            f"Weights above {config.clip:g} are cut: with rewards that are never negative, too low on average."
        )
    if config.refits == 1 and FITTED & {*config.estimators}:
        found.append("Fitted Q was fitted once: intervals of what reads its values do not know how much fits differ.")
    if (count := len(parts.episodes)) < LEAST_VALUES:
        found.append(f"Only {count} held-out episode{'s' * (count > 1)}: too few for intervals.")
    elif count < _FEW_EPISODES:
        found.append(f"Only {count} held-out episodes: the intervals are wide, and hold less often than they say.")
    return tuple(found)
