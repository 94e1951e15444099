import hashlib
import json
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from torch import nn

from offrl import TaskSpec, __version__
from offrl.algorithms import BC, DQN, DiscreteBCQ, DiscreteBCQConfig, DQNConfig, PolicyOutput
from offrl.cli.names import ALGORITHMS, algorithm_class
from offrl.errors import ConfigError, ExportError, SpecMismatchError
from offrl.losses import greedy_actions
from offrl.networks import CompactEncoder, ImpalaEncoder, MinAtarEncoder, MLPEncoder, NatureEncoder, ResidualEncoder
from offrl.policies import OnnxPolicy, export_onnx, verify_onnx
from offrl.policies._onnx_seal import sealed
from offrl.policies.export import logit_scale
from offrl.policies.torch_policy import TorchPolicy
from offrl.spec import default_action_names

VECTORS = TaskSpec.vector(3, ("left", "right", "stay"))
PIXELS = TaskSpec.pixels((4, 96, 96), default_action_names(25))
GRID = TaskSpec.pixels((4, 10, 10), default_action_names(6))


def bcq(spec, encoder=None, threshold=0.1):
    return DiscreteBCQ(spec, DiscreteBCQConfig(threshold=threshold), encoder=encoder or small(spec))


def bc(spec, encoder=None):
    return BC(spec, encoder=encoder or small(spec))


def dqn(spec, encoder=None):
    return DQN(spec, encoder=encoder or small(spec))


def of_the_shelf(kind):
    return lambda spec, encoder=None: kind(spec, encoder=encoder or small(spec))


SHELF = [pytest.param(of_the_shelf(algorithm_class(name)), id=name) for name in ALGORITHMS]


def small(spec):
    return CompactEncoder if spec.is_pixels else MLPEncoder


def run(path, observation):
    session = ReferenceEvaluator(str(path))
    return dict(zip(session.output_names, session.run(None, {"observation": observation}), strict=True))


# The threshold


@given(
    logits=st.lists(st.floats(-8, 8, width=16), min_size=5, max_size=5),
    scores=st.permutations([0.0, 1.0, 2.0, 3.0, 4.0]),
    threshold=st.floats(0.01, 0.99),
)
def test_the_customary_threshold_on_scaled_logits_acts_as_the_own_one_on_plain_logits(logits, scores, threshold):
    logits = torch.tensor([logits], dtype=torch.float64)
    scores = torch.tensor([scores])
    ratio = logits - logits.max()
    if (ratio - np.log(threshold)).abs().min() < 1e-6:
        return  # exactly at the threshold rounding decides
    scaled = logits * logit_scale(threshold)
    assert greedy_actions(scores, scaled, 0.3).tolist() == greedy_actions(scores, logits, threshold).tolist()


def test_scales_by_hand():
    assert logit_scale(0.3) == 1.0
    assert logit_scale(0.09) == pytest.approx(0.5)
    assert logit_scale(0.0) == 0.0
    with pytest.raises(ConfigError, match=r"threshold: 1\.0"):
        logit_scale(1.0)


# The float contract


def test_a_policy_is_no_algorithm(tmp_path):
    policy = TorchPolicy(BC(TaskSpec.vector(3, ("left", "right"))))
    with pytest.raises(ConfigError, match=r"a TorchPolicy; expected an Algorithm; pass policy.algorithm"):
        export_onnx(policy, tmp_path / "a.onnx", contract="uint8")
    with pytest.raises(ConfigError, match=r"TorchPolicy: a TorchPolicy; .* pass learner.snapshot\(\), or offrl.load"):
        TorchPolicy(policy)


@pytest.mark.parametrize("encoder", [NatureEncoder, CompactEncoder, MinAtarEncoder, ImpalaEncoder, ResidualEncoder])
@pytest.mark.parametrize("make", [bc, dqn, bcq, *SHELF[3:]])
def test_float_files_hold_only_the_networks_operators(tmp_path, make, encoder):
    spec = GRID if encoder is MinAtarEncoder else PIXELS
    model = onnx.load(export_onnx(make(spec, encoder), tmp_path / "m.onnx", contract="float"))
    of_residual_blocks = {"MaxPool", "Add"} if issubclass(encoder, ImpalaEncoder) else set()
    assert {node.op_type for node in model.graph.node} == {"Conv", "Relu", "Flatten", "Gemm", *of_residual_blocks}
    assert [value.name for value in model.graph.input] == ["observation"]
    assert [value.name for value in model.graph.output] == ["q", "logits"]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used  # no target network, no leftovers


