"""The behaviour's probabilities: which logged ones count, and a calibrated model where they do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.algorithms import BC
from offrl.checks import is_number
from offrl.errors import ConfigError, DatasetError
from offrl.networks import EncoderFactory, default_encoder
from offrl.ope._calibration import expected_calibration_error, fit_temperature, negative_log_likelihood, softmax
from offrl.ope._progress import FittingBar
from offrl.ope.episodes import Episodes, in_parts, require_replay
from offrl.ope.fitting import fit_on, rows_of
from offrl.policies import TorchPolicy
from offrl.replay import Replay
from offrl.statistics import LEAST_VALUES
from offrl.training import FitConfig, LearnerConfig

_MOST_CERTAIN = 0.01  # share of the episodes; in short ones a stochastic behaviour may happen to be certain

_MOST_SUPPORT_FLOOR = 0.05


def support_floor(num_legal: NDArray[np.int64], likeliest: NDArray[Any] | float = 0.0) -> NDArray[np.float64]:
    """An action that the behaviour takes with a lower probability does not count as supported by the data. [N] -> [N].

    It is 0.05. With more than ten legal actions it is lower: a tenth of the likeliest action's probability, but at
    least half of what each had if all were equally likely.

    Args:
        num_legal: How many actions are legal.
        likeliest: The probability of the likeliest action [N]; 0 where that is not known.
    """
    floor: NDArray[np.float64] = np.clip(0.1 * np.asarray(likeliest), 0.5 / num_legal, _MOST_SUPPORT_FLOOR)
    return floor


def num_legal_actions(replay: Replay) -> NDArray[np.int64]:
    """How many actions were legal at each transition of a replay, by the data's masks. int64 [N]."""
    mask = replay.store.action_mask
    if mask is None:
        return np.full(len(replay), replay.spec.num_actions)
    found: NDArray[np.int64] = mask[replay.rows].sum(axis=1)
    return found


@dataclass(frozen=True)
class LoggedBehaviour:
    """What the log says of the behaviour's probabilities; exactly one of the first two is None.

    Attributes:
        probability: float64 [N], of the logged action of each transition of the replay, where they can be used.
        reason: Why they cannot, in words.
        doubts: What speaks against those that can, in sentences.
    """

    probability: NDArray[np.float64] | None
    reason: str | None
    doubts: tuple[str, ...] = ()


def logged_behaviour(replay: Replay, *, most_certain: float = _MOST_CERTAIN) -> LoggedBehaviour:
    """The logged probabilities, where they are those of a behaviour that explores.

    Importance sampling asks how likely the behaviour was to do otherwise. A driver that logs probability 1 for whatever
    it does, or a mixture that logs NaN, does not say: then `fit_behaviour` is what is left. A log with a few episodes
    that are certain throughout (1 in 100 or less) counts as exploring, and so do steps at which one action only was
    legal.

    Args:
        replay: Whole episodes.
        most_certain: The share of the episodes that may be certain throughout.

    Raises:
        ConfigError: Not a `Replay` of whole episodes.
        DatasetError: A logged action has probability 0, or above 1.
    """
    require_replay(replay, "logged_behaviour")
    store, rows = replay.store, replay.rows
    if store.behaviour_probability is None:
        return LoggedBehaviour(None, "the data has no behaviour probabilities")
    probability = store.behaviour_probability[rows].astype(np.float64)
    wrong = np.flatnonzero((probability <= 0) | (probability > 1))
    if len(wrong):
        episode = int(store.episode_of_rows()[rows[wrong[0]]])
        raise DatasetError(
            f"behaviour_probability is {probability[wrong[0]]:g} for the action taken in episode {episode}, and "
            f"0 or above 1 at {len(wrong):,} transitions in all",
            where=store.path,
            expected="over 0, at most 1: the action was taken",
            hint="log the probability with which the behaviour chose the action, and NaN where it is unknown",
        )
    num_unknown = int(np.isnan(probability).sum())
    if num_unknown:
        return LoggedBehaviour(None, f"{num_unknown:,} of {len(rows):,} logged actions have no probability (NaN)")
    episodes = Episodes.of(replay)
    num_legal = num_legal_actions(replay)
    chose = episodes.pad(num_legal > 1, fill=False)
    is_certain = chose.any(axis=1) & ~(chose & (episodes.behaviour < 1)).any(axis=1)
    certain = (
        f"{int(is_certain.sum()):,} of {len(episodes):,} episodes are logged with probability 1 at every step: "
        "a behaviour that does not explore says nothing of other actions"
    )
    if is_certain.mean() > most_certain:
        return LoggedBehaviour(None, certain)
    doubts = [f"{certain}."] if is_certain.mean() > _MOST_CERTAIN else []
    return LoggedBehaviour(probability, None, (*doubts, *_misfit(episodes, probability, num_legal)))


