import pytest
import torch
from twins import SPEC, make_batch, with_other_targets

from offrl import DQN, QRDQN, DQNConfig, QRDQNConfig
from offrl.errors import ConfigError


@pytest.mark.parametrize("double", [True, False])
def test_one_quantile_is_half_of_dqn(double):
    """The one quantile is the median: |1/2 - 1[u < 0]| is 1/2 for errors of either sign, times DQN's Huber loss."""
    batch = make_batch()
    qr = with_other_targets(QRDQN(SPEC, QRDQNConfig(num_quantiles=1, double=double)))
    dqn = with_other_targets(DQN(SPEC, DQNConfig(double=double)))
    ours, theirs = qr.loss(batch)[0], dqn.loss(batch)[0]
    assert ours.item() == pytest.approx(0.5 * theirs.item(), rel=1e-6)
    ours.backward()
    theirs.backward()
    for name, parameter in dqn.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(qr.get_parameter(name).grad, 0.5 * parameter.grad)
    assert torch.equal(qr(batch.observation).scores, dqn(batch.observation).scores)


@pytest.mark.parametrize("double", [True, False])
def test_the_loss_quantile_by_quantile(double):
    qr, batch = with_other_targets(QRDQN(SPEC, QRDQNConfig(num_quantiles=3, double=double, kappa=0.5))), make_batch()
    online, following = qr.quantiles(batch.observation), qr.quantiles(batch.next_observation)
    judged = qr.target_q_head(qr.target_encoder(batch.next_observation)).view(-1, 3, 3)
    total = 0.0
    for row, action in enumerate(batch.action):
        picked = (following if double else judged)[row].mean(dim=1).argmax()
        for i in range(3):
            for j in range(3):
                target = batch.reward[row] + batch.discount[row] * judged[row, picked, j]
                error = (target - online[row, action, i]).item()
                huber = 0.5 * error**2 if abs(error) <= 0.5 else 0.5 * (abs(error) - 0.25)
                total += abs((i + 0.5) / 3 - (error < 0)) * huber
    assert qr.loss(batch)[0].item() == pytest.approx(total / (32 * 9), rel=1e-5)


def test_quantiles_learn_the_distribution_of_a_reward():
    """Rewards 0, 1, ..., 9 are as likely as each other, and the episode ends: of 5 quantiles, the medians of fifths."""
    rows = 200
    batch = make_batch(
        observation=torch.ones(rows, 3),
        next_observation=torch.ones(rows, 3),
        action=torch.zeros(rows, dtype=torch.int64),
        reward=(torch.arange(rows) % 10).float(),
        discount=torch.zeros(rows),
    )
    qr = QRDQN(SPEC, QRDQNConfig(num_quantiles=5, kappa=0.01))
    optimizer = torch.optim.Adam(qr.parameters(), lr=1e-2)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 400)
        optimizer.zero_grad()
        (100 * qr.loss(batch)[0]).backward()
        optimizer.step()
    found = qr.quantiles(batch.observation[:1])[0, 0].sort().values
    assert found.tolist() == pytest.approx([0.5, 2.5, 4.5, 6.5, 8.5], abs=0.55)
    assert qr.values(batch.observation[:1])[0, 0].item() == pytest.approx(4.5, abs=0.3)


@pytest.mark.parametrize("settings", [{"num_quantiles": 0}, {"double": 1}, {"kappa": 0.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"QRDQNConfig.{next(iter(settings))}: .*expected"):
        QRDQNConfig(**settings)
