import pytest
import torch
from twins import SPEC, after_updates, assert_same, make_batch, with_other_targets

from offrl import CQL, QRCQL, QRDQN, CQLConfig, QRCQLConfig, QRDQNConfig
from offrl.errors import ConfigError


def test_weight_0_is_double_qr_dqn_bit_for_bit():
    ours = after_updates(QRCQL(SPEC, QRCQLConfig(weight=0.0, num_quantiles=4)))
    assert_same(ours, after_updates(QRDQN(SPEC, QRDQNConfig(num_quantiles=4))))


def test_one_quantile_is_half_of_cql_with_twice_the_weight():
    batch = make_batch()
    quantile = with_other_targets(QRCQL(SPEC, QRCQLConfig(weight=0.3, num_quantiles=1)))
    plain = with_other_targets(CQL(SPEC, CQLConfig(weight=0.6)))
    ours, theirs = quantile.loss(batch)[0], plain.loss(batch)[0]
    torch.testing.assert_close(ours, 0.5 * theirs)
    ours.backward()
    theirs.backward()
    for name, parameter in plain.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(quantile.get_parameter(name).grad, 0.5 * parameter.grad)


def test_the_penalty_is_on_the_mean_of_the_quantiles_and_on_legal_actions():
    algorithm, batch = QRCQL(SPEC, QRCQLConfig(num_quantiles=5)), make_batch()
    q = algorithm.quantiles(batch.observation).mean(dim=2)
    rows = [row.exp().sum().log() - row[action] for row, action in zip(q, batch.action, strict=True)]
    torch.testing.assert_close(algorithm.loss(batch)[1]["conservative_loss"], torch.stack(rows).mean())
    only_logged = torch.nn.functional.one_hot(batch.action, 3).bool()
    assert algorithm.loss(make_batch(action_mask=only_logged))[1]["conservative_loss"] == 0


@pytest.mark.parametrize("settings", [{"weight": -1}, {"num_quantiles": 0}, {"kappa": 0.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"QRCQLConfig.{next(iter(settings))}: .*expected"):
        QRCQLConfig(**settings)
