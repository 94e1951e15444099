"""Fitted Q evaluation: the values of given policies, learned from the data of another one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offrl.algorithms.algorithm import Metrics, frozen_copy
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.errors import ConfigError, RunError
from offrl.networks import EncoderFactory, default_encoder
from offrl.ope._progress import FittingBar
from offrl.ope.fitting import EpisodesAgain, default_learner, fit_on, rows_of, steps_ahead
from offrl.ope.looked_up import LookedUp
from offrl.ope.policy_table import PolicyTable, require_part
from offrl.replay import Replay
from offrl.replay.sampling import Sampling
from offrl.runs.files import read_run_config
from offrl.training import LearnerConfig

Followed: TypeAlias = PolicyTable | NDArray[np.integer[Any]]
"""What a policy does at the observations one step on: its table, or in less memory a greedy one's action, [N]."""


@dataclass(frozen=True)
class FittedQConfig:
    """Settings of fitted Q evaluation.

    Attributes:
        num_policies: P, evaluated together: they share an encoder.
        scale: by which the networks' outputs are multiplied and the errors divided, such as the largest return: Adam's
            steps fit numbers of about 1.
        low: no policy's value is below; None for no bound.
        high: no policy's value is above, likewise. Targets outside are cut: without that, actions that the data hardly
            has push the values of all policies away, each update further.
        policies: a hash of what they do, by which a run goes on with the same ones only.
    """

    num_policies: int = 1
    scale: float = 1.0
    low: float | None = None
    high: float | None = None
    policies: str = ""

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.whole("num_policies", least=1)
        checks.number("scale", "a number over 0", lambda scale: scale > 0)


class FittedQ(LookedUp[FittedQConfig]):
    """Fitted Q evaluation (Le et al. 2019, arXiv:1903.08738, algorithm 3), by gradient steps towards a target network.

    Of each transition it regresses Q_p(s, a) on r + discount * sum over a' of pi_p(a'|s') Q_p'(s', a') for all
    policies p at once, where Q' is the target network. What the policies do at s' is looked up (`follow`), so that an
    update costs what one of DQN costs.
    """

    name = "fitted-q"
    following: Tensor | None

    @property
    def num_policies(self) -> int:
        """P."""
        return self.config.num_policies

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder and a head for the q of all policies; target networks for both."""
        super().make_networks(encoder)
        self.target_encoder = frozen_copy(self.encoder)
        self.target_head = frozen_copy(self.head)
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
        q = self.logged_values(batch.observation, batch.action)
        following = self.following[batch.needed("index")]
        with torch.no_grad():
            next_q = self.split(self.target_head(self.target_encoder(batch.next_observation)))
            if following.dim() == 2:
                next_value = next_q.gather(2, following[:, :, None]).squeeze(2)
            else:
                next_value = (following * next_q).sum(dim=2)
            target = batch.reward[:, None] + batch.discount[:, None] * next_value
            if self.config.low is not None or self.config.high is not None:
                target = target.clamp(self.config.low, self.config.high)
        loss = ((q - target) / self.config.scale).square().mean()
        return loss, {"q": q.mean()}

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Encoder and head."""
        return [(self.encoder, self.target_encoder), (self.head, self.target_head)]

    def split(self, output: Tensor) -> Tensor:
        """Q, in units of the rewards. [B, P * A] -> [B, P, A]."""
        return self.config.scale * super().split(output)


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
    require_part(tables.values(), rows, "fit_q.tables")
    settings = FittedQConfig(len(tables), _scale(rows), *_bounds(rows), _hash_of(tables))
    model = FittedQ(rows.spec, settings, encoder=encoder, seed=seed)
    model.follow([*tables.values()])
    if run is not None:
        _require_own(Path(run), settings.policies)
    learner = learner or default_learner(steps_ahead(replay), updates)
    bar = FittingBar(title, updates, progress)
    return fit_on(rows, model, updates, batch_size=batch_size, learner=learner, bar=bar, device=device, run=run)


def fit_q_again(
    tables: Mapping[str, Followed], train: Replay, updates: int, number: int, count: int, *, seed: int, **how: Any
) -> FittedQ:
    """One of several fits: of the training episodes, and after the first of as many that are drawn from them again.

    Args:
        tables: What each policy does there.
        train: The training episodes.
        updates: Of this fit.
        number: Of this fit, from 0.
        count: Of all fits.
        seed: Of the first.
        how: See `fit_q`.
    """
    return fit_q(
        tables,
        train,
        updates,
        sampling="uniform" if number == 0 else EpisodesAgain(seed + number),
        seed=seed + number,
        title=f"fitted Q evaluation, {number + 1} of {count}",
        **how,
    )


def _require_own(run: Path, policies: str) -> None:
    """A run that is there must be of these policies, and of data on which they act alike."""
    if (run / "config.json").exists():
        recorded = read_run_config(run).get("algorithm_config")
        if isinstance(recorded, Mapping) and recorded.get("policies") != policies:
            raise RunError(
                "other policies, or the same on other data",
                where=run,
                expected="those of which these values were fitted",
                hint="name a new directory",
            )


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


def _bounds(replay: Replay) -> tuple[float | None, float | None]:
    """No policy's value lies outside: an episode may end after each step, or go on for ever."""
    discount, rewards = replay.config.discount, replay.store.rewards[replay.rows]
    if discount == 1:
        return None, None
    low, high = float(rewards.min()), float(rewards.max())
    return min(low, low / (1 - discount)), max(high, high / (1 - discount))
