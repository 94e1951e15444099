import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from offrl import Batch, TaskSpec
from offrl.algorithms import BC


class Identity(nn.Module):
    feature_dim = 2

    def __init__(self, observation_shape):
        super().__init__()

    def forward(self, observation):
        return observation


def test_loss_is_the_surprise_at_the_logged_actions():
    bc = BC(TaskSpec.vector(2, ("left", "right")), encoder=Identity)
    # Weights by hand: logits = (2 * relu(x0), x1 cut at 0)
    for layer in (bc.imitation_head.hidden, bc.imitation_head.output):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    bc.imitation_head.hidden.weight.data[0, 0] = 1
    bc.imitation_head.hidden.weight.data[1, 1] = 1
    bc.imitation_head.output.weight.data[0, 0] = 2
    bc.imitation_head.output.weight.data[1, 1] = 1
    observation = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    unused = torch.full((2,), math.nan)
    batch = Batch(observation, torch.tensor([1, 0]), unused, unused, observation * math.nan)
    loss, metrics = bc.loss(batch)
    # logits (2, 0) and (0, 0): -log(1 / (e^2 + 1)) and log 2
    assert loss.item() == pytest.approx((math.log(math.e**2 + 1) + math.log(2)) / 2)
    assert metrics["imitation_accuracy"].item() == 0.5  # a tie goes to the first action
    only_legal = replace(batch, action_mask=torch.tensor([[True, False], [True, True]]))
    # What is not legal teaches nothing, and what is the only choice is no surprise; the second row is as before.
    for action in (torch.tensor([1, 0]), torch.tensor([0, 0])):
        assert bc.loss(replace(only_legal, action=action))[0].item() == pytest.approx(math.log(2) / 2)
    assert bc(observation).scores.tolist() == bc(observation).logits.tolist() == [[2, 0], [0, 0]]