def _misfit(episodes: Episodes, probability: NDArray[np.float64], num_legal: NDArray[np.int64]) -> Iterator[str]:
    """A sentence where the logged actions came up more often than their probabilities say.

    The mean of 1 / mu(a|s) over what the behaviour mu draws is the number of actions that it may draw.
    """
    if len(episodes) < LEAST_VALUES:
        return
    excess = episodes.pad(1 / probability - num_legal).sum(axis=1)  # of each episode: its steps are not independent
    error, slack = excess.std(ddof=1) / len(excess) ** 0.5, 0.01 * num_legal.sum() / len(excess)  # for rounded ones
    if excess.mean() > 3 * error + slack:
        yield (
            f"The logged probabilities do not fit the actions: 1 / probability is {np.mean(1 / probability):,.1f} on "
            f"average, where at most {num_legal.mean():,.1f}, the number of actions, is possible. Importance sampling "
            "by them is wrong: take fitted ones."
        )


@dataclass(frozen=True)
class FittedBehaviour:
    """A behaviour model's probabilities at N held-out transitions, and how good they are.

    They are estimates. What is computed from them is biased where the model is wrong, and intervals over episodes do
    not know of it.

    Attributes:
        probability: float64 [N], of the logged actions, calibrated, and raised to `floor` where it was lower.
        probabilities: float32 [N, A], of all actions, calibrated and not raised.
        temperatures: By which the logits of the two halves of the held-out episodes are divided, each fitted on the
            other half; over 1 where the model was too sure.
        negative_log_likelihood: Mean of -log probability of the logged actions, before and after calibration, in nats.
        calibration_error: Expected calibration error before and after, in [0, 1].
        floor: As given.
        raised: Share of the logged actions whose probability was raised.
    """

    probability: NDArray[np.float64]
    probabilities: NDArray[np.float32]
    temperatures: tuple[float, float]
    negative_log_likelihood: tuple[float, float]
    calibration_error: tuple[float, float]
    floor: float
    raised: float

    def __str__(self) -> str:
        """One sentence for a report."""
        likelihood, error = self.negative_log_likelihood, self.calibration_error
        return (
            "behaviour probabilities were fitted, not logged: temperatures "
            f"{self.temperatures[0]:.2f} and {self.temperatures[1]:.2f}, negative log likelihood {likelihood[0]:.3f} "
            f"before and {likelihood[1]:.3f} after calibration, calibration error {error[0]:.1%} and {error[1]:.1%}; "
            f"{self.raised:.1%} of them were raised to {self.floor:g}"
        )


