"""The replay over a FrameStore."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from offrl.batch import Batch
from offrl.errors import ConfigError
from offrl.replay._device import fits_on, frames_on
from offrl.replay._windows import n_step_returns, stack_windows
from offrl.replay.ingestion import ingest
from offrl.replay.sampler import Sampler
from offrl.replay.sampling import Sampling, Uniform, candidates_of, parse_sampling
from offrl.replay.store import FrameStore
from offrl.shards.layouts import Dones
from offrl.spec import TaskSpec

Part = Literal["train", "held_out"]
ReplayTier = Literal["auto", "device", "ram", "mmap"]


class Replay:
    """A ReplaySource over a FrameStore: stacks and n-step returns are made when they are asked for.

    Args:
        store: the data.
        n_step: steps summed into one reward, at least 1; fewer at a segment's end.
        discount: per step, in [0, 1].
        reward_clip: each step's reward is cut to -reward_clip .. reward_clip; None leaves it.
        reward_scale: rewards are then multiplied by it; finite and not 0.
        actions: only transitions that took one of these are drawn, and all others count as illegal; None takes all.
            Where the data says what is legal, those that lead to where none of these is are not drawn either.
        sampling: how often each transition is drawn: "uniform", "top-returns:0.1" (of the best tenth of the
            episodes), "softmax-returns:0.1" (a temperature), "balanced-actions", or an object, see
            `offrl.replay.sampling`.
        held_out: share of the episodes to keep from training, 0 or more, under 1.
        split_seed: chooses which; apart from `seed`, so that runs with other seeds keep the same episodes.
        part: "train", or "held_out" for a replay over the episodes that the training part lacks.
        seed: of the sampler, 0 .. 2**64 - 1.
        tier: where the frames are: on the "device" that trains, in "ram", or "mmap", on disk, from where the system
            reads what is asked for; "auto" takes the first of these that has twice as much memory free, the device
            only where it is a GPU. The batches are the same bytes from each.

    Attributes:
        spec: the task that the data is of.
        fingerprint: a hash of the data, for a run's records.
        weights: float64 [n], how often each is drawn in proportion to the others; None where all are equal.

    Raises:
        ConfigError: a setting outside what is allowed, or settings that leave nothing to draw.
    """

    def __init__(
        self,
        store: FrameStore,
        *,
        n_step: int = 1,
        discount: float = 0.99,
        reward_clip: float | None = None,
        reward_scale: float = 1.0,
        actions: Sequence[int] | None = None,
        sampling: Sampling | str = "uniform",
        held_out: float = 0.0,
        split_seed: int = 0,
        part: Part = "train",
        seed: int = 0,
        tier: ReplayTier = "auto",
    ) -> None:
        _require(_is_whole(n_step) and n_step >= 1, "n_step", n_step, "1 or more, a whole number")
        _require(0 <= discount <= 1, "discount", discount, "a number in [0, 1]")
        _require(reward_clip is None or reward_clip > 0, "reward_clip", reward_clip, "a number over 0, or None")
        scalable = math.isfinite(reward_scale) and reward_scale != 0
        _require(scalable, "reward_scale", reward_scale, "a finite number other than 0")
        _require(0 <= held_out < 1, "held_out", held_out, "a share in [0, 1)")
        _require(_is_whole(split_seed) and split_seed >= 0, "split_seed", split_seed, "0 or more, a whole number")
        _require(tier in get_args(ReplayTier), "tier", repr(tier), f"one of {', '.join(get_args(ReplayTier))}")
        _require(part in get_args(Part), "part", repr(part), "'train' or 'held_out'")
        num_actions = store.spec.num_actions
        if actions is not None:
            known = len(actions) > 0 and all(_is_whole(action) and 0 <= action < num_actions for action in actions)
            _require(known, "actions", actions, f"one or more of 0..{num_actions - 1}")
        self.spec: TaskSpec = store.spec
        self.store = store
        self.fingerprint = store.fingerprint
        self.n_step = int(n_step)
        self.discount = discount
        self.reward_clip = reward_clip
        self.reward_scale = reward_scale
        self.actions = None if actions is None else tuple(sorted({int(action) for action in actions}))
        self.sampling = parse_sampling(sampling) if isinstance(sampling, str) else sampling
        self.held_out = held_out
        self.split_seed = int(split_seed)
        self.part: Part = part
        self._subset = self._choose_rows()
        # A dataset that is still being played opens a replay for every update: nothing here may cost its whole length.
        is_uniform = isinstance(self.sampling, Uniform)
        self.weights = None if is_uniform else self.sampling.weights(candidates_of(store, self._subset))
        self._sampler = Sampler(len(self), seed, self.weights)
        self.seed = self._sampler.seed
        rewards = store.rewards
        self._rewards = rewards if reward_clip is None else np.clip(rewards, -reward_clip, reward_clip)
        self._tier = tier
        self._frames: Tensor | None = None

    def _choose_rows(self) -> NDArray[np.int64] | None:
        """The store's rows that can be drawn, or None for all."""
        if self.held_out == 0 and self.part == "held_out":
            raise ConfigError("no episodes are held out", where="Replay.part", expected="held_out over 0 beside it")
        if self.held_out == 0 and self.actions is None:
            return None
        chosen = np.ones(len(self.store), np.bool_)
        if self.held_out > 0:
            episode = self.store.episode_of_rows()
            num_episodes = int(episode[-1]) + 1
            count = max(1, round(self.held_out * num_episodes))
            _require(count < num_episodes, "held_out", self.held_out, f"some of the {num_episodes} episodes left")
            out = np.random.default_rng(self.split_seed).permutation(num_episodes)[:count]
            chosen = np.isin(episode, out, invert=self.part == "train")
        if self.actions is not None:
            chosen &= np.isin(self.store.actions, self.actions) & self._goes_on_legally(self.actions)
            _require(bool(chosen.any()), "actions", self.actions, "actions that the data has")
        return np.flatnonzero(chosen)

    def _goes_on_legally(self, actions: tuple[int, ...]) -> NDArray[np.bool_]:
        """Whether one of the actions is legal where each transition leads to; else there is no value of it. [N]."""
        store, rows = self.store, np.arange(len(self.store))
        if store.action_mask is None:
            return np.ones(len(rows), np.bool_)
        last_rows = self._last_rows(rows)
        goes_on: NDArray[np.bool_] = last_rows == store.segment_end  # of what a segment ends with nothing is known
        following = np.minimum(last_rows + 1, len(rows) - 1)
        for action in actions:
            goes_on |= store.action_mask[following, action]
        return goes_on

    def _last_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The last of the steps that each return sums, as `n_step_returns` has it."""
        return np.minimum(rows + (self.n_step - 1), self.store.segment_end[rows])

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        return len(self.store) if self._subset is None else len(self._subset)

    def settings(self) -> dict[str, Any]:
        """What a run's config records, JSON-ready."""
        return {
            "n_step": self.n_step,
            "discount": self.discount,
            "reward_clip": self.reward_clip,
            "reward_scale": self.reward_scale,
            "actions": None if self.actions is None else list(self.actions),
            "sampling": str(self.sampling),
            "held_out": self.held_out,
            "split_seed": self.split_seed,
            "part": self.part,
            "seed": self.seed,
        }

    def indices(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """The global batch of update `step`, int64 [batch_size]: a pure function of (seed, step)."""
        return self._sampler.indices(step, batch_size)

    def gather(self, indices: ArrayLike) -> Batch:
        """The transitions at `indices` [B], on the host, or on the device that `to` has put the frames on.

        Raises:
            IndexError: an index outside 0 .. len - 1.
        """
        batch = self.locate(indices)
        return batch if self._frames is None else batch.to(self._frames.device).stacked()

    def locate(self, indices: ArrayLike) -> Batch:
        """What `gather` gives, but where the frames lie on a device: there, they are not yet looked up.

        Raises:
            IndexError: an index outside 0 .. len - 1.
        """
        chosen = np.asarray(indices, np.int64)
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"indices {chosen.min()} to {chosen.max()} reach outside 0..{len(self) - 1}")
        store, rows = self.store, chosen if self._subset is None else self._subset[chosen]
        returns = n_step_returns(rows, self._rewards, store.terminated, store.segment_end, self.n_step, self.discount)
        action_mask, next_action_mask = self._action_masks(rows, returns.last_row)
        return Batch(
            observation=self._stacks(store.last[rows], store.first[rows]),
            action=torch.from_numpy(store.actions[rows]),
            reward=torch.from_numpy(returns.reward) * self.reward_scale,
            discount=torch.from_numpy(returns.discount),
            next_observation=self._stacks(store.next_last[returns.last_row], store.next_first[returns.last_row]),
            action_mask=action_mask,
            next_action_mask=next_action_mask,
            frames=self._frames,
        )

    def prefetch(self, indices: ArrayLike) -> None:
        """Has what `gather` will ask for read from disk, where it is not in memory; returns at once."""
        if self.store.tier == "mmap" and self._frames is None:
            chosen = np.asarray(indices, np.int64)
            rows = chosen if self._subset is None else self._subset[chosen]
            self.store.prefetch(rows, self._last_rows(rows))

    def to(self, device: torch.device) -> Replay:
        """The same replay for training on `device`, with its frames there if the tier says so.

        Raises:
            ConfigError: they do not fit.
        """
        if self._tier != "device" and not (self._tier == "auto" and fits_on(device, self.store)):
            return self
        placed = copy.copy(self)
        placed._frames = frames_on(device, self.store)
        return placed

    def _stacks(self, last: NDArray[np.int64], first: NDArray[np.int64]) -> Tensor:
        if self._frames is not None:
            return torch.from_numpy(stack_windows(last, first, self.spec.stack))
        return torch.from_numpy(self.store.stacks(last, first))

    def _action_masks(
        self, rows: NDArray[np.int64], last_rows: NDArray[np.int64]
    ) -> tuple[Tensor | None, Tensor | None]:
        legal, next_legal = self._logged_action_masks(rows, last_rows)
        if self.actions is not None:
            subset = np.isin(np.arange(self.spec.num_actions), self.actions)
            legal = np.tile(subset, (len(rows), 1)) if legal is None else legal & subset
            next_legal = np.tile(subset, (len(rows), 1)) if next_legal is None else next_legal & subset
        return (None, None) if legal is None else (torch.from_numpy(legal), torch.from_numpy(next_legal))

    def _logged_action_masks(
        self, rows: NDArray[np.int64], last_rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
        legal = self.store.action_mask
        if legal is None:
            return None, None
        # Logs hold no legal actions for the observation that an episode ends with: there, all count as legal.
        is_end = last_rows == self.store.segment_end[last_rows]
        return legal[rows], legal[np.where(is_end, last_rows, last_rows + 1)] | is_end[:, None]


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer))


