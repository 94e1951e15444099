"""Fitted Q evaluation: the values of given policies, learned from the data of another one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offrl.algorithms.algorithm import Algorithm, Metrics, PolicyOutput, frozen_copy
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.errors import ConfigError
from offrl.networks import EncoderFactory, default_encoder
from offrl.networks.encoders import feature_dim
from offrl.networks.heads import Head
from offrl.ope._progress import FittingBar
from offrl.ope.fitting import default_learner, fit_on, rows_of
from offrl.ope.policy_table import PolicyTable
from offrl.ope.steps import Steps
from offrl.replay import Replay
from offrl.replay.sampling import Candidates, Sampling
from offrl.training import LearnerConfig
from offrl.training.optimizer import exact_convolutions

_AT_ONCE = 512

Followed: TypeAlias = PolicyTable | NDArray[np.integer[Any]]
"""What a policy does at the observations one step on: its table, or in less memory a greedy one's action, [N]."""


@dataclass(frozen=True)
class FittedQConfig:
    """Settings of fitted Q evaluation.

    Attributes:
        num_policies: P, evaluated together: they share an encoder.
        scale: by which the networks' outputs are multiplied and the errors divided, such as the largest return: Adam's
            steps fit numbers of about 1.
        low: no policy's value is below.
        high: no policy's value is above. Targets outside are cut: without that, actions that the data hardly has push
            the values of all policies away, each update further.
        policies: a hash of what they do, by which a run goes on with the same ones only.
    """

    num_policies: int = 1
    scale: float = 1.0
    low: float = -math.inf
    high: float = math.inf
    policies: str = ""

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.whole("num_policies", least=1)
        checks.number("scale", "a number over 0", lambda scale: scale > 0)


