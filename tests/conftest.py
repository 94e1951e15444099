"""Small tasks and data that many tests use."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch

from offrl.batch import Batch
from offrl.spec import TaskSpec


class ToyReplay:
    """A ReplaySource of a user's own: 200 random transitions in plain tensors."""

    def __init__(self, spec: TaskSpec, seed: int = 0) -> None:
        self.spec = spec
        rng = np.random.default_rng(seed)
        shape = (201, *spec.observation_shape)
        vectors, pixels = rng.normal(size=shape).astype(np.float32), rng.integers(256, size=shape, dtype=np.uint8)
        self._observations = pixels if spec.is_pixels else vectors
        self._actions = rng.integers(spec.num_actions, size=200)
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
        )


@pytest.fixture
def toy_spec() -> TaskSpec:
    return TaskSpec.vector(3, ("left", "right", "stay"))


@pytest.fixture
def toy_replay(toy_spec) -> ToyReplay:
    return ToyReplay(toy_spec)


@pytest.fixture
def torchvision_stand_in(monkeypatch) -> None:
    """Lets onnx2pytorch be imported: it names torchvision's operators, which our files never hold.

    The real torchvision would bring another torch.
    """
    stand_ins = {
        "torchvision": (),
        "torchvision.io": ("decode_image", "ImageReadMode"),
        "torchvision.ops": ("deform_conv2d", "roi_pool", "roi_align"),
    }
    for name, members in stand_ins.items():
        module = types.ModuleType(name)
        module.__dict__.update(dict.fromkeys(members))
        monkeypatch.setitem(sys.modules, name, module)
