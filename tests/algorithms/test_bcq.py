"""Discrete BCQ against an independent transcription of arXiv:1910.01708 in float64, its limits, a solved problem."""

import numpy as np
import pytest
import torch
from torch import nn

from offrl import Batch, TaskSpec
from offrl.algorithms import DQN, DiscreteBCQ, DiscreteBCQConfig
from offrl.errors import ConfigError
from offrl.losses import greedy_actions
from offrl.networks import MLPEncoder
from offrl.spec import default_action_names
from offrl.training import Learner, LearnerConfig

NUM_ACTIONS = 5
SPEC = TaskSpec.vector(3, default_action_names(NUM_ACTIONS))


def make_batch(size=64, dtype=torch.float32):
    rng = np.random.default_rng(0)
    return Batch(
        observation=torch.tensor(rng.normal(size=(size, 3)), dtype=dtype),
        action=torch.tensor(rng.integers(NUM_ACTIONS, size=size)),
        reward=torch.tensor(3 * rng.normal(size=size), dtype=dtype),
        discount=torch.tensor(rng.choice([0.0, 0.9, 0.81], size=size), dtype=dtype),
        next_observation=torch.tensor(rng.normal(size=(size, 3)), dtype=dtype),
    )


def make_bcq(**settings):
    bcq = DiscreteBCQ(SPEC, DiscreteBCQConfig(**settings), seed=1)
    with torch.no_grad():  # larger outputs: actions are ruled out, and some errors are in the linear part of Huber
        for head in (bcq.q_head, bcq.imitation_head):
            head.output.weight.mul_(8)
        for _, target in bcq.targets():
            for parameter in target.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return bcq