def fit_behaviour(
    train: Replay,
    held_out: Replay,
    *,
    updates: int = 2000,
    batch_size: int = FitConfig.batch_size,
    seed: int = 0,
    floor: float = 1e-3,
    learner: LearnerConfig | None = None,
    encoder: EncoderFactory = default_encoder,
    device: str = "auto",
    run: str | Path | None = None,
    progress: bool | None = None,
) -> FittedBehaviour:
    """Behaviour cloning on the training episodes, calibrated on held-out ones.

    The model's logits are divided by a temperature that minimises the negative log likelihood (Guo et al. 2017,
    arXiv:1706.04599). It is cross-fitted: each half of the held-out episodes gets the temperature of the other half, so
    that no probability has seen the action that it is of.

    Args:
        train: The episodes to learn from; each of its transitions is drawn equally often, whatever its `sampling`.
        held_out: The episodes to read probabilities at, two or more: `train.held_out()`.
        updates: Of behaviour cloning.
        batch_size: Of an update.
        seed: Seed of the model, of its batches and of the halves.
        floor: The least probability of a logged action, in [0, 1): no ratio is above 1 / floor. It biases estimates:
            actions that were rarer count too little, so with rewards that are never negative the value of a policy that
            prefers them is too low.
        learner: How an update is made; None takes the defaults, which choose the precision by a measurement: with
            `LearnerConfig(precision="fp32")` a CPU gives the same probabilities each time.
        encoder: Of the observations.
        device: Where to train.
        run: A directory for checkpoints and metrics; None writes nothing. A run that is there goes on.
        progress: Whether to show a bar; None shows it on a terminal only.

    Raises:
        ConfigError: Held-out episodes that are also trained on, or fewer than two; a setting outside what is allowed.
        RunError: The run is of other data or settings.
        SpecMismatchError: The two are of different tasks.
    """
    if not is_number(floor) or not 0 <= floor < 1:
        raise ConfigError(f"{floor!r}", where="fit_behaviour.floor", expected="a number in [0, 1)")
    require_replay(train, "fit_behaviour.train")
    require_replay(held_out, "fit_behaviour.held_out")
    train.spec.require_same(held_out.spec, where="held-out replay", hint="pass the held_out() of the training replay")
    episodes = Episodes.of(held_out)
    if len(episodes) < 2:
        raise ConfigError(
            "one held-out episode",
            where="fit_behaviour",
            expected="two or more, to calibrate on one half what is read on the other",
            hint="open the data with a larger held_out",
        )
    require_apart(train, held_out)
    rows = rows_of(train, "uniform", seed)
    model = fit_on(
        rows,
        BC(rows.spec, encoder=encoder, seed=seed),
        updates,
        batch_size=batch_size,
        learner=learner or LearnerConfig(),
        bar=FittingBar("behaviour model", updates, progress),
        device=device,
        run=run,
    )
    policy = TorchPolicy(model, threshold=0.0)
    action = held_out.store.actions[held_out.rows]
    logits = _logits(policy, held_out)
    is_second = np.zeros(len(episodes), np.bool_)
    is_second[np.random.default_rng(seed).permutation(len(episodes))[len(episodes) // 2 :]] = True
    in_second = np.repeat(is_second, episodes.length)
    temperatures = tuple(fit_temperature(logits[other], action[other]) for other in (in_second, ~in_second))
    before = softmax(logits)
    after = softmax(logits / np.where(in_second, temperatures[1], temperatures[0])[:, None])
    probability = after[np.arange(len(action)), action]
    return FittedBehaviour(
        probability=np.maximum(probability, floor),
        probabilities=after.astype(np.float32),
        temperatures=(temperatures[0], temperatures[1]),
        negative_log_likelihood=(negative_log_likelihood(before, action), negative_log_likelihood(after, action)),
        calibration_error=(expected_calibration_error(before, action), expected_calibration_error(after, action)),
        floor=floor,
        raised=float((probability < floor).mean()),
    )


def require_apart(train: Replay, held_out: Replay) -> None:
    """Refuses held-out episodes of which some are trained on: what is read there would flatter the model.

    Raises:
        ConfigError: Both are of the same data, and share transitions.
    """
    if train.fingerprint == held_out.fingerprint and np.intersect1d(train.rows, held_out.rows).size:
        raise ConfigError(
            "held-out episodes are among the training episodes",
            where="held-out replay",
            expected="two parts of one split",
            hint="open the data with held_out=0.1, say, and pass that replay and its held_out()",
        )


def _logits(policy: TorchPolicy, replay: Replay) -> NDArray[np.float64]:
    """The logits of the actions, -inf for illegal ones, at each transition. [N, A]."""
    found: list[NDArray[Any]] = []
    store = replay.store
    for rows in in_parts(replay.rows):
        legal = None if store.action_mask is None else store.action_mask[rows]  # for the behaviour, not for a policy
        choices = policy.choices(store.observations(rows), legal)
        found.append(choices.logits.masked_fill(~choices.allowed, -np.inf).cpu().numpy())
    return np.concatenate(found).astype(np.float64)
