"""Two rows each, answers worked out by hand, with decoys that a swapped argument would pick."""

import math

import numpy as np
import pytest
import torch

from offrl.errors import ConfigError
from offrl.losses import (
    advantage_over_max,
    advantage_over_mean,
    binary_weight,
    bootstrap_target,
    conservative_penalty,
    double_q_target,
    entropy,
    entropy_coefficient_loss,
    expected_value,
    expectile_loss,
    exponential_weight,
    follows_log,
    greedy_actions,
    imitation_accuracy,
    imitation_loss,
    largest_entropy,
    legal_or_logged,
    likely_actions,
    log_policy,
    logit_penalty,
    masked_argmax,
    max_q_target,
    mean_of,
    quantile_loss,
    quantile_target,
    random_mixture,
    require_ranks,
    sarsa_target,
    select_quantiles,
    soft_value,
    td_loss,
    value_target,
    weighted_imitation_loss,
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


@pytest.mark.parametrize("threshold", [1 - 1e-6, 1 - 1e-9, np.nextafter(1, 0)])
def test_a_threshold_just_below_1_allows_the_likeliest_action_alone(threshold):
    logits = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 0.0]])
    allowed = [[False, False, True], [True, True, False]]
    assert likely_actions(logits, float(threshold)).tolist() == allowed
    legal = torch.tensor([[True, True, False], [False, False, False]])
    assert likely_actions(logits, float(threshold), legal).tolist() == [[False, True, False], [False, False, False]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_threshold_just_below_1_is_one_in_every_precision(dtype):
    logits = torch.tensor([[1.0, 2.0, 3.0]], dtype=dtype)
    assert likely_actions(logits, 1 - 1e-9).tolist() == [[False, False, True]]
    near = torch.tensor([[0.0, -3e-8]], dtype=torch.float64)  # as likely but for less than float32 can tell
    assert likely_actions(near, 1 - 1e-9).tolist() == [[True, False]]


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


def test_imitation_is_among_the_legal_actions():
    """Of the first row's three actions the last one, by far the likeliest, is not legal: two equal ones are left."""
    logits = torch.tensor([[0.0, 0.0, 5.0], [0.0, 1.0, 5.0]])
    action, legal = torch.tensor([0, 1]), torch.tensor([[True, True, False], [True, True, False]])
    expected = (math.log(2) + math.log(1 + math.exp(-1))) / 2
    assert imitation_loss(logits, action, legal).item() == pytest.approx(expected)
    assert imitation_accuracy(logits, action, legal).item() == 1  # of equal actions the first
    assert imitation_accuracy(logits, action).item() == 0
    logged_illegal = torch.tensor([2, 1])
    assert imitation_loss(logits, logged_illegal, legal).item() == pytest.approx(math.log(1 + math.exp(-1)) / 2)
    assert imitation_accuracy(logits, logged_illegal, legal).item() == 0.5
    assert imitation_accuracy(logits, torch.tensor([2, 1])).item() == 0.5


def test_imitation_loss_is_the_mean_surprise():
    logits = torch.log(torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    expected = -(math.log(0.75) + math.log(0.5)) / 2
    assert imitation_loss(logits, torch.tensor([1, 0])).item() == pytest.approx(expected)


def test_logit_penalty_is_the_mean_square():
    assert logit_penalty(torch.tensor([[1.0, 2.0], [3.0, 0.0]])).item() == 3.5


# Legal actions and policies


def test_the_logged_action_is_legal_whatever_the_mask_says():
    legal = torch.tensor([[True, False, False], [False, False, False]])
    assert legal_or_logged(legal, torch.tensor([2, 1])).tolist() == [[True, False, True], [False, True, False]]
    assert legal_or_logged(None, torch.tensor([2, 1])) is None


def test_log_policy_is_a_softmax_over_the_legal():
    logits = torch.log(torch.tensor([[1.0, 3.0, 996.0], [1.0, 1.0, 2.0]]))
    legal = torch.tensor([[True, True, False], [True, True, True]])
    expected = torch.tensor([[0.25, 0.75, 0.0], [0.25, 0.25, 0.5]])
    torch.testing.assert_close(log_policy(logits, legal).exp(), expected)
    torch.testing.assert_close(log_policy(logits)[1].exp(), expected[1])


def test_a_policy_without_legal_actions_is_uniform_and_its_gradient_finite():
    logits = torch.tensor([[5.0, 1.0]], requires_grad=True)
    found = log_policy(logits, torch.tensor([[False, False]]))
    assert found.exp().tolist() == [[0.5, 0.5]]
    found.sum().backward()
    assert logits.grad.tolist() == [[0, 0]]


def test_the_expected_value_is_over_the_policy_and_0_where_nothing_is_legal():
    log_probabilities = torch.log(torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    values = torch.tensor([[4.0, 8.0], [99.0, 99.0]])
    legal = torch.tensor([[True, True], [False, False]])
    assert expected_value(log_probabilities, values, legal).tolist() == [7, 0]
    assert expected_value(log_probabilities, values).tolist() == [7, 99]


def test_entropy_counts_in_nats_and_an_impossible_action_for_nothing():
    log_probabilities = log_policy(torch.zeros(2, 3), torch.tensor([[True, True, False], [True, False, False]]))
    assert entropy(log_probabilities).tolist() == pytest.approx([math.log(2), 0])
    legal = torch.tensor([[True, True, True], [False, True, False]])
    assert largest_entropy(log_probabilities, legal).tolist() == pytest.approx([math.log(3), 0])
    assert largest_entropy(log_probabilities).tolist() == pytest.approx([math.log(3)] * 2)


def test_the_soft_value_pays_for_entropy():
    log_probabilities = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    q = torch.tensor([[1.0, 3.0], [4.0, 0.0]])
    spread = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert soft_value(log_probabilities, q, 0.1).tolist() == pytest.approx([2 + 0.1 * math.log(2), 1 + 0.1 * spread])
    assert soft_value(log_probabilities, q, 0.0).tolist() == [2, 1]


def test_the_entropy_coefficient_falls_where_there_is_more_than_wanted():
    coefficient = torch.tensor(0.5, requires_grad=True)
    log_probabilities = torch.log(torch.tensor([[0.5, 0.5], [0.5, 0.5]])).requires_grad_()
    loss = entropy_coefficient_loss(coefficient, log_probabilities, torch.tensor([0.1, 0.3]))
    assert loss.item() == pytest.approx(0.5 * (math.log(2) - 0.2))
    loss.backward()
    assert coefficient.grad.item() == pytest.approx(math.log(2) - 0.2)  # descent makes it smaller
    assert log_probabilities.grad is None


def test_advantages_over_the_policys_mean_and_over_the_maximum():
    q = torch.tensor([[1.0, 5.0, 99.0], [2.0, 4.0, 3.0]])
    action = torch.tensor([1, 2])
    legal = torch.tensor([[True, True, False], [True, True, True]])
    log_probabilities = log_policy(torch.zeros(2, 3), legal)
    assert advantage_over_mean(q, action, log_probabilities).tolist() == pytest.approx([5 - 3, 3 - 3], abs=1e-6)
    assert advantage_over_max(q, action, legal).tolist() == [0, -1]
    assert advantage_over_max(q, action).tolist() == [-94, -1]


def test_exponential_weights_are_limited_and_carry_no_gradient():
    advantage = torch.tensor([math.log(2), -1.0, 1000.0], requires_grad=True)
    found = exponential_weight(advantage, 3.0, 20.0)
    assert found.tolist() == pytest.approx([8, math.exp(-3), 20])
    assert not found.requires_grad


def test_binary_weights_count_the_best_action_too():
    assert binary_weight(torch.tensor([0.5, 0.0, -1e-6])).tolist() == [1, 1, 0]


def test_weighted_imitation_is_over_all_rows():
    log_probabilities = torch.log(torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    weight = torch.tensor([2.0, 0.0])
    found = weighted_imitation_loss(log_probabilities, torch.tensor([0, 1]), weight)
    assert found.item() == pytest.approx(-2 * math.log(0.25) / 2)


# Values without a maximum, or with a conservative one


def test_the_next_value_is_0_where_nothing_is_legal():
    legal = torch.tensor([[True, False], [False, False], [True, True]])
    reward, discount, value = torch.ones(3), torch.tensor([0.5, 0.5, 0.0]), torch.tensor([10.0, 10.0, math.nan])
    assert value_target(reward, discount, value, legal).tolist() == [6, 1, 1]
    assert value_target(reward, discount, value).tolist() == [6, 6, 1]


def test_sarsa_judges_the_action_that_was_logged_next():
    next_q = torch.tensor([[10.0, 20.0], [30.0, 99.0], [7.0, 7.0]])
    reward, discount = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.1, 0.0])
    assert sarsa_target(reward, discount, next_q, torch.tensor([1, 0, -1])).tolist() == [11, 5, 3]


def test_a_log_that_ends_before_its_episode_has_no_sarsa_target():
    discount, next_action = torch.tensor([0.9, 0.9, 0.0, 0.0]), torch.tensor([1, -1, -1, 0])
    assert follows_log(discount, next_action).tolist() == [True, False, True, True]


def test_td_loss_over_some_rows_is_their_mean():
    q, action = torch.tensor([[0.0, 99.0], [99.0, 3.0]]), torch.tensor([0, 1])
    target = torch.tensor([0.5, 1000.0])
    assert td_loss(q, action, target, torch.tensor([True, False])).item() == 0.125
    assert td_loss(q, action, target, torch.tensor([False, False])).item() == 0
    assert td_loss(q, action, target, torch.tensor([True, True])) == td_loss(q, action, target)


def test_the_loss_of_an_ensemble_is_the_mean_of_its_members():
    one, other = torch.tensor(1.0), torch.tensor(4.0)
    assert mean_of([one]) is one
    assert mean_of([one, other]).item() == 2.5


def test_the_conservative_penalty_is_how_far_the_logged_action_is_below_all():
    q = torch.log(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
    # logsumexp is log 4 in both rows
    expected = (math.log(4) - math.log(3) + math.log(4) - math.log(2)) / 2
    assert conservative_penalty(q, torch.tensor([1, 0])).item() == pytest.approx(expected)
    only = torch.tensor([[False, True], [True, True]])
    expected = (0 + math.log(4) - math.log(2)) / 2
    assert conservative_penalty(q, torch.tensor([1, 0]), only).item() == pytest.approx(expected)


def test_an_expectile_weighs_values_that_are_too_low():
    value, target = torch.tensor([0.0, 0.0]), torch.tensor([2.0, -1.0])
    assert expectile_loss(value, target, 0.9).item() == pytest.approx((0.9 * 4 + 0.1 * 1) / 2)
    assert expectile_loss(value, target, 0.5).item() == pytest.approx((4 + 1) / 4)


def test_mixtures_are_weights_that_differ_from_update_to_update():
    first, second = random_mixture(torch.tensor(0), 5), random_mixture(torch.tensor(1), 5)
    assert [first.sum().item(), second.sum().item()] == pytest.approx([1, 1])
    assert (first > 0).all()
    assert not torch.allclose(first, second)
    assert torch.equal(first, random_mixture(torch.tensor(0), 5))
    assert not torch.allclose(first, random_mixture(torch.tensor(0), 5, seed=1))
    assert random_mixture(torch.tensor(7), 1).tolist() == [1]
    assert random_mixture(torch.tensor(2**40), 3, seed=-1).sum().item() == pytest.approx(1)


def test_mixtures_are_of_independent_uniform_numbers():
    """Ratios of two heads' weights are of two uniform numbers: the smaller one is half the larger, on average."""
    found = torch.stack([random_mixture(torch.tensor(update), 4, seed=3) for update in range(4000)])
    for one, other in ((0, 1), (2, 3), (0, 3)):
        pair = found[:, [one, other]]
        ratio = pair.min(dim=1).values / pair.max(dim=1).values
        assert ratio.mean().item() == pytest.approx(0.5, abs=0.02)
        assert (pair[:, 0] < pair[:, 1]).float().mean().item() == pytest.approx(0.5, abs=0.03)
        same_head, next_update = found[:-1, one], found[1:, one]
        assert abs(torch.corrcoef(torch.stack([same_head, next_update]))[0, 1]) < 0.05


# Quantiles


def test_quantiles_of_the_logged_action():
    quantiles = torch.arange(12.0).view(2, 3, 2)
    assert select_quantiles(quantiles, torch.tensor([1, 2])).tolist() == [[2, 3], [10, 11]]


def test_the_mean_of_the_first_networks_quantiles_picks_and_the_second_judges():
    picking = torch.tensor([[[0.0, 4.0], [3.0, 3.0], [99.0, 99.0]]] * 3)  # means 2, 3 and, not allowed, 99
    judging = torch.tensor([[[10.0, 20.0], [30.0, 50.0], [7.0, 7.0]]] * 3)
    allowed = torch.tensor([[True, True, False], [True, True, False], [False, False, False]])
    reward, discount = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.0, 0.5])
    assert quantile_target(reward, discount, picking, judging, allowed).tolist() == [[16, 26], [2, 2], [3, 3]]
    assert quantile_target(reward, discount, picking, judging)[0].tolist() == [4.5, 4.5]


def test_the_quantile_loss_weighs_errors_by_the_quantile():
    quantiles, target = torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 0.5]])
    # tau 1/4 and 3/4; errors 3, 0.5 (of 0) and 2, -0.5 (of 1); Huber 2.5, 0.125 and 1.5, 0.125
    expected = (0.25 * 2.5 + 0.25 * 0.125 + 0.75 * 1.5 + 0.25 * 0.125) / 4
    assert quantile_loss(quantiles, target).item() == pytest.approx(expected)
    # kappa 2: L(3) = 2 (3 - 1) = 4, L(2) = 2
    expected = (0.25 * 4 + 0.25 * 0.125 + 0.75 * 2 + 0.25 * 0.125) / 4
    assert quantile_loss(quantiles, target, kappa=2.0).item() == pytest.approx(expected)


def test_a_column_in_place_of_a_row_is_refused():
    with pytest.raises(ConfigError, match=r"target: target has the shape \[3, 1\]; expected \[B\]"):
        require_ranks("target", target=(torch.zeros(3, 1), 1))
    with pytest.raises(ConfigError, match=r"expectile_loss: value has the shape \[3, 1\]; expected \[B\]"):
        expectile_loss(torch.zeros(3, 1), torch.zeros(3), 0.5)
    with pytest.raises(ConfigError, match=r"select_quantiles: quantiles .*; expected \[B, A, N\]"):
        select_quantiles(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))
    rows = torch.tensor([[True], [True], [False]])
    with pytest.raises(ConfigError, match=r"td_loss: rows has the shape \[3, 1\]; expected \[B\]"):
        td_loss(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), torch.zeros(3), rows)
