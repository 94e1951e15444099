import pytest
import torch
from torch.nn.functional import smooth_l1_loss
from toy_replay import ToyReplay
from twins import SPEC, make_batch, with_other_targets

from offrl import BVE, DQN, BVEConfig, DQNConfig, FitConfig, fit
from offrl.errors import ConfigError
from offrl.training import Learner, LearnerConfig


def test_the_target_follows_the_log_and_leaves_out_rows_where_it_ends():
    batch = make_batch()
    next_action = batch.next_action.clone()
    next_action[::4] = -1
    batch = make_batch(next_action=next_action)
    bve = with_other_targets(BVE(SPEC))
    q, judged = bve.values(batch.observation), bve.target_q_head(bve.target_encoder(batch.next_observation))
    rows = []
    for row, action in enumerate(batch.action):
        if next_action[row] == -1 and batch.discount[row] > 0:
            continue
        target = batch.reward[row]
        if batch.discount[row] > 0:
            target = target + batch.discount[row] * judged[row, next_action[row]]
        rows.append(smooth_l1_loss(q[row, action], target.detach()))
    assert 0 < len(rows) < 32
    torch.testing.assert_close(bve.loss(batch)[0], torch.stack(rows).mean())


def test_after_a_behaviour_that_takes_the_target_networks_best_action_it_is_dqn():
    """Then the logged next action is the maximum of the target network."""
    bve, dqn = BVE(SPEC, seed=1), DQN(SPEC, DQNConfig(double=False), seed=1)
    config = LearnerConfig(precision="fp32", compile="off", learning_rate=1e-2, polyak=0.25)
    ours, theirs = Learner(bve, config, total_updates=5), Learner(dqn, config, total_updates=5)
    for step in range(5):
        batch = make_batch(step)
        with torch.no_grad():
            best = bve.target_q_head(bve.target_encoder(batch.next_observation)).argmax(dim=1)
        ours.update(make_batch(step, next_action=best))
        theirs.update(batch)
    for name, tensor in bve.state_dict().items():
        torch.testing.assert_close(tensor, dqn.state_dict()[name], rtol=0, atol=1e-6)


def test_a_batch_after_which_the_log_always_ends_teaches_nothing():
    bve = BVE(SPEC)
    loss, _ = bve.loss(make_batch(next_action=torch.full((32,), -1), discount=torch.ones(32)))
    loss.backward()
    assert loss == 0
    assert all(p.grad.abs().sum() == 0 for p in bve.parameters() if p.requires_grad)


def test_it_learns_what_the_behaviour_is_worth_and_acts_better():
    """Two states: in the first, "left" pays 1 and "right" leads to the second, where the behaviour always loses 1
    although it could win 3: to the behaviour "right" is worth -0.9, a maximum would say 2.7."""
    first, second = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])
    batch = make_batch(
        observation=torch.stack([first, first, second, second]),
        action=torch.tensor([0, 1, 0, 1]),
        reward=torch.tensor([1.0, 0.0, -1.0, 3.0]),
        discount=torch.tensor([0.0, 0.9, 0.0, 0.0]),
        next_observation=torch.stack([first, second, second, second]),
        next_action=torch.tensor([-1, 0, -1, -1]),
    )
    bve = BVE(SPEC)
    optimizer = torch.optim.Adam(bve.parameters(), lr=1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        bve.loss(batch)[0].backward()
        optimizer.step()
        bve.copy_to_targets()
    assert bve.values(batch.observation[:1])[0, :2].tolist() == pytest.approx([1, -0.9], abs=0.05)
    assert bve.values(batch.observation[2:3])[0, :2].argmax() == 1  # one step of improvement


def test_a_replay_without_the_next_action_is_refused_before_training(tmp_path):
    with pytest.raises(ConfigError) as raised:
        fit(BVE(SPEC), ToyReplay(SPEC), FitConfig(updates=1), run=tmp_path / "run", loggers=[], device="cpu")
    assert str(raised.value) == (
        "replay: batches without next_action; expected batches that carry what the algorithm's loss reads; "
        'open it with open_replay(..., include=["next_action"])'
    )
    assert not (tmp_path / "run").exists()


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"BVEConfig.ensemble: 'mean:101'; expected None, or \"mean:N\" or \"min:N\""):
        BVEConfig(ensemble="mean:101")
