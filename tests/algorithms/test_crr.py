import pytest
import torch
from torch.nn.functional import cross_entropy
from twins import SPEC, make_batch, with_other_targets

from offrl import CRR, CRRConfig
from offrl.errors import ConfigError
from offrl.losses import select_action, td_loss


def test_the_target_is_what_the_target_policy_expects_of_the_target_q():
    crr, batch = with_other_targets(CRR(SPEC)), make_batch()
    features = crr.target_encoder(batch.next_observation)
    policy = crr.target_policy_head(features).softmax(dim=1)
    target = batch.reward + batch.discount * (policy * crr.target_q_head(features)).sum(dim=1)
    expected = td_loss(crr.values(batch.observation), batch.action, target)
    torch.testing.assert_close(crr.loss(batch)[1]["td_loss"], expected)


def weights(crr, batch):
    """What imitation is weighted with, row by row: by the weight, -log pi is the policy loss."""
    q, logits = crr.values(batch.observation), crr(batch.observation).logits
    baseline = (logits.softmax(dim=1) * q).sum(dim=1)
    if crr.config.advantage == "max":
        baseline = q.max(dim=1).values
    advantage = select_action(q, batch.action) - baseline
    if crr.config.weighting == "binary":
        return (advantage >= 0).float()
    return (advantage / crr.config.beta).exp().clamp(max=crr.config.weight_limit)


@pytest.mark.parametrize("advantage", ["mean", "max"])
@pytest.mark.parametrize("weighting", ["exp", "binary"])
def test_imitation_is_weighted_by_the_online_networks_advantage(weighting, advantage):
    config = CRRConfig(weighting=weighting, advantage=advantage, beta=0.05, weight_limit=1.5)
    crr, batch = with_other_targets(CRR(SPEC, config)), make_batch()
    surprise = cross_entropy(crr(batch.observation).logits, batch.action, reduction="none")
    weight = weights(crr, batch)
    assert weight.std() > 0
    torch.testing.assert_close(crr.loss(batch)[1]["policy_loss"], (weight * surprise).mean())
    torch.testing.assert_close(crr.loss(batch)[1]["weight"], weight.mean())


def test_over_the_maximum_binary_weights_leave_the_actions_that_q_finds_best():
    crr, batch = CRR(SPEC, CRRConfig(weighting="binary", advantage="max")), make_batch()
    best = (crr.values(batch.observation).argmax(dim=1) == batch.action).float()
    assert crr.loss(batch)[1]["weight"] == best.mean()
    assert 0 < best.mean() < 1


def test_a_high_beta_clones_the_behaviour():
    crr, batch = CRR(SPEC, CRRConfig(beta=1e9)), make_batch()
    cloned = cross_entropy(crr(batch.observation).logits, batch.action)
    torch.testing.assert_close(crr.loss(batch)[1]["policy_loss"], cloned)


def test_advantages_are_over_legal_actions():
    """Where only the logged action is legal there is nothing to be better than: weight 1, and nothing to learn."""
    batch = make_batch()
    only = torch.nn.functional.one_hot(batch.action, 3).bool()
    for advantage in ("mean", "max"):
        metrics = CRR(SPEC, CRRConfig(advantage=advantage)).loss(make_batch(action_mask=only))[1]
        assert metrics["weight"] == 1
        assert metrics["policy_loss"] == 0


def test_the_critic_weights_the_policy_where_it_acts_and_nowhere_else():
    batch = make_batch()
    plain, weighted = (CRR(SPEC, CRRConfig(beta=0.05, critic_weighted=each)) for each in (False, True))
    weighted.load_state_dict(plain.state_dict())
    observation = batch.observation
    policy, q = plain(observation).logits.softmax(dim=1), plain.values(observation)
    product = policy * (q / 0.05).exp()
    output = weighted(observation)
    torch.testing.assert_close(output.logits.softmax(dim=1), product / product.sum(dim=1, keepdim=True))
    assert torch.equal(output.scores, output.logits)
    assert (output.scores.argmax(dim=1) != policy.argmax(dim=1)).any()  # q has a say
    assert torch.equal(weighted.values(observation), q)
    assert torch.equal(weighted.loss(batch)[0], plain.loss(batch)[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"weighting": "linear"},
        {"beta": 0},
        {"weight_limit": -1},
        {"advantage": "sum"},
        {"critic_weighted": 1},
        {"ensemble": "min"},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"CRRConfig.{next(iter(settings))}: .*expected"):
        CRRConfig(**settings)
