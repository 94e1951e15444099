import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss
from twins import SPEC, make_batch, with_other_targets

from offrl import IQL, IQLConfig
from offrl.errors import ConfigError
from offrl.losses import select_action, td_loss


def test_expectile_one_half_regresses_the_value_to_the_mean_of_the_logged_actions_values():
    """Then E[V(s)] = E[Q'(s, a)] over the log, and r + discount V(s') is SARSA's target, on average."""
    iql, batch = with_other_targets(IQL(SPEC, IQLConfig(expectile=0.5))), make_batch()
    loss, metrics = iql.loss(batch)
    value = iql.value_head(iql.encoder(batch.observation)).squeeze(1)
    logged = select_action(iql.target_q_head(iql.target_encoder(batch.observation)), batch.action)
    torch.testing.assert_close(metrics["value_loss"], 0.5 * mse_loss(value, logged))
    loss.backward()
    torch.testing.assert_close(iql.value_head.output.bias.grad, (value - logged).mean().view(1))


def test_expectile_one_half_learns_what_the_behaviour_is_worth_as_sarsa_does():
    """In the first state the only action leads to the second, where one of two logged actions pays 1 and one loses 3.

    SARSA's q of the first is 0.9 times their mean, -0.9; a maximum would say 0.9.
    """
    first, second = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])
    batch = make_batch(
        observation=torch.stack([first, first, second, second]),
        action=torch.tensor([0, 0, 0, 1]),
        reward=torch.tensor([0.0, 0.0, 1.0, -3.0]),
        discount=torch.tensor([0.9, 0.9, 0.0, 0.0]),
        next_observation=torch.stack([second] * 4),
        next_action=torch.tensor([0, 1, -1, -1]),
    )
    iql = IQL(SPEC, IQLConfig(expectile=0.5, ensemble=None))
    optimizer = torch.optim.Adam(iql.parameters(), lr=2e-3)
    for _ in range(300):
        optimizer.zero_grad()
        iql.loss(batch)[0].backward()
        optimizer.step()
        iql.copy_to_targets()
    assert iql.values(batch.observation[:1])[0, 0].item() == pytest.approx(-0.9, abs=0.05)


def test_a_high_expectile_nears_the_best_logged_action():
    """In one state, whose actions are worth 0, 1 and 2 for good, the value goes to 2 and q to what was paid."""
    rows = 30
    batch = make_batch(
        observation=torch.ones(rows, 3),
        next_observation=torch.ones(rows, 3),
        action=torch.arange(rows) % 3,
        reward=(torch.arange(rows) % 3).float(),
        discount=torch.zeros(rows),
        next_action=torch.zeros(rows, dtype=torch.int64),
    )
    values = {}
    for expectile in (0.5, 0.99):
        iql = IQL(SPEC, IQLConfig(expectile=expectile, ensemble=None))
        optimizer = torch.optim.Adam(iql.parameters(), lr=2e-3)
        for _ in range(150):
            optimizer.zero_grad()
            iql.loss(batch)[0].backward()
            optimizer.step()
            iql.copy_to_targets()
        values[expectile] = iql.value_head(iql.encoder(batch.observation[:1])).item()
        assert iql.values(batch.observation[:1])[0].tolist() == pytest.approx([0, 1, 2], abs=0.05)
        assert iql(batch.observation[:1]).scores.argmax() == 2
    assert values[0.5] == pytest.approx(1, abs=0.05)
    assert values[0.99] == pytest.approx(2, abs=0.1)


def test_temperature_0_clones_the_behaviour():
    iql, batch = IQL(SPEC, IQLConfig(temperature=0.0)), make_batch()
    cloned = cross_entropy(iql(batch.observation).logits, batch.action)
    torch.testing.assert_close(iql.loss(batch)[1]["policy_loss"], cloned)


def test_which_network_feeds_which_term():
    """q is regressed to the online value at s'; the value and the weights follow the target network's q at s."""
    iql, batch = with_other_targets(IQL(SPEC, IQLConfig(temperature=2.0, weight_limit=1.1))), make_batch()
    metrics = iql.loss(batch)[1]
    features = iql.encoder(batch.observation)
    next_value = iql.value_head(iql.encoder(batch.next_observation)).squeeze(1)
    target = batch.reward + batch.discount * next_value
    heads = [head.detach() for head in iql.q_head.members(features)]
    assert len(heads) == 2
    torch.testing.assert_close(metrics["td_loss"], sum(td_loss(q, batch.action, target) for q in heads) / 2)
    both = iql.target_q_head.members(iql.target_encoder(batch.observation))
    logged = select_action(torch.minimum(*both), batch.action)
    advantage = logged - iql.value_head(features).squeeze(1)
    weight = (2 * advantage).exp().clamp(max=1.1)
    assert 0 < (weight == 1.1).sum() < len(weight)
    torch.testing.assert_close(metrics["weight"], weight.mean())
    surprise = cross_entropy(iql(batch.observation).logits, batch.action, reduction="none")
    torch.testing.assert_close(metrics["policy_loss"], (weight * surprise).mean())


@pytest.mark.parametrize(
    "settings", [{"expectile": 0}, {"expectile": 1.0}, {"temperature": -1}, {"weight_limit": 0}, {"ensemble": "max:2"}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"IQLConfig.{next(iter(settings))}: .*expected"):
        IQLConfig(**settings)
