"""What a recorded batch can be overwritten with."""

from dataclasses import replace

import pytest
import torch

from offrl import Batch, OfflineRLError
from offrl.batch import FrameBatch

FRAMES = torch.zeros(5, 2, 2, dtype=torch.uint8)


def rows(count=3, frames=FRAMES, **others):
    windows = torch.zeros(count, 2, dtype=torch.int64)
    numbers = torch.zeros(count)
    return FrameBatch(frames, windows, windows, numbers, numbers, numbers, **others)


def test_a_batch_is_like_one_of_the_same_shapes_over_the_same_frames():
    assert rows().is_like(replace(rows(), reward=torch.ones(3)))


@pytest.mark.parametrize(
    "other",
    [rows(4), rows(frames=FRAMES.clone()), rows().stacked(), rows(action_mask=torch.ones(3, 4, dtype=torch.bool))],
    ids=["longer", "other frames", "no frames", "a mask"],
)
def test_a_batch_is_not_like_others(other):
    assert not rows().is_like(other)
    assert not other.is_like(rows())


def test_frames_of_several_channels_are_stacked_oldest_first_with_their_channels_together():
    frames = torch.arange(3 * 2, dtype=torch.uint8).reshape(3, 2, 1, 1)  # frame i has the channels 2 i and 2 i + 1
    windows = torch.tensor([[0, 0], [0, 2]])
    zeros = torch.zeros(2)
    found = FrameBatch(frames, windows, windows.flip(1), zeros, zeros, zeros).stacked()
    assert found.observation.flatten(1).tolist() == [[0, 1, 0, 1], [0, 1, 4, 5]]
    assert found.next_observation.flatten(1).tolist() == [[0, 1, 0, 1], [4, 5, 0, 1]]


def test_parts_of_a_batch_are_equal_or_refused():
    whole = Batch(*(torch.arange(6.0) for _ in range(5)))
    assert [part.reward.tolist() for part in whole.split(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(OfflineRLError, match=r"Batch.split: 6 transitions; expected a multiple of 4"):
        whole.split(4)


def test_an_optional_field_that_a_loss_cannot_do_without():
    batch = Batch(*[torch.zeros(2)] * 5, next_action=torch.tensor([1, -1]))
    assert batch.needed("next_action").tolist() == [1, -1]
    with pytest.raises(OfflineRLError, match=r"replay: batches without index; .*; open it with open_replay\(..., incl"):
        batch.needed("index")
