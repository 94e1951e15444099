from dataclasses import replace

import pytest
import torch

from offrl import Batch, TaskSpec
from offrl.algorithms import Algorithm, PolicyOutput
from offrl.selection import agreement, td_error

SPEC = TaskSpec.vector(2, ("left", "stay", "right"))


class Table(Algorithm):
    """Its q is 1, 3, 10 times the first number of the observation; its logits rule the last action out."""

    name = "table"
    threshold = 0.3

    def loss(self, batch):
        raise NotImplementedError

    def values(self, observation):
        return observation[:, :1] * torch.tensor([1.0, 3.0, 10.0])

    def forward(self, observation):
        return PolicyOutput(self.values(observation), torch.tensor([0.0, 0.0, -5.0]).expand(len(observation), 3))


def batch(**masks):
    return Batch(
        observation=torch.tensor([[1.0, 0.0], [2.0, 0.0]]),
        action=torch.tensor([1, 2]),
        reward=torch.tensor([0.5, 4.0]),
        discount=torch.tensor([0.9, 0.0]),
        next_observation=torch.tensor([[2.0, 0.0], [50.0, 0.0]]),
        **masks,
    )


def test_td_error_of_two_rows():
    # q(s, a) = 3 and 20; after the first the policy takes action 1, worth 6: 0.5 + 0.9 * 6 = 5.9. The second ends.
    assert torch.isclose(td_error.function(Table(SPEC), batch()), torch.tensor((2.9**2 + 16.0**2) / 2))
    assert not td_error.more_is_better


def test_td_error_bootstraps_from_legal_actions():
    legal = torch.tensor([[True, False, True], [True, True, True]])  # action 0, worth 2: target 0.5 + 0.9 * 2 = 2.3
    assert torch.isclose(
        td_error.function(Table(SPEC), batch(next_action_mask=legal)), torch.tensor((0.7**2 + 16.0**2) / 2)
    )


@pytest.mark.parametrize("broken", ["scores", "logits"])
def test_networks_that_give_nan_have_no_statistic(monkeypatch, broken):
    """Whatever an argmax of NaN is, a run's best checkpoint is not chosen by it."""
    forward = Table.forward

    def with_nan(self, observation):
        output = forward(self, observation)
        return output._replace(**{broken: torch.where(observation[:, :1] == 2, torch.nan, getattr(output, broken))})

    monkeypatch.setattr(Table, "forward", with_nan)
    for statistic in (td_error, agreement):
        assert statistic.function(Table(SPEC), batch()).isnan()


def test_agreement_of_two_rows():
    assert agreement.function(Table(SPEC), batch()) == 0.5  # action 1 in both
    legal = torch.tensor([[True, False, True], [False, False, True]])
    assert agreement.function(Table(SPEC), batch(action_mask=legal)) == 0.5  # 0 and 2
    none = torch.tensor([[False, False, False], [False, False, True]])
    first = replace(batch(action_mask=none), action=torch.tensor([0, 2]))  # 0 is what an argmax over nothing gives
    assert agreement.function(Table(SPEC), first) == 0.5
    assert agreement.more_is_better
