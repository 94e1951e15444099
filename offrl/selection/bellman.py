"""The regression of candidates' one-step backups, for supervised Bellman validation and EMSBE's correction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offrl.algorithms.algorithm import Metrics
from offrl.batch import Batch
from offrl.checks import Checks
from offrl.errors import ConfigError
from offrl.networks import EncoderFactory, default_encoder
from offrl.ope._progress import FittingBar
from offrl.ope.fitting import default_learner, fit_on, rows_of
from offrl.ope.looked_up import LookedUp, read_values
from offrl.replay import Replay
from offrl.training import LearnerConfig


@dataclass(frozen=True)
class BackupRegressionConfig:
    """Settings of the regression.

    Attributes:
        num_candidates: K, regressed together: they share an encoder.
    """

    num_candidates: int = 1

    def __post_init__(self) -> None:
        Checks(self).whole("num_candidates", least=1)


class BackupRegression(LookedUp[BackupRegressionConfig]):
    """The mean of each candidate's one-step backup r + discount * q_k(s', pi_k(s')), given s and a.

    Supervised Bellman validation (Zitovsky et al. 2023, arXiv:2302.00141) measures a candidate's q by it. The backups
    of all candidates are computed once and looked up (`learn`), so that an update costs what one of behaviour cloning
    costs, without the passes through target networks.
    """

    name = "backup-regression"
    backups: Tensor | None

    @property
    def num_policies(self) -> int:
        """K."""
        return self.config.num_candidates

    def make_networks(self, encoder: EncoderFactory) -> None:
        """An encoder and a head for the backups of all candidates and actions."""
        super().make_networks(encoder)
        self.register_buffer("backups", None, persistent=False)

    def learn(self, backups: NDArray[np.floating]) -> None:
        """Takes what to regress on, float [N, K], of the transitions of the replay that is trained on.

        Raises:
            ConfigError: another number of candidates than `num_candidates`.
        """
        if backups.ndim != 2 or backups.shape[1] != self.config.num_candidates:
            raise ConfigError(
                f"backups of shape {list(backups.shape)}",
                where="BackupRegression.learn",
                expected=f"[transitions, {self.config.num_candidates}]",
            )
        self.backups = torch.from_numpy(backups.astype(np.float32))

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Mean squared error over the candidates."""
        if self.backups is None:
            raise ConfigError("no backups", where="BackupRegression", expected="those to learn", hint="call learn")
        found = self.logged_values(batch.observation, batch.action)
        loss = (found - self.backups[batch.needed("index")]).square().mean()
        return loss, {"backup": found.mean()}


@dataclass(frozen=True)
class FittedBackups:
    """A fitted regression, in units of the backups.

    Attributes:
        model: It regresses on (backup - mean) / deviation.
        mean: float64 [K], of each candidate's backups; NaN where some were no finite numbers.
        deviation: float64 [K], their standard deviation; 1 where it is 0.
    """

    model: BackupRegression
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def read(self, replay: Replay) -> NDArray[np.float64]:
        """The regression at the logged observations and actions of a replay, its held-out part say. [N, K]."""
        store, rows = replay.store, replay.rows
        action = store.actions[rows]
        found = np.empty((len(rows), len(self.mean)))
        for part, values in read_values(self.model, store.observations, rows):
            found[part] = values[np.arange(len(values)), :, action[part]]
        return self.mean + self.deviation * found


def fit_backups(
    backups: Mapping[str, NDArray[np.floating]],
    replay: Replay,
    updates: int,
    *,
    batch_size: int = 256,
    learner: LearnerConfig | None = None,
    encoder: EncoderFactory = default_encoder,
    seed: int = 0,
    device: str = "auto",
    progress: bool | None = None,
) -> FittedBackups:
    """Regresses on candidates' one-step backups, on a replay's training episodes, each drawn equally often.

    Each candidate's backups are brought to mean 0 and deviation 1 first, so that none with large values takes the
    encoder for itself. A candidate with a backup that is no finite number is left out: its regression is NaN.

    Args:
        backups: By the name of the candidate, float [N], of each transition of the replay.
        replay: Its training part.
        updates: Of the network. It is a fixed number, where the paper takes the network with the least error on
            held-out transitions.
        batch_size: Of an update.
        learner: How an update is made; None takes that of fitted Q evaluation.
        encoder: Of the observations.
        seed: Of the first weights and the batches.
        device: Where to train.
        progress: Whether to show a bar; None shows it on a terminal only.
    """
    columns = np.stack([*backups.values()], axis=1).astype(np.float64)
    is_finite = np.isfinite(columns).all(axis=0)
    columns[:, ~is_finite] = 0.0
    mean, deviation = columns.mean(axis=0), columns.std(axis=0)
    deviation[deviation == 0] = 1.0
    rows = rows_of(replay, "uniform", seed)
    model = BackupRegression(rows.spec, BackupRegressionConfig(len(backups)), encoder=encoder, seed=seed)
    model.learn((columns - mean) / deviation)
    learner = learner or default_learner(1, updates)
    bar = FittingBar("regression of backups", updates, progress)
    fitted = fit_on(rows, model, updates, batch_size=batch_size, learner=learner, bar=bar, device=device)
    return FittedBackups(fitted, np.where(is_finite, mean, np.nan), deviation)
