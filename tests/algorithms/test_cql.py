import pytest
import torch
from torch.nn.functional import smooth_l1_loss
from twins import SPEC, after_updates, assert_same, make_batch, with_other_targets

from offrl import CQL, DQN, CQLConfig
from offrl.errors import ConfigError


def test_weight_0_is_double_dqn_bit_for_bit():
    assert_same(after_updates(CQL(SPEC, CQLConfig(weight=0.0))), after_updates(DQN(SPEC)))


def test_the_loss_is_double_dqns_and_the_penalty_row_by_row():
    cql, batch = with_other_targets(CQL(SPEC, CQLConfig(weight=0.5))), make_batch()
    q, next_q = cql.values(batch.observation), cql.values(batch.next_observation)
    judged = cql.target_q_head(cql.target_encoder(batch.next_observation))
    rows = []
    for row, action in enumerate(batch.action):
        target = batch.reward[row] + batch.discount[row] * judged[row, next_q[row].argmax()]
        penalty = q[row].exp().sum().log() - q[row, action]
        rows.append(smooth_l1_loss(q[row, action], target.detach()) + 0.5 * penalty)
    torch.testing.assert_close(cql.loss(batch)[0], torch.stack(rows).mean())


def test_more_weight_puts_the_logged_actions_higher_above_the_others():
    gaps, batch = [], make_batch()
    for weight in (0.0, 1.0, 10.0):
        cql = CQL(SPEC, CQLConfig(weight=weight))
        optimizer = torch.optim.Adam(cql.parameters(), lr=1e-3)
        for _ in range(30):
            optimizer.zero_grad()
            cql.loss(batch)[0].backward()
            optimizer.step()
        gaps.append(cql.loss(batch)[1]["conservative_loss"].item())
    assert gaps[0] > 1.5 * gaps[1] > 2 * gaps[2]


def test_illegal_actions_are_not_pushed_down():
    cql, batch = CQL(SPEC), make_batch()
    only_logged = torch.nn.functional.one_hot(batch.action, 3).bool()
    assert cql.loss(make_batch(action_mask=only_logged))[1]["conservative_loss"] == 0
    assert cql.loss(make_batch(action_mask=torch.zeros_like(only_logged)))[1]["conservative_loss"] == 0
    assert cql.loss(batch)[1]["conservative_loss"] > 0.5


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"CQLConfig.weight: -1; expected 0 or more"):
        CQLConfig(weight=-1)
