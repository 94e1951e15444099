"""What policies are worth by logged data alone: all estimators together, and what their numbers rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from offrl.checks import Checks, is_number
from offrl.errors import ConfigError
from offrl.networks import EncoderFactory, default_encoder
from offrl.ope import estimators as equations
from offrl.ope.behaviour import fit_behaviour, logged_behaviour, require_apart
from offrl.ope.criteria import SUPPORT_FLOOR
from offrl.ope.episodes import Episodes
from offrl.ope.estimators import Estimator, effective_sample_size
from offrl.ope.fitted_q import EpisodesAgain, FittedQ, FittedValues, fit_q, fitting_gap, read
from offrl.ope.fitting import default_learner
from offrl.ope.intervals import bootstrap
from offrl.ope.judgement import Estimated, Estimates, verdict
from offrl.ope.policy_table import Evaluated, PolicyTable, tabulate
from offrl.ope.steps import Steps, clipped
from offrl.replay import Replay
from offrl.statistics import LEAST_VALUES
from offrl.training import LearnerConfig

Source = Literal["auto", "logged", "fitted"]

ESTIMATORS: Mapping[str, Estimator] = {
    "fqe": equations.direct_method,
    "wdr": equations.weighted_doubly_robust,
    "dr": equations.doubly_robust,
    "wpdis": equations.weighted_per_decision_is,
    "pdis": equations.per_decision_is,
    "wis": equations.weighted_is,
    "is": equations.trajectory_is,
}
"""By the names that the field uses; FQE is the direct method with the values of fitted Q evaluation."""
FITTED = frozenset({"fqe", "wdr", "dr"})
"""Those that read values of fitted Q evaluation."""
WEIGHTED = frozenset(ESTIMATORS) - {"fqe"}
"""Those that read the behaviour's probabilities."""
_FEW_EPISODES = 30


@dataclass(frozen=True)
class OpeConfig:
    """How `estimate` works.

    Attributes:
        estimators: Some of `ESTIMATORS`.
        discount: Per step, in [0, 1]; None takes the replay's.
        behaviour: "logged" reads the behaviour's probabilities from the data and refuses those that say nothing;
            "fitted" fits a model of the behaviour; "auto" takes the logged ones where they count, else fits.
        updates: Of fitted Q evaluation, each refit; and of the behaviour model.
        refits: How often fitted Q evaluation is fitted anew, each time on training episodes drawn again with
            replacement but for the first: the intervals of what reads its values are over episodes and refits.
        batch_size: Of fitted Q evaluation; the behaviour model has the defaults of `FitConfig` and `LearnerConfig`.
        learning_rate: Of fitted Q evaluation.
        precision: Of both.
        clip: The largest weight of an episode, over 0; None clips nothing. Clipping bounds the variance and makes
            returns of positive rewards too low on average.
        resamples: Of the bootstrap over held-out episodes.
        seed: Of everything that is drawn.
    """

    estimators: Sequence[str] = tuple(ESTIMATORS)
    discount: float | None = None
    behaviour: Source = "auto"
    updates: int = 5_000
    refits: int = 3
    batch_size: int = 256
    learning_rate: float = 5e-4
    precision: Literal["fp32", "bf16"] = "fp32"
    clip: float | None = None
    resamples: int = 1_000
    seed: int = 0

    def __post_init__(self) -> None:
        checks = Checks(self)
        is_list = isinstance(self.estimators, Sequence) and not isinstance(self.estimators, str)
        known = is_list and len(self.estimators) > 0 and all(name in ESTIMATORS for name in self.estimators)
        checks.that(known, "estimators", f"one or more of {', '.join(ESTIMATORS)}")
        if self.discount is not None:
            checks.number("discount", "a number in [0, 1], or None", lambda discount: 0 <= discount <= 1)
        checks.choice("behaviour", get_args(Source))
        checks.choice("precision", ("fp32", "bf16"))
        for name in ("updates", "refits", "batch_size"):
            checks.whole(name, least=1)
        checks.whole("resamples", least=100)
        checks.whole("seed", least=0)
        checks.number("learning_rate", "a number over 0", lambda rate: rate > 0)
        checks.that(self.clip is None or (is_number(self.clip) and self.clip > 0), "clip", "a number over 0, or None")


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
        replay: Opened with `held_out` over 0; its n_step, reward_clip, reward_scale and sampling have no say.
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
        updates=config.updates,
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
    sampling: Any = "uniform" if number == 0 else EpisodesAgain(seed)
    return fit_q(
        tables,
        train,
        config.updates,
        batch_size=config.batch_size,
        learner=default_learner(train.config.discount, config.updates, config.learning_rate, config.precision),
        encoder=encoder,
        sampling=sampling,
        seed=seed,
        device=device,
        title=f"fitted Q evaluation, {number + 1} of {config.refits}",
        progress=progress,
    )


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
    gap = max(map(fitting_gap, fits), key=abs, default=0.0)
    rows = []
    for estimator in config.estimators:
        is_fitted, is_weighted = estimator in FITTED, estimator in WEIGHTED
        used = fits if is_fitted else [plain]
        if config.clip is not None and is_weighted:
            used = [clipped(each, config.clip) for each in used]
        found = bootstrap(ESTIMATORS[estimator], used, config.resamples, config.seed)
        size = float(effective_sample_size(used[0])[0]) if is_weighted else None
        remark = verdict(found, size, len(episodes), support=support, is_fitted=is_fitted, gap=gap)
        rows.append(Estimated(estimator, found, size, len(used) if is_fitted else 0, remark))
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
            "behaviour's own return miss what would have come after, fitted values do not."
        )
    if config.clip is not None:
        found.append(
            f"Weights above {config.clip:g} are cut: with rewards that are never negative, too low on average."
        )
    if (count := len(parts.episodes)) < LEAST_VALUES:
        found.append(f"Only {count} held-out episode{'s' * (count > 1)}: too few for intervals.")
    elif count < _FEW_EPISODES:
        found.append(f"Only {count} held-out episodes: the intervals are wide, and hold less often than they say.")
    return tuple(found)
