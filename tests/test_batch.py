"""What a recorded batch can be overwritten with."""

from dataclasses import replace

import pytest
import torch

from offrl import Batch

FRAMES = torch.zeros(5, 2, 2, dtype=torch.uint8)


def rows(count=3, frames=FRAMES, **others):
    windows = torch.zeros(count, 2, dtype=torch.int64)
    return Batch(windows, torch.zeros(count), torch.zeros(count), torch.zeros(count), windows, frames=frames, **others)


def test_a_batch_is_like_one_of_the_same_shapes_over_the_same_frames():
    assert rows().is_like(replace(rows(), reward=torch.ones(3)))


@pytest.mark.parametrize(
    "other",
    [rows(4), rows(frames=FRAMES.clone()), rows(frames=None), rows(action_mask=torch.ones(3, 4, dtype=torch.bool))],
    ids=["longer", "other frames", "no frames", "a mask"],
)
def test_a_batch_is_not_like_others(other):
    assert not rows().is_like(other)
    assert not other.is_like(rows())