class FittedQ(Algorithm[FittedQConfig]):
    """Fitted Q evaluation (Le et al. 2019, arXiv:1903.08738, algorithm 3), by gradient steps towards a target network.

    Of each transition it regresses Q_p(s, a) on r + discount * sum over a' of pi_p(a'|s') Q_p'(s', a') for all
    policies p at once, where Q' is the target network. What the policies do at s' is looked up (`follow`), so that an
    update costs what one of DQN costs.
    """

    name = "fitted-q"
    needs = frozenset({"index"})
    following: Tensor | None

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder and a head for the q of all policies; target networks for both."""
        self.encoder = encoder(self.spec.observation_shape)
        self.q_head = Head(feature_dim(self.encoder), self.config.num_policies * self.spec.num_actions)
        self.target_encoder = frozen_copy(self.encoder)
        self.target_q_head = frozen_copy(self.q_head)
        self.register_buffer("following", None, persistent=False)

    def follow(self, tables: Sequence[Followed]) -> None:
        """Takes the policies to evaluate, as they act at the next observations of the replay that is trained on.

        Raises:
            ConfigError: another number of policies than `num_policies`.
        """
        if len(tables) != self.config.num_policies:
            raise ConfigError(f"{len(tables)} policies", where="FittedQ.follow", expected=f"{self.config.num_policies}")
        # Where all are greedy the actions say it all, in a small part of the memory.
        if all(isinstance(table, np.ndarray) or table.is_greedy for table in tables):
            actions = [t if isinstance(t, np.ndarray) else t.following.argmax(axis=1) for t in tables]
            self.following = torch.from_numpy(np.stack(actions, axis=1).astype(np.int64))
        else:
            sure = np.eye(self.spec.num_actions, dtype=np.float32)
            found = [sure[t] if isinstance(t, np.ndarray) else t.following for t in tables]
            self.following = torch.from_numpy(np.stack(found, axis=1))

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Mean squared error over the policies, in units of `scale`."""
        if self.following is None:
            raise ConfigError("no policies", where="FittedQ", expected="those to evaluate", hint="call follow(tables)")
        action = batch.action[:, None, None].expand(-1, self.config.num_policies, 1)
        q = self.policy_values(batch.observation).gather(2, action).squeeze(2)
        following = self.following[batch.needed("index")]
        with torch.no_grad():
            next_q = self._split(self.target_q_head(self.target_encoder(batch.next_observation)))
            if following.dim() == 2:
                next_value = next_q.gather(2, following[:, :, None]).squeeze(2)
            else:
                next_value = (following * next_q).sum(dim=2)
            target = batch.reward[:, None] + batch.discount[:, None] * next_value
            target = target.clamp(self.config.low, self.config.high)
        loss = ((q - target) / self.config.scale).square().mean()
        return loss, {"q": q.mean()}

    def policy_values(self, observation: Tensor) -> Tensor:
        """Q of every policy. [B, ...] -> [B, P, A]."""
        return self._split(self.q_head(self.encoder(observation)))

    def values(self, observation: Tensor) -> Tensor:
        """The mean of the policies' q, which is that of one where it is alone. [B, ...] -> [B, A]."""
        return self.policy_values(observation).mean(dim=1)

    def forward(self, observation: Tensor) -> PolicyOutput:
        """Ranks the actions by `values`; what is evaluated are policies, this is none of them."""
        q = self.values(observation)
        return PolicyOutput(scores=q, logits=torch.zeros_like(q))

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Encoder and q head."""
        return [(self.encoder, self.target_encoder), (self.q_head, self.target_q_head)]

    def _split(self, output: Tensor) -> Tensor:
        return self.config.scale * output.reshape(-1, self.config.num_policies, self.spec.num_actions)


def fit_q(
    tables: Mapping[str, Followed],
    replay: Replay,
    updates: int,
    *,
    batch_size: int = 256,
    learner: LearnerConfig | None = None,
    encoder: EncoderFactory = default_encoder,
    sampling: Sampling | str = "uniform",
    seed: int = 0,
    device: str = "auto",
    run: str | Path | None = None,
    title: str = "fitted Q evaluation",
    progress: bool | None = None,
) -> FittedQ:
    """The values of policies, fitted on a replay's training episodes.

    Args:
        tables: What each policy does there; see `tabulate`, and `Followed` for greedy ones.
        replay: Its steps are taken one by one, with rewards as logged, whatever its n_step, clip and scale.
        updates: Of the networks.
        batch_size: Of an update.
        learner: How an update is made; None takes `default_learner`.
        encoder: Of the observations.
        sampling: How often each transition is drawn.
        seed: Of the first weights and the batches.
        device: Where to train.
        run: A directory for checkpoints and metrics; None writes nothing. A run that is there goes on.
        title: Of the bar.
        progress: Whether to show a bar; None shows it on a terminal only.

    Raises:
        ConfigError: Tables of another part of the data.
        RunError: The run is of other policies or settings.
    """
    rows = rows_of(replay, sampling, seed, reward_clip=None, reward_scale=1.0)
    settings = FittedQConfig(len(tables), _scale(rows), *_bounds(rows), _hash_of(tables))
    model = FittedQ(rows.spec, settings, encoder=encoder, seed=seed)
    model.follow([*tables.values()])
    assert model.following is not None
    if len(model.following) != len(rows):
        raise ConfigError(
            f"a table of {len(model.following):,} transitions",
            where="fit_q.tables",
            expected=f"{len(rows):,}, the training part's",
            hint="pass tabulate(policy, replay) of the same replay",
        )
    learner = learner or default_learner(replay.config.discount, updates)
    bar = FittingBar(title, updates, progress)
    return fit_on(rows, model, updates, batch_size=batch_size, learner=learner, bar=bar, device=device, run=run)


@dataclass(frozen=True)
class EpisodesAgain:
    """A sampling: as many episodes as there are, drawn with replacement, each step as often as its episode.

    Fits on different draws say how much a fit depends on its data.
    """

    seed: int

    def weights(self, candidates: Candidates) -> NDArray[np.float64]:
        """[n]."""
        episodes, which = np.unique(candidates.episode, return_inverse=True)
        drawn = np.random.default_rng(self.seed).integers(len(episodes), size=len(episodes))
        counts = np.bincount(drawn, minlength=len(episodes))
        return counts[which].astype(np.float64)

    def __str__(self) -> str:
        return f"episodes-again:{self.seed}"


def _hash_of(tables: Mapping[str, Followed]) -> str:
    found = hashlib.sha256()
    for name, table in tables.items():
        found.update(name.encode())
        found.update(np.ascontiguousarray(table if isinstance(table, np.ndarray) else table.following).data)
    return found.hexdigest()[:16]


def _scale(replay: Replay) -> float:
    """About the largest discounted return that the data knows of; 1 where all rewards are 0."""
    discount, rewards = replay.config.discount, replay.store.rewards[replay.rows].astype(np.float64)
    _, lengths = np.unique(replay.store.segment_end[replay.rows], return_counts=True)
    steps = float(lengths.mean()) if discount == 1 else min(float(lengths.mean()), 1 / (1 - discount))
    return float(np.sqrt(np.mean(rewards**2))) * steps or 1.0


def _bounds(replay: Replay) -> tuple[float, float]:
    """No policy's value lies outside: an episode may end after each step, or go on for ever."""
    discount, rewards = replay.config.discount, replay.store.rewards[replay.rows]
    if discount == 1:
        return -math.inf, math.inf
    low, high = float(rewards.min()), float(rewards.max())
    return min(low, low / (1 - discount)), max(high, high / (1 - discount))


