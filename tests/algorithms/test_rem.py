import pickle
import shutil

import pytest
import torch
from twins import SPEC, after_updates, assert_same, make_batch, with_other_targets

from offrl import DQN, REM, DQNConfig, REMConfig
from offrl.errors import ConfigError
from offrl.losses import max_q_target, random_mixture, td_loss


def test_one_head_is_dqn_without_double_q_learning_bit_for_bit():
    assert_same(after_updates(REM(SPEC, REMConfig(num_heads=1))), after_updates(DQN(SPEC, DQNConfig(double=False))))


def test_prediction_and_target_are_of_the_same_mixture():
    rem, batch = with_other_targets(REM(SPEC, REMConfig(num_heads=4), seed=5)), make_batch()
    rem.updates.fill_(17)
    mixture = random_mixture(torch.tensor(17), 4, seed=5)

    def mixed(encoder, head, observation):
        output = head(encoder(observation))
        return sum(mixture[k] * output[:, 3 * k : 3 * k + 3] for k in range(4))

    next_q = mixed(rem.target_encoder, rem.target_q_head, batch.next_observation)
    target = max_q_target(batch.reward, batch.discount, next_q)
    expected = td_loss(mixed(rem.encoder, rem.q_head, batch.observation), batch.action, target)
    torch.testing.assert_close(rem.loss(batch)[0], expected)


def test_each_update_has_another_mixture_and_looking_has_none_of_its_own():
    rem, batch = with_other_targets(REM(SPEC, REMConfig(num_heads=4))), make_batch()
    losses = [rem.loss(batch)[0].item() for _ in range(3)]
    assert len(set(losses)) == 3
    assert rem.updates == 3
    rem.eval().loss(batch)
    assert rem.updates == 3
    rem.updates.fill_(1)
    assert rem.loss(batch)[0].item() == losses[1]


@pytest.mark.slow  # the compiler takes half a minute
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own making
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
def test_a_compiled_backward_pass_has_the_mixture_of_its_forward_pass():
    eager, compiled = (REM(SPEC, REMConfig(num_heads=8)) for _ in range(2))
    compiled_loss = torch.compile(compiled.loss, dynamic=False)
    for step in range(3):
        eager.loss(make_batch(step))[0].backward()
        compiled_loss(make_batch(step))[0].backward()
        for ours, theirs in zip(compiled.parameters(), eager.parameters(), strict=True):
            if ours.requires_grad:
                torch.testing.assert_close(ours.grad, theirs.grad)
    assert compiled.updates == 3


def test_it_can_be_sent_to_another_process():
    algorithm, batch = REM(SPEC, REMConfig(num_heads=3)), make_batch()
    there = pickle.loads(pickle.dumps(algorithm))
    assert torch.equal(there.loss(batch)[0], algorithm.loss(batch)[0])


def test_it_acts_by_the_mean_of_the_heads():
    rem = REM(SPEC, REMConfig(num_heads=2))
    with torch.no_grad():
        rem.q_head.output.weight.zero_()
        rem.q_head.output.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 5.0, 0.0, 0.0]))
    assert rem(torch.zeros(1, 3)).scores.tolist() == [[3, 1, 1.5]]
    assert rem(torch.zeros(1, 3)).logits.tolist() == [[0, 0, 0]]


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="REMConfig.num_heads: 0; expected 1 to 10000, a whole number"):
        REMConfig(num_heads=0)