@pytest.mark.parametrize("make", [bc, dqn, bcq, *SHELF[3:]])
def test_float_outputs_are_the_scores_and_the_scaled_logits(tmp_path, make):
    algorithm = make(VECTORS)
    observation = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
    with torch.no_grad():
        scores, logits = algorithm(torch.from_numpy(observation))
    found = run(export_onnx(algorithm, tmp_path / "m.onnx", contract="float"), observation)
    np.testing.assert_allclose(found["q"], scores, atol=1e-6)
    np.testing.assert_allclose(found["logits"], logits * logit_scale(algorithm.threshold), atol=1e-6)


@pytest.mark.parametrize("ensemble", ["mean:3", "min:3"])
def test_an_ensemble_is_reduced_in_the_file(tmp_path, ensemble):
    algorithm = DQN(VECTORS, DQNConfig(ensemble=ensemble))
    observation = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
    for contract in ("float", "uint8"):
        path = export_onnx(algorithm, tmp_path / f"{contract}.onnx", contract=contract)
        verify_onnx(path, algorithm, observation)
        with torch.no_grad():
            q = algorithm.values(torch.from_numpy(observation))
        np.testing.assert_allclose(run(path, observation)["q"], q, atol=1e-6)
        OnnxPolicy(path)(observation)


def test_the_float_contract_takes_normalised_pixels_and_the_uint8_contract_raw_ones(tmp_path):
    algorithm = bcq(PIXELS)
    raw = np.random.default_rng(0).integers(0, 256, (2, 4, 96, 96), dtype=np.uint8)
    from_float = run(export_onnx(algorithm, tmp_path / "f.onnx", contract="float"), raw.astype(np.float32) / 128 - 1)
    from_uint8 = run(export_onnx(algorithm, tmp_path / "u.onnx", contract="uint8"), raw)
    for name in ("q", "logits"):
        np.testing.assert_allclose(from_float[name], from_uint8[name], atol=1e-6)


class Custom(DQN):
    """DQN with logits of the test's own."""

    name = "custom"

    def __init__(self, make_logits, threshold):
        super().__init__(VECTORS, encoder=MLPEncoder)
        self.make_logits = make_logits
        self.threshold = threshold

    def forward(self, observation):
        q = self.values(observation)
        return PolicyOutput(scores=q, logits=self.make_logits(q))


def test_a_threshold_at_which_logits_reach_those_of_illegal_actions_is_refused(tmp_path):
    algorithm = bcq(replace(VECTORS, legal_actions=(1, 2)), threshold=1 - 1e-9)
    with pytest.raises(
        ConfigError, match=r"threshold: 0\.9{9}.*; expected at most 0\.999999, for an ONNX file of a task"
    ):
        export_onnx(algorithm, tmp_path / "policy.onnx", contract="uint8")
    export_onnx(bcq(VECTORS, threshold=1 - 1e-9), tmp_path / "policy.onnx", contract="uint8")


@pytest.mark.parametrize("threshold", [0.3, 0.0])
def test_actions_that_a_forward_pass_rules_out_with_minus_infinity_are_verified(tmp_path, threshold):
    class Ruling(Custom):
        def forward(self, observation):
            q = self.values(observation)
            is_worst = q == q.min(dim=1, keepdim=True).values
            return PolicyOutput(q.masked_fill(is_worst, -torch.inf), (0 * q).masked_fill(is_worst, -torch.inf))

    algorithm = Ruling(torch.zeros_like, threshold)
    path = export_onnx(algorithm, tmp_path / "policy.onnx", contract="uint8")
    assert verify_onnx(path, algorithm, num_random=32).max_q_difference < 1e-4
    observation = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    assert OnnxPolicy(path)(observation).tolist() == TorchPolicy(algorithm)(observation).tolist()


