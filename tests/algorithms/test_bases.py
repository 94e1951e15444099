"""A Q-learning algorithm of a user's own is a config and a loss."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from offrl import CQL, FitConfig, TaskSpec, fit
from offrl.algorithms import (
    BVE,
    CRR,
    DQN,
    IQL,
    QRBCQ,
    QRCQL,
    QRDQN,
    REM,
    ActorCritic,
    Algorithm,
    DiscreteSAC,
    PolicyOutput,
    QLearning,
    QuantileLearning,
    build_algorithm,
)
from offrl.errors import ConfigError
from offrl.losses import max_q_target, select_action, td_loss
from offrl.networks import Head, feature_dim

SPEC = TaskSpec.vector(3, ("left", "right", "stay"))
OBSERVATION = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class OwnConfig:
    """A setting of its own."""

    scale: float = 2.0


class Own(QLearning[OwnConfig]):
    """Q-learning with scaled rewards."""

    name = "own"

    def loss(self, batch):
        q = self.values(batch.observation)
        with torch.no_grad():
            next_q = self.target_q_head(self.target_encoder(batch.next_observation))
            target = max_q_target(self.config.scale * batch.reward, batch.discount, next_q)
        return td_loss(q, batch.action, target), {"q": select_action(q, batch.action).mean()}


def test_a_loss_is_all_that_is_missing(toy_replay):
    algorithm = Own(toy_replay.spec)
    assert algorithm.config == OwnConfig()
    before = algorithm.target_q_head.state_dict()["output.weight"].clone()
    fit(algorithm, toy_replay, FitConfig(updates=2, batch_size=8), loggers=[], device="cpu")
    assert not torch.equal(algorithm.target_q_head.state_dict()["output.weight"], before)
    output = algorithm(OBSERVATION)
    assert isinstance(output, PolicyOutput)
    assert torch.equal(output.scores, algorithm.values(OBSERVATION))
    assert not output.logits.any()


def test_the_config_is_found_behind_the_base():
    assert Own.config_class() is OwnConfig
    assert build_algorithm(Own, SPEC, {"scale": 3.0}).config.scale == 3.0
    with pytest.raises(ConfigError, match=r"Own.config: a dict; expected a OwnConfig"):
        Own(SPEC, {})
    # A subclass of a concrete algorithm keeps that one's, and may bring its own.
    assert type("Derived", (CQL,), {}).config_class() is CQL.config_class()


def test_an_ensemble_among_the_settings_makes_one():
    @dataclass(frozen=True)
    class EnsembleConfig:
        ensemble: str | None = "min:2"

    class Ensemble(QLearning[EnsembleConfig]):
        name = "ensemble"
        loss = Own.loss

    heads = Ensemble(SPEC).q_head.members(torch.zeros(1, 256))
    assert len(heads) == 2
    assert len(Own(SPEC).q_head.members(torch.zeros(1, 256))) == 1


class OwnActor(ActorCritic[OwnConfig]):
    """Never trained."""

    name = "own-actor"
    loss = Own.loss

    def make_networks(self, encoder):
        super().make_networks(encoder)
        self.policy_head = Head(feature_dim(self.encoder), self.spec.num_actions)


def test_an_actor_acts_by_its_policy_and_is_judged_by_q():
    actor = OwnActor(SPEC)
    output = actor(OBSERVATION)
    assert torch.equal(output.scores, actor.policy_head(actor.encoder(OBSERVATION)))
    assert torch.equal(output.scores, output.logits)
    assert torch.equal(actor.values(OBSERVATION), actor.q_head(actor.encoder(OBSERVATION)))
    assert [id(target) for _, target in actor.targets()] == [id(actor.target_encoder), id(actor.target_q_head)]


class Failing(Own):
    """Takes what all take, and fails with it."""

    def make_networks(self, encoder):
        raise TypeError("my own mistake")


@dataclass(frozen=True)
class NeedyConfig:
    size: int
    area: int = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "area", self.size**2)


class Needy(Algorithm[NeedyConfig]):
    name = "needy"
    loss = Own.loss
    forward = Own.forward

    def make_networks(self, encoder):
        self.encoder = encoder(self.spec.observation_shape)


class Narrow(Own):
    def __init__(self, spec):
        super().__init__(spec)


def test_what_a_class_cannot_be_built_of_is_told_from_its_own_mistakes():
    with pytest.raises(ConfigError, match=r"here: OwnConfig has no setting beta; expected settings of") as refused:
        build_algorithm(Own, SPEC, {"scale": 3.0, "beta": 1.0}, where="here")
    assert "another version" in str(refused.value)
    with pytest.raises(ConfigError, match=r"NeedyConfig needs setting size; expected settings of size, area"):
        build_algorithm(Needy, SPEC, {})
    assert build_algorithm(Needy, SPEC, {"size": 2, "area": 4}).config.area == 4
    with pytest.raises(ConfigError, match=r"--algorithm: Narrow cannot be constructed \(.*argument.*\(spec, config"):
        build_algorithm(Narrow, SPEC, {})
    with pytest.raises(TypeError, match="my own mistake"):
        build_algorithm(Failing, SPEC, {})


@pytest.mark.parametrize("kind", [DQN, CQL, BVE, REM, IQL, CRR, DiscreteSAC, QRDQN, QRBCQ, QRCQL])
def test_the_shelf_is_written_on_the_bases(kind):
    """The names of the weights are those of earlier versions, whose checkpoints load."""
    assert issubclass(kind, ActorCritic if kind in (IQL, CRR, DiscreteSAC) else QLearning)
    assert issubclass(kind, QuantileLearning) == (kind in (QRDQN, QRBCQ, QRCQL))
    children = [name for name, child in kind(SPEC).named_children() if isinstance(child, nn.Module)]
    assert children[:2] == ["encoder", "q_head"]
    assert [name for name in children if name.startswith("target")][:2] == ["target_encoder", "target_q_head"]
