"""What an online learner has seen: whole episodes in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offrl.shards.episode import Episode
from offrl.shards.layouts import episode_windows
from offrl.spec import TaskSpec

if TYPE_CHECKING:  # a recipe that needs no learner loads without torch
    from offrl.replay.store import FrameStore


class Seen:
    """Whole episodes in memory, read through a FrameStore as those on disk are."""

    def __init__(self, directory: Path, spec: TaskSpec) -> None:
        self.num_transitions = self.num_episodes = self._num_frames = 0
        self._directory = directory
        self._spec = spec
        self._arrays: dict[str, NDArray[Any]] = {}

    def append(self, episode: Episode) -> None:
        """Adds the next episode."""
        num_steps, first_row = len(episode), self.num_transitions
        is_end = np.arange(num_steps) == num_steps - 1
        windows = episode_windows(np.array([num_steps]), np.array([episode.leading]))
        rows = {
            "actions": episode.actions,
            "rewards": episode.rewards,
            "terminated": is_end & episode.terminated,
            "truncated": is_end & (not episode.terminated),
            "last": windows.last + self._num_frames,
            "first": windows.first + self._num_frames,
            "next_last": windows.next_last + self._num_frames,
            "next_first": windows.next_first + self._num_frames,
            "segment_end": windows.segment_end + first_row,
        }
        mask = self._mask(episode)
        if mask is not None:
            rows["action_mask"] = mask
        for name, values in rows.items():
            self._append(name, first_row, values)
        self._append("frames", self._num_frames, episode.observations)
        self.num_transitions += num_steps
        self.num_episodes += 1
        self._num_frames += len(episode.observations)

    @property
    def has_action_masks(self) -> bool:
        """Whether an episode stated which actions are legal."""
        return "action_mask" in self._arrays

    def _mask(self, episode: Episode) -> NDArray[np.bool_] | None:
        """Its legal actions: all, as in shards, where it states none and another one does."""
        if episode.action_mask is not None and "action_mask" not in self._arrays:
            self._append("action_mask", 0, np.ones((self.num_transitions, self._spec.num_actions), bool))
        if episode.action_mask is None and "action_mask" in self._arrays:
            return np.ones((len(episode), self._spec.num_actions), bool)
        return episode.action_mask

    def _append(self, name: str, start: int, values: NDArray[Any]) -> None:
        """Puts `values` at `start`, into an array twice as long where there is no room."""
        end = start + len(values)
        array = self._arrays.get(name)
        if array is None or len(array) < end:
            longer = np.empty((2 * end, *values.shape[1:]), values.dtype)
            if array is not None:
                longer[:start] = array[:start]
            self._arrays[name] = array = longer
        array[start:end] = values

    def store(self) -> FrameStore:
        """What was appended until now: views, which later episodes leave as they are."""
        from offrl.replay.store import FrameStore, IngestReport

        counts = (self.num_transitions, self.num_episodes, self._num_frames)
        filled = {
            name: array[: self._num_frames if name == "frames" else self.num_transitions]
            for name, array in self._arrays.items()
        }
        return FrameStore(self._directory, self._spec, IngestReport("frames", 0, *counts), "", "ram", filled)
