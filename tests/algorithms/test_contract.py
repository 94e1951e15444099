"""What an algorithm of a user's own is told before training begins."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from offrl import BC, DQN, DiscreteBCQ, DiscreteBCQConfig, DQNConfig, FitConfig, TaskSpec, fit
from offrl.algorithms import PolicyOutput, frozen_copy
from offrl.algorithms._contract import require_contract
from offrl.cli.names import ALGORITHMS, algorithm_class
from offrl.errors import ConfigError

TWO_ACTIONS = "expected a PolicyOutput of two float tensors [2, 3], [B, A]"


class Tensor(BC):
    def forward(self, observation):
        return super().forward(observation).scores


class Values(BC):
    def forward(self, observation):
        output = super().forward(observation)
        return PolicyOutput(output.scores, output.logits[:, :1])


class LossAlone(BC):
    def loss(self, batch):
        return super().loss(batch)[0]


class LossOfRows(BC):
    def loss(self, batch):
        return self(batch.observation).logits[:, 0], {}


class FloatMetric(BC):
    def loss(self, batch):
        return super().loss(batch)[0], {"q": 1.5}


class RowsMetric(BC):
    def loss(self, batch):
        return super().loss(batch)[0], {"reward": batch.reward}


class Detached(BC):
    def loss(self, batch):
        loss, metrics = super().loss(batch)
        return loss.detach(), metrics


def naming(metric):
    """An algorithm whose loss has a metric of that name."""

    class Naming(BC):
        def loss(self, batch):
            loss, _ = super().loss(batch)
            return loss, {metric: loss.detach()}

    return Naming


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        (Tensor, f"Tensor.forward: returned a tensor [2, 3] of float32; {TWO_ACTIONS}; return PolicyOutput("),
        (Values, "returned scores that are a tensor [2, 3] of float32 and logits that are a tensor [2, 1] of float32"),
        (LossAlone, "LossAlone.loss: returned a tensor [] of float32; expected a tuple of the loss, a tensor [], and"),
        (LossOfRows, "LossOfRows.loss: returned a tensor [2] of float32 and a dict; expected a tuple of the loss"),
        (
            FloatMetric,
            "FloatMetric.loss: the metric 'q' is 1.5; expected a tensor []; return means as tensors, without",
        ),
        (Detached, "Detached.loss: returned a loss without a gradient; expected one that depends on the weights"),
        (naming("loss"), "Naming.loss: a metric of the name 'loss'; expected other names than offrl's own: step,"),
        (naming("step"), "a metric of the name 'step'"),
        (naming("learning_rate"), "a metric of the name 'learning_rate'"),
        (naming("skipped_updates"), "a metric of the name 'skipped_updates'"),
        (naming("held_out_loss"), "a metric of the name 'held_out_loss'; expected other names than offrl's own: step,"),
        (naming(3), "a metric of the name 3;"),
        (RowsMetric, "RowsMetric.loss: the metric 'reward' is a tensor [2] of float32; expected a tensor []"),
    ],
)
def test_what_forward_and_loss_must_return_is_said_before_a_run_is_begun(toy_replay, tmp_path, algorithm, message):
    with pytest.raises(ConfigError) as raised:
        fit(algorithm(toy_replay.spec), toy_replay, FitConfig(updates=1), run=tmp_path / "run", loggers=[])
    assert message in str(raised.value)
    assert not (tmp_path / "run").exists()


class Forgetful(DQN):
    """Names only one of its two targets."""

    def targets(self):
        return super().targets()[:1]


@pytest.mark.parametrize("threshold", [1.0, float("nan"), -1, True, "0.3", None])
def test_a_threshold_that_no_policy_takes_is_refused_before_training(toy_replay, threshold):
    algorithm = DQN(toy_replay.spec)
    algorithm.threshold = threshold
    with pytest.raises(ConfigError, match=r"DQN.threshold: .*; expected 0 <= threshold < 1"):
        fit(algorithm, toy_replay, FitConfig(updates=1), loggers=[])


def test_a_target_that_no_pair_names_is_warned_of(toy_replay):
    batch = toy_replay.gather([0, 1])
    with pytest.warns(UserWarning, match=r"Forgetful.target_q_head is a frozen_copy and in none of the pairs"):
        require_contract(Forgetful(toy_replay.spec), batch)
    frozen = BC(toy_replay.spec)
    frozen.encoder.requires_grad_(False)  # not trained on purpose, and no target
    require_contract(frozen, batch)


def test_a_target_that_holds_those_of_the_pairs_is_moved_with_them(toy_replay):
    class Together(BC):
        def make_networks(self, encoder):
            super().make_networks(encoder)
            self.target = frozen_copy(nn.ModuleList([self.encoder, self.imitation_head]))

        def targets(self):
            return [(self.encoder, self.target[0]), (self.imitation_head, self.target[1])]

    require_contract(Together(toy_replay.spec), toy_replay.gather([0, 1]))


class Unmasked(DQN):
    """Takes its maximum over all actions."""

    def loss(self, batch):
        return super().loss(replace(batch, action_mask=None, next_action_mask=None))


class Drawing(Unmasked):
    """The same, and it draws random numbers."""

    def loss(self, batch):
        loss, metrics = super().loss(batch)
        return loss * (1 + torch.rand(())), metrics


class Regression(DQN):
    """Learns the logged reward alone: there is nothing to mask."""

    def loss(self, batch):
        q = self(batch.observation).scores.gather(1, batch.action[:, None])[:, 0]
        return (q - batch.reward).square().mean(), {}


class Careful(DQN):
    """Sees to it that what was logged is legal."""

    def loss(self, batch):
        assert batch.action_mask.gather(1, batch.action[:, None]).all()
        return super().loss(batch)


def masked(batch, *, rows):
    mask = torch.tensor(rows)
    return replace(batch, action_mask=torch.ones_like(mask), next_action_mask=mask)


def test_a_loss_that_depends_on_no_mask_is_warned_of(toy_replay):
    batch = toy_replay.gather([0, 1])
    legal = masked(batch, rows=[[True, True, False], [False, True, True]])
    state = torch.random.get_rng_state()
    for kind in (Unmasked, Drawing):
        with pytest.warns(UserWarning, match=rf"{kind.__name__}.loss does not depend on action_mask or"):
            require_contract(kind(toy_replay.spec), legal)
        require_contract(kind(toy_replay.spec), batch)
    zero = DQN(toy_replay.spec)
    for parameter in zero.parameters():
        nn.init.zeros_(parameter)
    for algorithm in (zero, Regression(toy_replay.spec), Careful(toy_replay.spec)):
        require_contract(algorithm, legal)
    for name in ALGORITHMS:
        kind = algorithm_class(name)
        given = {name: torch.zeros(2, dtype=torch.int64) for name in kind.needs}
        require_contract(kind(toy_replay.spec), replace(legal, **given))
    assert torch.equal(torch.random.get_rng_state(), state)


class Noisy(BC):
    """Counts what it sees, and draws random numbers."""

    def make_networks(self, encoder):
        super().make_networks(encoder)
        self.register_buffer("seen", torch.zeros(()))

    def loss(self, batch):
        self.seen += len(batch)
        loss, metrics = super().loss(batch)
        return loss + 0 * torch.rand(()), metrics


def test_trying_an_algorithm_changes_nothing(toy_replay):
    noisy = Noisy(toy_replay.spec)
    before, state = {name: t.clone() for name, t in noisy.state_dict().items()}, torch.get_rng_state()
    require_contract(noisy, toy_replay.gather([0, 1]))
    torch.testing.assert_close(noisy.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in noisy.modules())
    assert all(parameter.grad is None for parameter in noisy.parameters())


SPEC = TaskSpec.vector(4, ("left", "right"))


def test_a_config_of_another_algorithm_is_refused():
    with pytest.raises(ConfigError, match=r"DiscreteBCQ.config: a DQNConfig; expected a DiscreteBCQConfig"):
        DiscreteBCQ(SPEC, DQNConfig())
    with pytest.raises(ConfigError, match=r"BC.config: a DQNConfig; expected a BCConfig; pass BCConfig\(...\)"):
        BC(SPEC, DQNConfig())
    with pytest.raises(ConfigError, match="DQN.config: the class DQNConfig; expected a DQNConfig"):
        DQN(SPEC, DQNConfig)


def test_a_config_derived_from_the_algorithms_is_taken():
    class Stricter(DiscreteBCQConfig):
        pass

    assert DiscreteBCQ(SPEC, Stricter(threshold=0.5)).threshold == 0.5


def test_a_replay_in_place_of_its_spec_is_refused(toy_replay):
    with pytest.raises(ConfigError, match=r"DiscreteBCQ.spec: a ToyReplay; .*; pass the replay's: DiscreteBCQ\("):
        DiscreteBCQ(toy_replay)
    with pytest.raises(ConfigError, match=r"BC.spec: a tuple; expected a TaskSpec$"):
        BC((4,))
    with pytest.raises(ConfigError, match=r"BC.seed: 18446744073709551616; expected a whole number below 2\*\*64"):
        BC(SPEC, seed=2**64)
    with pytest.raises(ConfigError, match="BC.seed: 1.5; expected a whole number"):
        BC(SPEC, seed=1.5)
