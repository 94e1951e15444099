"""The replay over a FrameStore."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from offrl.batch import Batch, FrameBatch
from offrl.errors import ConfigError
from offrl.replay._device import fits_on, frames_of, frames_on
from offrl.replay._features import largest_features
from offrl.replay._windows import last_rows_of, n_step_returns, stack_windows
from offrl.replay.config import ReplayConfig, config_of
from offrl.replay.sampler import Sampler
from offrl.replay.sampling import Uniform, candidates_of
from offrl.replay.source import Contents, ReplaySource
from offrl.replay.store import FrameStore
from offrl.spec import TaskSpec


class Replay(ReplaySource):
    """A ReplaySource over a FrameStore: stacks and n-step returns are made when they are asked for.

    Args:
        store: The data.
        config: What is drawn, and how transitions are made of it.
        settings: Fields of `ReplayConfig` by name, in place of `config`: `Replay(store, n_step=10)`.

    Attributes:
        spec: The task that the data is of, with its legal actions: `config.legal`, and whether the data has masks.
        config: As given.
        fingerprint: A hash of the data, for a run's records.
        has_whole_episodes: Whether no transition of an episode is left out.
        weights: float64 [n], how often each transition is drawn in proportion to the others; None where all are equal.

    Raises:
        ConfigError: A setting outside what is allowed, settings that leave nothing to draw, or both a config and
            settings.
    """

    gather_ahead = False  # `prefetch` is enough, and a thread's page faults would take a core from the update

    def __init__(self, store: FrameStore, config: ReplayConfig | None = None, **settings: Any) -> None:
        self.config = config = config_of(config, settings)
        _require(config.stream is None, "stream", config.stream, "None for a store: open_replay streams")
        num_actions = store.spec.num_actions
        for name, actions in (("actions", config.actions), ("legal_actions", config.legal_actions)):
            _require(
                actions is None or max(actions) < num_actions, name, actions, f"one or more of 0..{num_actions - 1}"
            )
        self.spec: TaskSpec = replace(
            store.spec, legal_actions=config.legal, action_masks=store.action_mask is not None
        )
        self.store = store
        self.fingerprint = store.fingerprint
        goes_on = self._goes_on_legally()
        self.has_whole_episodes = config.actions is None and (goes_on is None or bool(goes_on.all()))
        self._subset = self._choose_rows(goes_on)
        # A dataset that is still being played opens a replay for every update: nothing here may cost its whole length.
        strategy: Any = config.sampling
        self.weights = None if isinstance(strategy, Uniform) else strategy.weights(candidates_of(store, self._subset))
        self._sampler = Sampler(len(self), config.seed, self.weights)
        clip = config.reward_clip
        self._rewards = store.rewards if clip is None else np.clip(store.rewards, -clip, clip)

    def _choose_rows(self, goes_on: NDArray[np.bool_] | None) -> NDArray[np.int64] | None:
        """The store's rows that can be drawn, or None for all."""
        if self.config.held_out == 0 and self.has_whole_episodes:
            return None
        chosen = np.ones(len(self.store), np.bool_)
        if self.config.held_out > 0:
            episode = self.store.episode_of_rows()
            num_episodes = int(episode[-1]) + 1
            count = max(1, round(self.config.held_out * num_episodes))
            if count >= num_episodes:
                raise ConfigError(
                    f"{self.config.held_out} of {num_episodes} episode{'s' if num_episodes > 1 else ''} leaves none",
                    where="Replay.held_out",
                    expected="an episode left to train on",
                    hint="pass a smaller share, 0 for one episode, or record more",
                )
            out = np.random.default_rng(self.config.split_seed).permutation(num_episodes)[:count]
            chosen = np.isin(episode, out, invert=self.config.part == "train")
        if goes_on is not None:
            chosen &= goes_on
        if self.config.actions is not None:
            chosen &= np.isin(self.store.actions, self.config.actions)
            _require(bool(chosen.any()), "actions", self.config.actions, "actions that the data has")
        return np.flatnonzero(chosen)

    def _goes_on_legally(self) -> NDArray[np.bool_] | None:
        """Whether a legal action is there where each transition leads to, bool [N]; else there is no value of it.

        None where neither the data nor the settings make an action illegal.
        """
        store, legal = self.store, self.config.legal
        if store.action_mask is None or legal is None:
            return None
        name = "actions" if self.config.legal_actions is None else "legal_actions"
        _require(bool(store.action_mask[:, legal].any()), name, legal, "actions that are legal in the data")
        rows = np.arange(len(store))
        last_rows = self._last_rows(rows)
        goes_on: NDArray[np.bool_] = last_rows == store.segment_end  # of what a segment ends with nothing is known
        following = np.minimum(last_rows + 1, len(rows) - 1)
        for action in legal:
            goes_on |= store.action_mask[following, action]
        return goes_on

    def _last_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The last of the steps that each return sums, as `n_step_returns` has it."""
        return last_rows_of(rows, self.store.segment_end, self.config.n_step)

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        return len(self.store) if self._subset is None else len(self._subset)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The store's rows of the transitions that can be drawn, ascending, int64 [len]."""
        return np.arange(len(self.store)) if self._subset is None else self._subset

    def held_out(self) -> Replay | None:
        """The episodes kept from training, drawn uniformly, alike for every seed; None where there are none."""
        if self.config.held_out == 0 or self.config.part == "held_out":
            return None
        return Replay(
            self.store, replace(self.config, part="held_out", sampling="uniform", seed=self.config.split_seed)
        )

    def contents(self) -> Contents:
        """What there is to learn from: the transitions that are ever drawn."""
        store = self.store
        rows = np.arange(len(store)) if self._subset is None else self._subset
        if self.weights is not None:
            rows = rows[self.weights > 0]
        last_rows = self._last_rows(rows)
        everywhere = np.ones((1, self.spec.num_actions), np.bool_)
        legal: NDArray[np.bool_] = np.any(everywhere if store.action_mask is None else store.action_mask, axis=0)
        if self.config.legal is not None:
            legal &= np.isin(np.arange(self.spec.num_actions), self.config.legal)
        # A return of several steps may sum the rewards of transitions that are not drawn themselves.
        rewards = self._rewards[rows] if self.config.n_step == 1 else self._rewards
        return Contents(
            action_counts=np.bincount(store.actions[rows], minlength=self.spec.num_actions),
            legal=legal,
            lowest_reward=float(rewards.min()),
            highest_reward=float(rewards.max()),
            num_episodes=1 + int(np.count_nonzero(np.diff(store.segment_end[rows]))),  # the rows ascend
            num_terminated=int(np.count_nonzero(store.terminated[last_rows])),
            num_continued=int(np.count_nonzero(last_rows < store.segment_end[last_rows])),
            largest_features=largest_features(store, rows),
        )

    def settings(self) -> dict[str, Any]:
        """What a run's config records, JSON-ready."""
        return self.config.to_dict()

    def indices(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """The global batch of update `step`, int64 [batch_size]: a pure function of (seed, step)."""
        return self._sampler.indices(step, batch_size)

    def gather(self, indices: ArrayLike) -> Batch:
        """The transitions at `indices` [B], on the host.

        Raises:
            IndexError: An index outside 0 .. len - 1.
        """
        rows = self._rows(indices)
        values, last_rows = self._values(rows, indices)
        return Batch(
            observation=torch.from_numpy(self.store.observations(rows)),
            next_observation=torch.from_numpy(self.store.next_observations(last_rows)),
            **values,
        )

    def locate(self, indices: ArrayLike, frames: Tensor) -> FrameBatch:
        """The transitions at `indices` [B], on the host, as rows of `frames`, which has all frames of the store.

        Raises:
            IndexError: An index outside 0 .. len - 1.
            DatasetError: Frames that were changed since the store was made.
        """
        store, stack = self.store, self.spec.stack
        rows = self._rows(indices)
        values, last_rows = self._values(rows, indices)
        windows = stack_windows(store.last[rows], store.first[rows], stack)
        next_windows = stack_windows(store.next_last[last_rows], store.next_first[last_rows], stack)
        store.require_sound(windows, next_windows)
        return FrameBatch(
            frames=frames, rows=torch.from_numpy(windows), next_rows=torch.from_numpy(next_windows), **values
        )

    def prefetch(self, indices: ArrayLike) -> None:
        """Starts to read from disk what a batch will need where it is not in memory, and returns at once."""
        if self.store.tier == "mmap":
            rows = self._rows(indices)
            self.store.prefetch(rows, self._last_rows(rows))

    def to(self, device: torch.device) -> ReplaySource:
        """The replay to train on `device` with: one whose frames are there, if the tier says so.

        On a CPU they are there in any case, and the update stacks them by itself, on all its threads. Where they do not
        fit on another device, this replay gathers them on the host, as does a subclass with a `gather` of its own.

        Raises:
            ConfigError: The frames do not fit there.
        """
        tier = self.config.tier
        if tier == "device" or (tier == "auto" and fits_on(device, self.store)):
            return DeviceReplay(self, frames_on(device, self.store))
        gathers_itself = device.type != "cpu" or type(self).gather is not Replay.gather
        return self if gathers_itself else HostReplay(self, frames_of(self.store))

    def _rows(self, indices: ArrayLike) -> NDArray[np.int64]:
        """The store's rows of the transitions at `indices`."""
        chosen = np.asarray(indices, np.int64)
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"indices {chosen.min()} to {chosen.max()} reach outside 0..{len(self) - 1}")
        return chosen if self._subset is None else self._subset[chosen]

    def _values(self, rows: NDArray[np.int64], indices: ArrayLike) -> tuple[dict[str, Any], NDArray[np.int64]]:
        """All of a batch but its observations, and the last row [B] of each return."""
        store, config = self.store, self.config
        returns = n_step_returns(
            rows, self._rewards, store.terminated, store.segment_end, config.n_step, config.discount
        )
        action_mask, next_action_mask = self._action_masks(rows, returns.last_row)
        values = {
            "action": torch.from_numpy(store.actions[rows]),
            "reward": torch.from_numpy(returns.reward) * config.reward_scale,
            "discount": torch.from_numpy(returns.discount),
            "action_mask": action_mask,
            "next_action_mask": next_action_mask,
        }
        if "next_action" in config.include:
            is_end = returns.last_row == store.segment_end[returns.last_row]
            following = store.actions[np.where(is_end, returns.last_row, returns.last_row + 1)]
            values["next_action"] = torch.from_numpy(np.where(is_end, -1, following))
        if "behaviour_probability" in config.include:
            known = store.behaviour_probability
            found = np.full(len(rows), np.nan, np.float32) if known is None else known[rows]
            values["behaviour_probability"] = torch.from_numpy(found)
        if "index" in config.include:
            values["index"] = torch.from_numpy(np.array(indices, np.int64))
        return values, returns.last_row

    def _action_masks(
        self, rows: NDArray[np.int64], last_rows: NDArray[np.int64]
    ) -> tuple[Tensor | None, Tensor | None]:
        """What a policy may do at the state and at the next one; the logged action may be another. Both, or neither."""
        legal, next_legal = self._logged_action_masks(rows, last_rows)
        if self.config.legal is not None:
            subset = np.isin(np.arange(self.spec.num_actions), self.config.legal)
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


