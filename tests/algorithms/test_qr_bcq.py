import pytest
import torch
from twins import SPEC, make_batch, with_other_targets

from offrl import QRBCQ, QRDQN, DiscreteBCQ, DiscreteBCQConfig, QRBCQConfig, QRDQNConfig
from offrl.errors import ConfigError


def gradients_of_q_head(algorithm, batch):
    loss, metrics = algorithm.loss(batch)
    loss.backward()
    return metrics, [parameter.grad for parameter in algorithm.q_head.parameters()]


def test_threshold_0_is_double_qr_dqn():
    """The td loss and the gradients of the quantiles' head; the encoder learns from the imitator besides."""
    batch, settings = make_batch(), {"num_quantiles": 4, "kappa": 0.5}
    bcq = with_other_targets(QRBCQ(SPEC, QRBCQConfig(threshold=0.0, **settings)))
    dqn = with_other_targets(QRDQN(SPEC, QRDQNConfig(double=True, **settings)))
    metrics, ours = gradients_of_q_head(bcq, batch)
    _, theirs = gradients_of_q_head(dqn, batch)
    assert torch.equal(metrics["td_loss"], dqn.loss(batch)[0])
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
    assert metrics["allowed_actions"] == 3


def test_one_quantile_is_bcq_with_half_its_td_loss():
    batch, settings = make_batch(), {"threshold": 0.9, "logit_penalty": 0.1}
    quantile = with_other_targets(QRBCQ(SPEC, QRBCQConfig(num_quantiles=1, **settings))).loss(batch)
    plain = with_other_targets(DiscreteBCQ(SPEC, DiscreteBCQConfig(**settings))).loss(batch)
    torch.testing.assert_close(quantile[1]["td_loss"], 0.5 * plain[1]["td_loss"])
    for name in ("imitation_loss", "allowed_actions", "imitation_accuracy", "q"):
        torch.testing.assert_close(quantile[1][name], plain[1][name])
    torch.testing.assert_close(quantile[0] + quantile[1]["td_loss"], plain[0])
    assert plain[1]["allowed_actions"] < 3


def test_its_policy_has_the_threshold():
    assert QRBCQ(SPEC, QRBCQConfig(threshold=0.6)).threshold == 0.6


@pytest.mark.parametrize("settings", [{"threshold": 1.0}, {"logit_penalty": -1}, {"num_quantiles": 2.5}, {"kappa": -1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"QRBCQConfig.{next(iter(settings))}: .*expected"):
        QRBCQConfig(**settings)