def _require(holds: bool, name: str, value: Any, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{value}", where=f"Replay.{name}", expected=expected)


def open_replay(
    directory: Path | str,
    *,
    spec: TaskSpec | None = None,
    n_step: int = 1,
    discount: float = 0.99,
    reward_clip: float | None = None,
    reward_scale: float = 1.0,
    actions: Sequence[int] | None = None,
    sampling: Sampling | str = "uniform",
    held_out: float = 0.0,
    split_seed: int = 0,
    part: Part = "train",
    seed: int = 0,
    tier: ReplayTier = "auto",
    dones: Dones = "terminated",
    skip_bad_shards: bool = False,
    cache: Path | str | None = None,
    progress: bool = True,
) -> Replay:
    """A Replay over a directory of shards in either layout, ingested first where that was not done before.

    The directory may lie elsewhere: an address such as s3://bucket/folder is fetched into the cache first, see
    `offrl.shards.remote`.

    See `ingest` for `spec`, `dones`, `skip_bad_shards`, `cache` and `progress`, and `Replay` for the others.

    Raises:
        ConfigError: a setting outside what is allowed.
        DatasetError: a missing, damaged or inconsistent dataset.
        SpecMismatchError: `spec` differs from the dataset's.
    """
    store = ingest(
        directory,
        spec=spec,
        dones=dones,
        skip_bad_shards=skip_bad_shards,
        cache=cache,
        tier="mmap" if tier == "device" else tier,
        progress=progress,
    )
    return Replay(
        store,
        n_step=n_step,
        discount=discount,
        reward_clip=reward_clip,
        reward_scale=reward_scale,
        actions=actions,
        sampling=sampling,
        held_out=held_out,
        split_seed=split_seed,
        part=part,
        seed=seed,
        tier=tier,
    )