class Transcription:
    """The paper's equations with numpy loops; the gradient by hand-written backpropagation."""

    def __init__(self, bcq, threshold, penalty):
        def weights(encoder, *heads):
            layers = [encoder.network[0]] + [layer for head in heads for layer in (head.hidden, head.output)]
            return [(x.weight.detach().double().numpy(), x.bias.detach().double().numpy()) for x in layers]

        self.encoder, *self.heads = weights(bcq.encoder, bcq.q_head, bcq.imitation_head)
        self.target = weights(bcq.target_encoder, bcq.target_q_head)
        self.threshold, self.penalty = threshold, penalty

    @staticmethod
    def layer(x, weight_and_bias, relu):
        y = weight_and_bias[0] @ x + weight_and_bias[1]
        return np.maximum(y, 0) if relu else y

    def q_of_target(self, s):
        z = self.layer(s, self.target[0], relu=True)
        return self.layer(self.layer(z, self.target[1], relu=True), self.target[2], relu=False)

    def forward(self, s):
        z = self.layer(s, self.encoder, relu=True)
        hidden_q = self.layer(z, self.heads[0], relu=True)
        hidden_i = self.layer(z, self.heads[2], relu=True)
        return (
            z,
            hidden_q,
            self.layer(hidden_q, self.heads[1], False),
            hidden_i,
            self.layer(hidden_i, self.heads[3], False),
        )

    def target_value(self, reward, discount, s_next):
        _, _, q, _, logits = self.forward(s_next)
        g = np.exp(logits - logits.max())
        g /= g.sum()
        best, best_q = None, -np.inf
        for a in range(NUM_ACTIONS):
            if g[a] / g.max() > self.threshold and q[a] > best_q:
                best, best_q = a, q[a]
        return reward + discount * self.q_of_target(s_next)[best]

    def loss_and_gradients(self, batch):
        columns = [
            t.double().numpy() for t in (batch.observation, batch.reward, batch.discount, batch.next_observation)
        ]
        actions = batch.action.numpy()
        size, total = len(actions), 0.0
        gradients = [(np.zeros_like(w), np.zeros_like(b)) for w, b in [self.encoder, *self.heads]]
        for s, reward, discount, s_next, a in zip(*columns, actions, strict=True):
            z, hidden_q, q, hidden_i, logits = self.forward(s)
            error = q[a] - self.target_value(reward, discount, s_next)
            g = np.exp(logits - logits.max())
            g /= g.sum()
            huber = 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5
            total += (huber - np.log(g[a]) + self.penalty * (logits**2).mean()) / size
            d_q = np.zeros(NUM_ACTIONS)
            d_q[a] = np.clip(error, -1, 1) / size
            d_logits = (g - np.eye(NUM_ACTIONS)[a] + 2 * self.penalty * logits / NUM_ACTIONS) / size
            d_z = np.zeros_like(z)
            for first, d_out, hidden in ((1, d_q, hidden_q), (3, d_logits, hidden_i)):
                self.add(gradients[first + 1], d_out, hidden)
                d_hidden = (self.heads[first][0].T @ d_out) * (hidden > 0)
                self.add(gradients[first], d_hidden, z)
                d_z += self.heads[first - 1][0].T @ d_hidden
            self.add(gradients[0], d_z * (z > 0), s)
        return total, gradients

    @staticmethod
    def add(gradient, d_out, x):
        gradient[0][:] += np.outer(d_out, x)
        gradient[1][:] += d_out


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.9])
def test_one_update_is_the_papers_in_float64(threshold):
    bcq = make_bcq(threshold=threshold, logit_penalty=0.01)
    paper = Transcription(bcq, threshold, 0.01)
    batch = make_batch(dtype=torch.float64)
    expected_loss, expected_gradients = paper.loss_and_gradients(batch)

    loss, metrics = bcq.double().loss(batch)
    loss.backward()

    assert loss.item() == pytest.approx(expected_loss, rel=1e-12)
    layers = [bcq.encoder.network[0]]
    layers += [bcq.q_head.hidden, bcq.q_head.output, bcq.imitation_head.hidden, bcq.imitation_head.output]
    for layer, (weight, bias) in zip(layers, expected_gradients, strict=True):
        np.testing.assert_allclose(layer.weight.grad.numpy(), weight, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(layer.bias.grad.numpy(), bias, rtol=1e-9, atol=1e-15)
    if threshold == 0.9:
        assert metrics["allowed_actions"] < 2  # the constraint was at work
    assert all(p.grad is None for _, target in bcq.targets() for p in target.parameters())


def test_the_target_network_moves_by_polyak_after_the_step():
    bcq = make_bcq()
    before = {name: p.detach().clone() for name, p in bcq.named_parameters()}
    settings = LearnerConfig(optimizer="SGD", learning_rate=0.1, polyak=0.25, precision="fp32")
    Learner(bcq, settings, total_updates=1).update(make_batch())
    for name in ("network.0.weight", "network.0.bias"):
        online, target = dict(bcq.encoder.named_parameters())[name], dict(bcq.target_encoder.named_parameters())[name]
        assert not torch.equal(online, before[f"encoder.{name}"])
        torch.testing.assert_close(target, 0.75 * before[f"target_encoder.{name}"] + 0.25 * online)


def test_threshold_0_is_double_dqn():
    bcq = make_bcq(threshold=0.0)
    dqn = DQN(SPEC)
    own = {name: t for name, t in bcq.state_dict().items() if not name.startswith("imitation_head")}
    dqn.load_state_dict(own)
    _, metrics = bcq.loss(make_batch())
    torch.testing.assert_close(metrics["td_loss"], dqn.loss(make_batch())[0].detach(), rtol=0, atol=0)
    observation = make_batch().observation
    output = bcq(observation)
    assert torch.equal(greedy_actions(*output, bcq.threshold), output.scores.argmax(dim=1))


def test_threshold_close_to_1_is_the_imitator():
    bcq = make_bcq(threshold=1 - 1e-6)
    output = bcq(make_batch().observation)
    assert torch.equal(greedy_actions(*output, bcq.threshold), output.logits.argmax(dim=1))
    assert bcq.loss(make_batch())[1]["allowed_actions"] == 1


def test_what_the_task_forbids_is_not_chosen_for_the_target():
    batch = make_batch()
    legal = torch.ones(len(batch.action), NUM_ACTIONS, dtype=torch.bool)
    bcq = make_bcq(threshold=0.0)
    free = bcq.loss(batch)[0]
    all_legal = bcq.loss(Batch(**{**vars(batch), "next_action_mask": legal}))[0]
    legal[:, 1:] = False
    only_first = bcq.loss(Batch(**{**vars(batch), "next_action_mask": legal}))[1]["allowed_actions"]
    assert free == all_legal
    assert only_first == 1


@pytest.mark.parametrize("settings", [{"threshold": 1.0}, {"threshold": -0.1}, {"logit_penalty": -1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"DiscreteBCQConfig.{next(iter(settings))}: .*expected"):
        DiscreteBCQConfig(**settings)


# A ring of 6 cells; action 0 stays, 1 and 2 move; cell 5 is worth 1 to enter and ends the episode, cell 3 costs 0.5.
CELLS, MOVES, DISCOUNT = 6, (0, 1, -1), 0.9


def ring():
    rows = []
    for cell in range(CELLS - 1):
        for action, move in enumerate(MOVES):
            following = (cell + move) % CELLS
            reward = 1.0 if following == 5 else -0.5 if following == 3 else 0.0
            rows.append((cell, action, reward, following, following == 5))
    return rows


def exact_q():
    q = np.zeros((CELLS, len(MOVES)))
    for _ in range(500):
        for cell, action, reward, following, terminated in ring():
            q[cell, action] = reward + DISCOUNT * (not terminated) * q[following].max()
    return q[:-1]


def ring_batch():
    cells, actions, rewards, following, terminated = (np.array(column) for column in zip(*ring(), strict=True))
    one_hot = np.eye(CELLS, dtype=np.float32)
    return Batch(
        torch.from_numpy(one_hot[cells]),
        torch.from_numpy(actions),
        torch.from_numpy(rewards.astype(np.float32)),
        torch.from_numpy((DISCOUNT * ~terminated).astype(np.float32)),
        torch.from_numpy(one_hot[following]),
    )


@pytest.mark.parametrize("make", [DQN, DiscreteBCQ])
def test_on_a_covered_tabular_problem_q_is_exact(make):
    spec = TaskSpec.vector(CELLS, ("stay", "on", "back"))
    algorithm = make(spec, encoder=lambda shape: MLPEncoder(shape, hidden=(64,)), seed=0)
    settings = LearnerConfig(learning_rate=2e-3, schedule="cosine", polyak=0.05, precision="fp32")
    learner = Learner(algorithm, settings, total_updates=1500)
    batch = ring_batch()
    for _ in range(1500):
        learner.update(batch)
    states = torch.eye(CELLS)[:-1]
    with torch.no_grad():
        q = algorithm.values(states).numpy()
        actions = greedy_actions(*algorithm(states), algorithm.threshold).numpy()
    np.testing.assert_allclose(q, exact_q(), atol=0.02)
    assert actions.tolist() == exact_q().argmax(axis=1).tolist() == [2, 2, 2, 1, 1]


def test_encoder_without_linear_layers_can_be_any_module():
    class Flat(nn.Flatten):
        feature_dim = 3

    bcq = DiscreteBCQ(SPEC, encoder=lambda shape: Flat())
    assert bcq(torch.zeros(2, 3)).scores.shape == (2, NUM_ACTIONS)
