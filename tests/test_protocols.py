"""The protocols that users implement: offrl's own classes have every member that a protocol declares."""

from __future__ import annotations

import pytest
from typing_extensions import get_protocol_members

from offrl import BC, CompactEncoder, MLPEncoder, NatureEncoder, OnnxPolicy, TaskSpec, TorchPolicy, export_onnx
from offrl.envs import Behaviour, Bursts, CartPoleDriver, EpsilonGreedy, RandomBehaviour, TrackDriver
from offrl.evaluation import OpenPolicy
from offrl.networks import Encoder
from offrl.policies import Policy, ThresholdPolicy
from offrl.replay import BalancedActions, Sampling, SoftmaxReturns, TopReturns, Uniform


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    algorithm = BC(TaskSpec.vector(2, ("left", "right")))
    path = export_onnx(algorithm, tmp_path_factory.mktemp("exported") / "model.onnx", contract="uint8")
    return [TorchPolicy(algorithm), OnnxPolicy(path)]


@pytest.mark.parametrize("protocol", [Policy, ThresholdPolicy, OpenPolicy])
def test_policies_have_the_members_of_their_protocols(protocol: type, policies: list[object]) -> None:
    members = get_protocol_members(protocol)
    assert {"__call__", "probabilities"} <= members
    assert [(policy, name) for policy in policies for name in members if not hasattr(policy, name)] == []


def test_encoders_have_the_members_of_their_protocol() -> None:
    encoders = [NatureEncoder((4, 96, 96)), CompactEncoder((4, 96, 96)), MLPEncoder((3,))]
    members = get_protocol_members(Encoder)
    assert members == {"feature_dim", "__call__"}
    assert all(hasattr(encoder, name) for encoder in encoders for name in members)


def test_sampling_strategies_have_the_members_of_their_protocol() -> None:
    assert get_protocol_members(Sampling) == {"weights"}
    assert all(hasattr(each, "weights") for each in (Uniform(), TopReturns(0.5), SoftmaxReturns(1), BalancedActions()))


def test_behaviours_have_the_members_of_their_protocol() -> None:
    behaviours = [
        *(RandomBehaviour(), CartPoleDriver(), TrackDriver()),
        *(wrapper(RandomBehaviour(), epsilon=0.1) for wrapper in (EpsilonGreedy, Bursts)),
    ]
    members = get_protocol_members(Behaviour)
    assert {"begin", "__call__"} <= members
    assert all(hasattr(behaviour, name) for behaviour in behaviours for name in members)