@dataclass(frozen=True)
class FittedValues:
    """What fitted Q evaluation says of N transitions in E episodes, for P policies.

    Attributes:
        q: float64 [P, N], Q(s, a) of the logged actions.
        value: float64 [P, N], V(s), the sum over a of pi(a|s) Q(s, a).
        end_value: float64 [P, E], V of what each episode's last step led to; 0 where it terminated.
    """

    q: NDArray[np.float64]
    value: NDArray[np.float64]
    end_value: NDArray[np.float64]


def read(model: FittedQ, replay: Replay, tables: Sequence[PolicyTable]) -> FittedValues:
    """The fitted values on the episodes of a replay, its held-out part say.

    Args:
        model: Of as many policies as there are tables.
        replay: The episodes.
        tables: What each policy does there.
    """
    store, rows = replay.store, replay.rows
    action = store.actions[rows]
    device = next(model.parameters()).device

    def ask(observations: NDArray[Any]) -> NDArray[np.float64]:
        with torch.inference_mode(), exact_convolutions(device):
            prepared = model.spec.normalise(torch.from_numpy(observations).to(device))
            found: NDArray[np.float64] = model.policy_values(prepared).double().cpu().numpy()
            return found

    q = np.empty((len(tables), len(rows)))
    value = np.empty((len(tables), len(rows)))
    for start in range(0, len(rows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        found = ask(store.observations(rows[part]))
        q[:, part] = found[np.arange(len(found)), :, action[part]].T
        for number, table in enumerate(tables):
            value[number, part] = (table.current[part] * found[:, number]).sum(axis=1)
    last = np.flatnonzero(store.segment_end[rows] == rows)
    end_value = np.zeros((len(tables), len(last)))
    cut = np.flatnonzero(~store.terminated[rows[last]])
    for start in range(0, len(cut), _AT_ONCE):
        chosen = cut[start : start + _AT_ONCE]
        found = ask(store.next_observations(rows[last[chosen]]))
        for number, table in enumerate(tables):
            end_value[number, chosen] = (table.following[last[chosen]] * found[:, number]).sum(axis=1)
    return FittedValues(q, value, end_value)


def fitting_gap(steps: Steps) -> float:
    """By how much values are off because the fit has not ended: 0 where held-out steps do not show it.

    A fitted Q that has converged is right on average by its own equation: the mean of r + discount * V(s') - Q(s, a) is
    0. Where Q still grows towards its values the mean is positive. What is missing is that mean for each step to come,
    discounted: mean / (1 - discount) where the log cuts episodes, and where all of them terminate the steps of the
    longest one, so that for bandit data it is the mean itself.

    Args:
        steps: With the model's values.

    Returns:
        What is missing, in units of returns; 0 where it is within two standard errors (over episodes) of 0, or where
        the discount is 1.
    """
    assert steps.q is not None
    assert steps.value is not None
    if steps.discount == 1 or len(steps) < 2:
        return 0.0
    following = np.pad(steps.value[:, 1:], ((0, 0), (0, 1)))
    if steps.end_value is not None:
        following[np.arange(len(steps)), steps.length - 1] = steps.end_value
    inside = np.arange(steps.reward.shape[1]) < steps.length[:, None]
    errors = np.where(inside, steps.reward + steps.discount * following - steps.q, 0.0)
    sums = errors.sum(axis=1)
    mean = sums.sum() / steps.length.sum()
    deviation = np.sqrt(np.sum((sums - mean * steps.length) ** 2)) / steps.length.sum()
    is_cut = steps.end_value is not None and bool((steps.end_value != 0).any())
    horizon = (1.0 if is_cut else 1 - steps.discount ** int(steps.length.max())) / (1 - steps.discount)
    return 0.0 if abs(mean) < 2 * deviation else float(mean * horizon)