@pytest.mark.parametrize(
    ("make_logits", "threshold", "operators"),
    [
        (torch.zeros_like, 0.3, {"Gemm", "Relu"}),
        (torch.zeros_like, 0.1, {"Gemm", "Relu"}),
        (lambda q: 0 * q, 0.3, {"Gemm", "Relu"}),
        (lambda q: q, 0.3, {"Gemm", "Relu"}),
        (lambda q: 2.0 * q, 0.1, {"Gemm", "Relu"}),
        (torch.ones_like, 0.3, {"Gemm", "Relu", "Shape", "ConstantOfShape"}),  # not zero: stays as torch wrote it
        (torch.tanh, 0.1, {"Gemm", "Relu", "Tanh", "Constant", "Mul"}),
        (lambda q: q * q, 0.3, {"Gemm", "Relu", "Mul"}),
    ],
)
@pytest.mark.parametrize("contract", ["float", "uint8"])
def test_any_logits_export_and_simple_ones_become_one_gemm(tmp_path, make_logits, threshold, operators, contract):
    algorithm = Custom(make_logits, threshold)
    path = export_onnx(algorithm, tmp_path / "m.onnx", contract=contract)
    observation = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
    with torch.no_grad():
        expected = algorithm(torch.from_numpy(observation)).logits * logit_scale(threshold)
    np.testing.assert_allclose(run(path, observation)["logits"], expected, atol=1e-6)
    verify_onnx(path, algorithm)
    if contract == "float":
        assert {node.op_type for node in onnx.load(path).graph.node} == operators


@pytest.mark.skipif(find_spec("onnx2pytorch") is None, reason="pip install --no-deps onnx2pytorch")
@pytest.mark.parametrize("make", [bc, dqn, bcq])
@pytest.mark.usefixtures("torchvision_stand_in")
def test_onnx2pytorch_reads_the_float_contract(tmp_path, make):
    import onnx2pytorch

    algorithm = make(PIXELS, NatureEncoder)
    path = export_onnx(algorithm, tmp_path / "m.onnx", contract="float")
    converted = onnx2pytorch.ConvertModel(onnx.load(path))
    for batch_size in (1, 3):
        observation = torch.rand(batch_size, 4, 96, 96, generator=torch.Generator().manual_seed(batch_size)) * 2 - 1
        with torch.no_grad():
            scores, logits = algorithm(observation)
            q, scaled = converted(observation)
        torch.testing.assert_close(q, scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(scaled, logits * logit_scale(algorithm.threshold), atol=1e-5, rtol=0)


# The uint8 contract


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.95])
def test_the_action_inside_the_file_is_the_greedy_one(tmp_path, threshold):
    algorithm = bcq(VECTORS, threshold=threshold)
    with torch.no_grad():
        algorithm.imitation_head.output.weight.mul_(30)
    observation = np.random.default_rng(0).standard_normal((200, 3), dtype=np.float32)
    with torch.no_grad():
        expected = greedy_actions(*algorithm(torch.from_numpy(observation)), threshold)
    path = export_onnx(algorithm, tmp_path / "m.onnx", contract="uint8")
    for batch in (observation, observation[:1], observation[:7]):
        action = run(path, batch)["action"]
        assert action.dtype == np.int64
        assert action.tolist() == expected[: len(batch)].tolist()


@pytest.mark.parametrize("contract", ["float", "uint8"])
def test_metadata_says_all_a_reader_needs(tmp_path, contract):
    path = export_onnx(bcq(VECTORS), tmp_path / "m.onnx", contract=contract)
    model = onnx.load(path)
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert TaskSpec.from_dict(json.loads(found.pop("task_spec")), where="metadata") == VECTORS
    assert json.loads(found.pop("action_names")) == ["left", "right", "stay"]
    content = path.read_bytes()
    assert (
        found.pop("content_sha256")
        == hashlib.sha256(content[: content.rindex(b"\x0a\x0econtent_sha256") - 2]).hexdigest()
    )
    assert found == {
        "sealed": "1",
        "stack_order": "oldest first",
        "contract": contract,
        "apply_threshold": "0.3",
        "algorithm": "bcq",
        "algorithm_threshold": "0.1",
        "offrl_version": __version__,
    }


def test_export_leaves_the_algorithm_as_it_was(tmp_path):
    algorithm = bcq(VECTORS).train()
    before = {name: tensor.clone() for name, tensor in algorithm.state_dict().items()}
    export_onnx(algorithm, tmp_path / "m.onnx", contract="float")
    assert algorithm.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in algorithm.state_dict().items())


