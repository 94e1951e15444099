import torch
from torch.nn.functional import smooth_l1_loss

from offrl import Batch, TaskSpec
from offrl.algorithms import DQN, DQNConfig

SPEC = TaskSpec.vector(2, ("left", "right", "stay"))


def make_batch(size=32):
    rng = torch.Generator().manual_seed(5)
    return Batch(
        torch.randn(size, 2, generator=rng),
        torch.randint(3, (size,), generator=rng),
        torch.randn(size, generator=rng),
        torch.full((size,), 0.8),
        torch.randn(size, 2, generator=rng),
    )


def with_other_target(config):
    dqn = DQN(SPEC, config, seed=0)
    other = DQN(SPEC, config, seed=9)
    dqn.target_encoder.load_state_dict(other.encoder.state_dict())
    dqn.target_q_head.load_state_dict(other.q_head.state_dict())
    return dqn, other


def test_double_and_plain_targets_row_by_row():
    batch = make_batch()
    losses = {}
    for double in (True, False):
        dqn, target_network = with_other_target(DQNConfig(double=double))
        q, next_q, judged = (
            dqn.values(batch.observation),
            dqn.values(batch.next_observation),
            target_network.values(batch.next_observation),
        )
        targets = []
        for row in range(len(batch.action)):
            pick = (next_q if double else judged)[row].argmax()
            targets.append(batch.reward[row] + 0.8 * judged[row, pick])
        chosen = torch.stack([q[row, action] for row, action in enumerate(batch.action)])
        expected = smooth_l1_loss(chosen, torch.stack(targets).detach())
        losses[double] = dqn.loss(batch)[0]
        torch.testing.assert_close(losses[double], expected)
    assert losses[True] != losses[False]


def test_no_action_is_ruled_out():
    output = DQN(SPEC)(torch.tensor([[1.0, 2.0]]))
    assert output.logits.tolist() == [[0, 0, 0]]
    assert DQN(SPEC).threshold == 0