class DeviceReplay(ReplaySource):
    """A replay whose frames lie on a device: its batches name rows there, and are stacked there.

    Args:
        replay: Draws the transitions.
        frames: All frames of its store, on the device.
    """

    gather_ahead = False

    def __init__(self, replay: Replay, frames: Tensor) -> None:
        self.spec = replay.spec
        self.fingerprint = replay.fingerprint
        self.replay = replay
        self.frames = frames

    def __len__(self) -> int:
        """The number of transitions."""
        return len(self.replay)

    def indices(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """The transitions of update `step`, as the replay draws them."""
        return self.replay.indices(step, batch_size)

    def gather(self, indices: ArrayLike) -> FrameBatch:
        """The transitions at `indices` [B]: rows on the host, frames on the device."""
        return self.replay.locate(indices, self.frames)

    def held_out(self) -> DeviceReplay | None:
        """What the replay keeps from training, with frames on the device."""
        held_out = self.replay.held_out()
        return None if held_out is None else type(self)(held_out, self.frames)

    def settings(self) -> dict[str, Any]:
        """Those of the replay."""
        return self.replay.settings()


class HostReplay(DeviceReplay):
    """The same for a CPU: the frames are where the store has them, in memory or memory-mapped."""

    def gather(self, indices: ArrayLike) -> FrameBatch:
        """The transitions at `indices` [B], with their frames in memory: the update does not wait for the disk."""
        batch = super().gather(indices)
        self.replay.store.touch(batch.rows.numpy(), batch.next_rows.numpy())
        return batch

    def prefetch(self, indices: ArrayLike) -> None:
        """Asks the system to read what the update of the batch at `indices` will touch."""
        self.replay.prefetch(indices)


def _require(holds: bool, name: str, value: Any, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{value}", where=f"Replay.{name}", expected=expected)
