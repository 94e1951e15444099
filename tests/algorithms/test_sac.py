import math

import pytest
import torch
from twins import SPEC, after_updates, make_batch, with_other_targets

from offrl import DiscreteSAC, DiscreteSACConfig
from offrl.errors import ConfigError
from offrl.losses import double_q_target, td_loss

FIXED = {"learn_entropy_coefficient": False}


def two_heads(sac, encoder, head, observation):
    return torch.minimum(*head.members(encoder(observation)))


def test_critic_and_actor_term_by_term():
    config = DiscreteSACConfig(entropy_coefficient=0.3, target_entropy=0.5)
    sac, batch = with_other_targets(DiscreteSAC(SPEC, config)), make_batch()
    loss, metrics = sac.loss(batch)
    policy = sac(batch.next_observation).logits.softmax(dim=1)
    next_q = two_heads(sac, sac.target_encoder, sac.target_q_head, batch.next_observation)
    target = batch.reward + batch.discount * (policy * (next_q - 0.3 * policy.log())).sum(dim=1)
    heads = sac.q_head.members(sac.encoder(batch.observation))
    expected = sum(td_loss(q, batch.action, target) for q in heads) / 2
    torch.testing.assert_close(metrics["td_loss"], expected)

    policy, q = sac(batch.observation).logits.softmax(dim=1), torch.minimum(*heads)
    entropy = -(policy * policy.log()).sum(dim=1).mean()
    torch.testing.assert_close(metrics["actor_loss"], -(policy * q).sum(dim=1).mean() - 0.3 * entropy)
    coefficient_loss = 0.3 * (entropy - 0.5 * math.log(3))
    torch.testing.assert_close(loss, metrics["td_loss"] + metrics["actor_loss"] + coefficient_loss)


def test_without_entropy_a_policy_that_is_sure_has_double_q_learnings_target():
    config = DiscreteSACConfig(entropy_coefficient=0.0, **FIXED)
    sac, batch = with_other_targets(DiscreteSAC(SPEC, config)), make_batch()
    with torch.no_grad():
        sac.policy_head.output.weight.mul_(1e6)
    next_q = two_heads(sac, sac.target_encoder, sac.target_q_head, batch.next_observation)
    target = double_q_target(batch.reward, batch.discount, sac(batch.next_observation).scores, next_q)
    heads = sac.q_head.members(sac.encoder(batch.observation))
    expected = sum(td_loss(q, batch.action, target) for q in heads) / 2
    loss, metrics = sac.loss(batch)
    torch.testing.assert_close(metrics["td_loss"], expected)
    best = -sac.values(batch.observation).gather(1, sac(batch.observation).scores.argmax(dim=1, keepdim=True)).mean()
    torch.testing.assert_close(metrics["actor_loss"], best)
    torch.testing.assert_close(loss, metrics["td_loss"] + metrics["actor_loss"])


def test_without_entropy_the_actor_becomes_greedy():
    rows = 30
    batch = make_batch(
        observation=torch.ones(rows, 3),
        next_observation=torch.ones(rows, 3),
        action=torch.arange(rows) % 3,
        reward=(torch.arange(rows) % 3).float(),
        discount=torch.zeros(rows),
        next_action=None,
    )
    shares = {}
    for coefficient in (0.0, 2.0):
        sac = DiscreteSAC(SPEC, DiscreteSACConfig(entropy_coefficient=coefficient, **FIXED))
        optimizer = torch.optim.Adam(sac.parameters(), lr=2e-3)
        for _ in range(150):
            optimizer.zero_grad()
            sac.loss(batch)[0].backward()
            optimizer.step()
        shares[coefficient] = sac(batch.observation[:1]).logits.softmax(dim=1)[0].tolist()
        assert sac.values(batch.observation[:1])[0].tolist() == pytest.approx([0, 1, 2], abs=0.1)
    assert shares[0.0] == pytest.approx([0, 0, 1], abs=0.02)
    # with entropy it is the softmax of q / 2
    assert shares[2.0] == pytest.approx(torch.tensor([0.0, 0.5, 1.0]).softmax(dim=0).tolist(), abs=0.03)


def test_the_actor_does_not_train_the_encoder_nor_the_critic():
    sac, batch = DiscreteSAC(SPEC, DiscreteSACConfig(entropy_coefficient=0.1, **FIXED)), make_batch()
    metrics = sac.loss(batch)[1]
    names = [name for name, p in sac.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(
        metrics["actor_loss"], [sac.get_parameter(name) for name in names], retain_graph=True, allow_unused=True
    )
    moved = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    assert moved == {name for name in names if name.startswith("policy_head")}


def test_the_coefficient_rises_towards_the_wanted_entropy_and_falls_from_it():
    for share, sign in ((1.0, 1), (0.0, -1)):
        sac = DiscreteSAC(SPEC, DiscreteSACConfig(entropy_coefficient=0.1, target_entropy=share))
        after_updates(sac, 5)
        assert sign * (sac.log_entropy_coefficient.item() - math.log(0.1)) > 0


def test_one_legal_action_leaves_no_entropy_to_want():
    batch = make_batch()
    only = torch.nn.functional.one_hot(batch.action, 3).bool()
    loss, metrics = DiscreteSAC(SPEC).loss(make_batch(action_mask=only))
    assert metrics["entropy"] == 0
    torch.testing.assert_close(loss, metrics["td_loss"] + metrics["actor_loss"])


@pytest.mark.parametrize(
    "settings",
    [
        {"entropy_coefficient": 0.0},
        {"entropy_coefficient": -0.1, **FIXED},
        {"learn_entropy_coefficient": "auto"},
        {"target_entropy": 1.5},
        {"ensemble": "mean:0"},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"DiscreteSACConfig.{next(iter(settings))}: .*expected"):
        DiscreteSACConfig(**settings)
