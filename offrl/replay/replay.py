"""The replay over a FrameStore."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from offrl.batch import Batch
from offrl.errors import ConfigError
from offrl.replay.indexing import n_step_returns
from offrl.replay.ingest import ingest
from offrl.replay.layouts import Dones
from offrl.replay.sampler import Sampler
from offrl.replay.store import FrameStore, Tier
from offrl.spec import TaskSpec


class Replay:
    """A ReplaySource over a FrameStore: stacks and n-step returns are made when they are asked for.

    Args:
        store: the data.
        n_step: steps summed into one reward, at least 1; fewer at a segment's end.
        discount: per step, in [0, 1].
        reward_scale: rewards are multiplied by it; finite and not 0.
        seed: of the sampler, 0 .. 2**64 - 1.

    Attributes:
        spec: the task that the data is of.
        fingerprint: a hash of the data, for a run's records.

    Raises:
        ConfigError: a setting outside what is allowed.
    """

    def __init__(
        self,
        store: FrameStore,
        *,
        n_step: int = 1,
        discount: float = 0.99,
        reward_scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        if n_step < 1:
            raise ConfigError(f"{n_step}", where="Replay.n_step", expected="1 or more")
        if not 0 <= discount <= 1:
            raise ConfigError(f"{discount}", where="Replay.discount", expected="a number in [0, 1]")
        if not math.isfinite(reward_scale) or reward_scale == 0:
            raise ConfigError(f"{reward_scale}", where="Replay.reward_scale", expected="a finite number other than 0")
        self.spec: TaskSpec = store.spec
        self.store = store
        self.n_step = n_step
        self.discount = discount
        self.reward_scale = reward_scale
        self.seed = seed
        self.fingerprint = store.fingerprint
        self._sampler = Sampler(len(store), seed)

    def __len__(self) -> int:
        """Transitions."""
        return len(self.store)

    def settings(self) -> dict[str, Any]:
        """What a run's config records, JSON-ready."""
        return {
            "n_step": self.n_step,
            "discount": self.discount,
            "reward_scale": self.reward_scale,
            "seed": self.seed,
        }

    def indices(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """The global batch of update `step`, int64 [batch_size]: a pure function of (seed, step)."""
        return self._sampler.indices(step, batch_size)

    def gather(self, indices: ArrayLike) -> Batch:
        """The transitions at `indices` [B], on the host.

        Raises:
            IndexError: an index outside 0 .. len - 1.
        """
        rows = np.asarray(indices, np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"indices {rows.min()} to {rows.max()} reach outside 0..{len(self) - 1}")
        store = self.store
        returns = n_step_returns(rows, store.rewards, store.terminated, store.segment_end, self.n_step, self.discount)
        action_mask, next_action_mask = self._action_masks(rows, returns.last_row)
        return Batch(
            observation=torch.from_numpy(store.observations(rows)),
            action=torch.from_numpy(store.actions[rows]),
            reward=torch.from_numpy(returns.reward) * self.reward_scale,
            discount=torch.from_numpy(returns.discount),
            next_observation=torch.from_numpy(store.next_observations(returns.last_row)),
            action_mask=action_mask,
            next_action_mask=next_action_mask,
        )

    def _action_masks(
        self, rows: NDArray[np.int64], last_rows: NDArray[np.int64]
    ) -> tuple[Tensor | None, Tensor | None]:
        legal = self.store.action_mask
        if legal is None:
            return None, None
        # Logs hold no legal actions for the observation that an episode ends with: there, all count as legal.
        is_end = last_rows == self.store.segment_end[last_rows]
        next_legal = legal[np.where(is_end, last_rows, last_rows + 1)] | is_end[:, None]
        return torch.from_numpy(legal[rows]), torch.from_numpy(next_legal)


def open_replay(
    directory: Path | str,
    *,
    spec: TaskSpec | None = None,
    n_step: int = 1,
    discount: float = 0.99,
    reward_scale: float = 1.0,
    seed: int = 0,
    tier: Tier = "auto",
    dones: Dones = "terminated",
    cache: Path | str | None = None,
    progress: bool = True,
) -> Replay:
    """A Replay over a directory of shards in either layout, ingested first where that was not done before.

    The directory may lie elsewhere: an address such as s3://bucket/folder is fetched into the cache first, see
    `offrl.replay.remote`.

    See `ingest` for `spec`, `dones`, `cache`, `tier` and `progress`, and `Replay` for the others.

    Raises:
        ConfigError: a setting outside what is allowed.
        DatasetError: a missing, damaged or inconsistent dataset.
        SpecMismatchError: `spec` differs from the dataset's.
    """
    store = ingest(directory, spec=spec, dones=dones, cache=cache, tier=tier, progress=progress)
    return Replay(store, n_step=n_step, discount=discount, reward_scale=reward_scale, seed=seed)
