"""A ReplaySource of a user's own, for tests."""

import numpy as np
import torch

from offrl import Batch, TaskSpec
from offrl.replay import ReplaySource


class ToyReplay(ReplaySource):
    """A ReplaySource of a user's own: 200 random transitions in plain tensors, with what was done next if asked for."""

    def __init__(self, spec: TaskSpec, seed: int = 0, *, include: frozenset[str] = frozenset()) -> None:
        self.spec, self._include = spec, include
        rng = np.random.default_rng(seed)
        shape = (201, *spec.observation_shape)
        vectors, pixels = rng.normal(size=shape).astype(np.float32), rng.integers(256, size=shape, dtype=np.uint8)
        self._observations = pixels if spec.is_pixels else vectors
        self._actions = rng.integers(spec.num_actions, size=200)
        self._next_actions = np.append(self._actions[1:], -1)
        self._rewards = rng.normal(size=200).astype(np.float32)

    def __len__(self) -> int:
        return 200

    def indices(self, step: int, batch_size: int) -> np.ndarray:
        return np.random.default_rng((7, step)).integers(200, size=batch_size)

    def gather(self, indices) -> Batch:
        rows = np.asarray(indices)
        return Batch(
            torch.from_numpy(self._observations[rows]),
            torch.from_numpy(self._actions[rows]),
            torch.from_numpy(self._rewards[rows]),
            torch.full((len(rows),), 0.9),
            torch.from_numpy(self._observations[rows + 1]),
            next_action=torch.from_numpy(self._next_actions[rows]) if "next_action" in self._include else None,
        )