def test_the_same_algorithm_gives_the_same_file(tmp_path):
    paths = [export_onnx(bcq(VECTORS), tmp_path / name, contract="float") for name in ("a.onnx", "b.onnx")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


# Verification


@pytest.mark.parametrize("contract", ["float", "uint8"])
@pytest.mark.parametrize("make", [bc, dqn, bcq])
def test_a_good_file_passes_in_batches_of_1_and_7(tmp_path, make, contract):
    algorithm = make(PIXELS)
    path = export_onnx(algorithm, tmp_path / "m.onnx", contract=contract)
    real = np.zeros((3, 4, 96, 96), np.uint8)
    result = verify_onnx(path, algorithm, real, num_random=9, tolerance=1e-5)
    assert result.num_observations == 12
    assert result.batch_sizes == (1, 4, 7)
    assert result.max_q_difference < 1e-5
    assert result.num_disagreements <= round(12 * result.near_tie_share)


def test_verification_runs_on_onnx_alone(tmp_path, monkeypatch):
    algorithm = bcq(VECTORS)
    path = export_onnx(algorithm, tmp_path / "m.onnx", contract="uint8")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert verify_onnx(path, algorithm).runtime.startswith("onnx.reference ")


def test_a_file_of_other_weights_fails(tmp_path):
    path = export_onnx(bcq(VECTORS), tmp_path / "m.onnx", contract="float")
    other = DiscreteBCQ(VECTORS, DiscreteBCQConfig(threshold=0.1), encoder=MLPEncoder, seed=1)
    with pytest.raises(ExportError, match=r"m\.onnx: q differs from torch by up to "):
        verify_onnx(path, other)


def test_a_file_of_another_threshold_fails(tmp_path):
    path = export_onnx(bcq(VECTORS, threshold=0.5), tmp_path / "m.onnx", contract="float")
    with pytest.raises(ExportError, match="logits by up to"):
        verify_onnx(path, bcq(VECTORS, threshold=0.1))


def test_a_file_with_another_rule_inside_fails(tmp_path):
    algorithm = bcq(VECTORS, threshold=0.3)
    path = export_onnx(algorithm, tmp_path / "m.onnx", contract="uint8")
    model = onnx.load(path)
    argmax = next(node for node in model.graph.node if node.op_type == "ArgMax")
    argmax.input[0] = "logits"  # values right, action wrong
    path.write_bytes(sealed(model))
    with pytest.raises(ExportError, match=r"greedy actions differ from torch; expected none, near-ties aside"):
        verify_onnx(path, algorithm)


def test_near_ties_are_counted_and_forgiven(tmp_path):
    algorithm = Custom(torch.zeros_like, 0.3)
    with torch.no_grad():
        algorithm.q_head.output.weight.zero_()
        algorithm.q_head.output.bias.copy_(torch.tensor([1.0, 1.0 + 1e-6, 0.0]))
    path = export_onnx(algorithm, tmp_path / "m.onnx", contract="float")
    assert verify_onnx(path, algorithm).near_tie_share == 1.0
    with torch.no_grad():
        algorithm.q_head.output.bias.copy_(torch.tensor([1.0 + 2e-6, 1.0, 0.0]))  # the other action, by a hair
    result = verify_onnx(path, algorithm)
    assert result.num_disagreements == result.num_observations == 64


def test_a_file_of_another_task_fails(tmp_path):
    path = export_onnx(bcq(VECTORS), tmp_path / "m.onnx", contract="float")
    with pytest.raises(SpecMismatchError, match=r"m\.onnx: action_names is .*'stay'"):
        verify_onnx(path, bcq(TaskSpec.vector(3, ("left", "right", "wait"))))
    with pytest.raises(SpecMismatchError, match="observations are float64"):
        verify_onnx(path, bcq(VECTORS), np.zeros((2, 3)))


def test_there_must_be_something_to_compare(tmp_path):
    path = export_onnx(bcq(VECTORS), tmp_path / "m.onnx", contract="float")
    with pytest.raises(ConfigError, match="verify_onnx: no observations"):
        verify_onnx(path, bcq(VECTORS), num_random=0)


# Bad input


def test_an_unknown_contract_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"contract: 'int8'; expected one of \('float', 'uint8'\)"):
        export_onnx(bcq(VECTORS), tmp_path / "m.onnx", contract="int8")
    assert list(tmp_path.iterdir()) == []


class Fancy(nn.Module):
    """An operator that opset 13 does not have."""

    feature_dim = 3

    def __init__(self, shape):
        super().__init__()

    def forward(self, observation):
        return torch.special.bessel_j0(observation)


def test_what_torch_cannot_export_is_named_and_nothing_is_written(tmp_path):
    with pytest.raises(ExportError, match="bcq: torch cannot export it to opset 13") as caught:
        export_onnx(bcq(VECTORS, Fancy), tmp_path / "m.onnx", contract="float")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named_and_the_old_file_stays(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(ExportError, match=r"m\.onnx: cannot be written"):
        export_onnx(bcq(VECTORS), tmp_path / "file/m.onnx", contract="float")
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(ExportError, match=r"m\.onnx: cannot be written"):
        export_onnx(bcq(VECTORS), tmp_path / "m.onnx", contract="float")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "m.onnx"]
