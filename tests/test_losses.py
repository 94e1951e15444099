"""Two rows each, answers worked out by hand, with decoys that a swapped argument would pick."""

import math

import pytest
import torch

from offrl.losses import (
    bootstrap_target,
    double_q_target,
    greedy_actions,
    imitation_loss,
    likely_actions,
    logit_penalty,
    masked_argmax,
    max_q_target,
    td_loss,
)

INF = math.inf


def test_likely_actions_compares_with_the_likeliest():
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.8, 0.1]]))
    assert likely_actions(logits, 0.5).tolist() == [[True, False, True], [False, True, False]]


def test_likely_actions_is_strict():
    logits = torch.tensor([[0.0, math.log(0.5)]])
    ratio = float((logits[0, 1] - logits[0, 0]).exp())
    assert likely_actions(logits, ratio).tolist() == [[True, False]]
    assert likely_actions(logits, ratio - 1e-6).tolist() == [[True, True]]


def test_threshold_0_allows_also_what_underflows():
    assert likely_actions(torch.tensor([[0.0, -1e4]]), 0.0).tolist() == [[True, True]]


def test_illegal_actions_neither_pass_nor_set_the_bar():
    logits = torch.log(torch.tensor([[0.9, 0.06, 0.04]]))
    legal = torch.tensor([[False, True, True]])
    assert likely_actions(logits, 0.5, legal).tolist() == [[False, True, True]]
    assert likely_actions(logits, 0.0, legal).tolist() == [[False, True, True]]


def test_masked_argmax_ignores_the_best_but_unlikely_action():
    likely = torch.tensor([[True, True, False]])
    assert masked_argmax(torch.tensor([[1.0, 2.0, 99.0]]), likely).tolist() == [1]


def test_greedy_actions_take_the_best_likely_one():
    scores = torch.tensor([[5.0, 9.0, 7.0], [5.0, 9.0, 7.0]])
    logits = torch.log(torch.tensor([[0.5, 0.1, 0.4], [0.9, 0.05, 0.05]]))
    assert greedy_actions(scores, logits, 0.3).tolist() == [2, 0]
    assert greedy_actions(scores, logits, 0.0).tolist() == [1, 1]


def test_bootstrap_stops_where_the_discount_is_0():
    target = bootstrap_target(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0]), torch.tensor([10.0, INF]))
    assert target.tolist() == [6, 2]


def test_double_q_picks_with_the_online_and_judges_with_the_target_network():
    online = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    target = torch.tensor([[10.0, 20.0, 30.0], [100.0, 200.0, 300.0]])
    reward, discount = torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.1])
    assert double_q_target(reward, discount, online, target).tolist() == [16, 11]


def test_double_q_picks_among_the_allowed():
    online = torch.tensor([[1.0, 2.0, 3.0]])
    target = torch.tensor([[10.0, 20.0, 30.0]])
    allowed = torch.tensor([[True, True, False]])
    assert double_q_target(torch.tensor([0.0]), torch.tensor([1.0]), online, target, allowed).tolist() == [20]


def test_max_q_picks_with_the_target_network():
    target = torch.tensor([[10.0, 30.0, 20.0]])
    assert max_q_target(torch.tensor([1.0]), torch.tensor([0.5]), target).tolist() == [16]


def test_targets_carry_no_gradient():
    q = torch.tensor([[1.0, 2.0]], requires_grad=True)
    assert not double_q_target(torch.tensor([1.0]), torch.tensor([1.0]), q, q).requires_grad


def test_td_loss_is_quadratic_up_to_1_and_linear_beyond():
    q = torch.tensor([[0.0, 99.0], [99.0, 3.0]])
    # errors 0.5 and 3: (0.5 * 0.5**2 + (3 - 0.5)) / 2
    assert td_loss(q, torch.tensor([0, 1]), torch.tensor([0.5, 0.0])).item() == pytest.approx((0.125 + 2.5) / 2)


def test_imitation_loss_is_the_mean_surprise():
    logits = torch.log(torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    expected = -(math.log(0.75) + math.log(0.5)) / 2
    assert imitation_loss(logits, torch.tensor([1, 0])).item() == pytest.approx(expected)


def test_logit_penalty_is_the_mean_square():
    assert logit_penalty(torch.tensor([[1.0, 2.0], [3.0, 0.0]])).item() == 3.5
