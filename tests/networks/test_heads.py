from dataclasses import replace

import pytest
import torch
from twins import SPEC, after_updates, make_batch, with_other_targets

from offrl import DQN, DQNConfig
from offrl.cli.names import ALGORITHMS, algorithm_class
from offrl.losses import double_q_target, td_loss
from offrl.networks import Head, QHead, is_ensemble

SHELF = {name: algorithm_class(name) for name in ALGORITHMS}
FAMILY = {name: kind for name, kind in SHELF.items() if hasattr(kind.config_class()(), "ensemble")}


def test_who_has_ensembles():
    assert set(FAMILY) == {"bcq", "dqn", "cql", "iql", "crr", "sac", "bve"}


def test_words_that_are_no_ensemble():
    assert all(map(is_ensemble, (None, "mean:1", "min:2", "mean:100")))
    for text in ("", "mean", "min:", "max:2", "mean:0", "mean:-1", "min:2.5", "mean:101", 2, True, "mean:²"):
        assert not is_ensemble(text), text


def with_biases(ensemble, *biases):
    head = QHead(4, 2, ensemble)
    for member, bias in zip([head, *head.others], biases, strict=True):
        torch.nn.init.zeros_(member.output.weight)
        member.output.bias.data.copy_(torch.tensor(bias))
    return head


def test_an_ensemble_says_the_mean_or_the_least_of_each_action():
    features = torch.zeros(1, 4)
    assert with_biases("mean:2", [1.0, 5.0], [3.0, 1.0])(features).tolist() == [[2, 3]]
    assert with_biases("min:3", [1.0, 5.0], [3.0, 1.0], [2.0, 9.0])(features).tolist() == [[1, 1]]
    assert with_biases(None, [1.0, 5.0])(features).tolist() == [[1, 5]]


def test_members_begin_with_weights_of_their_own_and_the_first_is_a_plain_head():
    torch.manual_seed(0)
    plain = Head(4, 2)
    torch.manual_seed(0)
    head = QHead(4, 2, "mean:3")
    one, other, third = head.members(torch.ones(1, 4))
    assert torch.equal(one, plain(torch.ones(1, 4)))
    assert not torch.equal(one, other)
    assert not torch.equal(other, third)
    assert list(QHead(4, 2).state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("reduction", ["mean", "min"])
@pytest.mark.parametrize("kind", FAMILY.values(), ids=FAMILY)
def test_an_ensemble_of_one_is_a_single_head_bit_for_bit(kind, reduction):
    single, one = (replace(kind.config_class()(), ensemble=ensemble) for ensemble in (None, f"{reduction}:1"))
    ours, theirs = after_updates(kind(SPEC, one), 3), after_updates(kind(SPEC, single), 3)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", FAMILY.values(), ids=FAMILY)
def test_every_member_is_trained(kind):
    algorithm = kind(SPEC, replace(kind.config_class()(), ensemble="min:3"))
    algorithm.loss(make_batch())[0].backward()
    for member in [algorithm.q_head, *algorithm.q_head.others]:
        assert member.output.weight.grad.abs().sum() > 0


def test_members_share_the_target_that_the_ensembles_pick_and_judge():
    dqn, batch = with_other_targets(DQN(SPEC, DQNConfig(ensemble="min:2"))), make_batch()
    picking = torch.minimum(*dqn.q_head.members(dqn.encoder(batch.next_observation)))
    judging = torch.minimum(*dqn.target_q_head.members(dqn.target_encoder(batch.next_observation)))
    target = double_q_target(batch.reward, batch.discount, picking, judging)
    one, other = dqn.q_head.members(dqn.encoder(batch.observation))
    expected = (td_loss(one, batch.action, target) + td_loss(other, batch.action, target)) / 2
    torch.testing.assert_close(dqn.loss(batch)[0], expected)
    assert torch.equal(dqn(batch.observation).scores, torch.minimum(one, other))
