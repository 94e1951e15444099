import sys

import numpy as np
import onnx
import pytest
import torch

from offrl import TaskSpec
from offrl.algorithms import DiscreteBCQ, DiscreteBCQConfig
from offrl.errors import ConfigError, ExportError, SpecMismatchError
from offrl.networks import CompactEncoder
from offrl.policies import OnnxPolicy, TorchPolicy, export_onnx
from offrl.policies._onnx_seal import sealed
from offrl.spec import default_action_names

VECTORS = TaskSpec.vector(3, ("left", "right", "stay"))
PIXELS = TaskSpec.pixels((4, 96, 96), default_action_names(25), hud="hidden")
OBSERVATIONS = {
    VECTORS: np.random.default_rng(1).standard_normal((50, 3), dtype=np.float32),
    PIXELS: np.random.default_rng(1).integers(0, 256, (10, 4, 96, 96), dtype=np.uint8),
}


def peaked_bcq(spec, threshold):
    """BCQ whose logits differ enough for the threshold to rule actions out."""
    algorithm = DiscreteBCQ(spec, DiscreteBCQConfig(threshold), encoder=CompactEncoder if spec.is_pixels else MLP)
    with torch.no_grad():
        algorithm.imitation_head.output.weight.mul_(30)
    return algorithm


def MLP(shape):
    from offrl.networks import MLPEncoder

    return MLPEncoder(shape, hidden=(16,))


@pytest.mark.parametrize("contract", ["float", "uint8"])
@pytest.mark.parametrize("spec", [VECTORS, PIXELS], ids=["vectors", "pixels"])
def test_it_acts_as_torch_does_random_actions_included(tmp_path, spec, contract):
    algorithm = peaked_bcq(spec, threshold=0.6)
    policy = OnnxPolicy(export_onnx(algorithm, tmp_path / "m.onnx", contract=contract), epsilon=0.3, seed=5)
    torch_policy = TorchPolicy(algorithm, epsilon=0.3, seed=5)
    assert policy.spec == spec
    for _ in range(2):
        actions = policy(OBSERVATIONS[spec])
        assert actions.dtype == np.int64
        assert actions.tolist() == torch_policy(OBSERVATIONS[spec]).tolist()
    greedy = TorchPolicy(algorithm)(OBSERVATIONS[spec])
    unconstrained = TorchPolicy(algorithm, threshold=0.0)(OBSERVATIONS[spec])
    assert (greedy != unconstrained).any()  # the threshold had a say


def test_it_runs_without_onnxruntime(tmp_path, monkeypatch):
    path = export_onnx(peaked_bcq(VECTORS, 0.6), tmp_path / "m.onnx", contract="uint8")
    expected = OnnxPolicy(path)(OBSERVATIONS[VECTORS])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    policy = OnnxPolicy(path)
    assert policy.runtime == f"onnx.reference {onnx.__version__}"
    assert policy(OBSERVATIONS[VECTORS]).tolist() == expected.tolist()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return export_onnx(peaked_bcq(VECTORS, 0.3), tmp_path_factory.mktemp("onnx") / "m.onnx", contract="float")


@pytest.mark.parametrize(
    "observation",
    [np.zeros((2, 4), np.float32), np.zeros((2, 3), np.float64), np.zeros(3, np.float32), np.zeros((2, 3), np.uint8)],
)
def test_observations_of_another_task_are_refused(file, observation):
    with pytest.raises(SpecMismatchError, match=r"observation: .*; expected float32 \[N, 3\]"):
        OnnxPolicy(file)(observation)


@pytest.mark.parametrize("settings", [{"threshold": 1.0}, {"threshold": -0.1}, {"epsilon": 1.5}, {"epsilon": -1.0}])
def test_settings_out_of_range_are_refused(file, settings):
    with pytest.raises(ConfigError, match=f"OnnxPolicy.{next(iter(settings))}: "):
        OnnxPolicy(file, **settings)


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x08", bytes(range(256))])
def test_what_is_not_onnx_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "other.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match=r"other\.onnx: .*export_onnx$") as caught:
        OnnxPolicy(path)
    assert "\n" not in str(caught.value)


def test_a_directory_and_a_file_cut_short_are_refused(tmp_path, file):
    with pytest.raises(ExportError, match="cannot be read"):
        OnnxPolicy(tmp_path)
    (tmp_path / "cut.onnx").write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ExportError, match=r"cut\.onnx: "):
        OnnxPolicy(tmp_path / "cut.onnx")


def rename_input(model):
    model.graph.input[0].name = "state"


def drop_metadata(model):
    del model.metadata_props[:]


def break_spec(model):
    next(entry for entry in model.metadata_props if entry.key == "task_spec").value = "{"


def break_weights(model):
    del model.graph.initializer[0]


@pytest.mark.parametrize("damage", [rename_input, drop_metadata, break_spec, break_weights])
def test_onnx_files_that_are_not_ours_are_refused_in_one_line(tmp_path, file, damage):
    model = onnx.load(file)
    damage(model)
    (tmp_path / "other.onnx").write_bytes(sealed(model))
    with pytest.raises(ExportError, match=r"other\.onnx: ") as caught:
        OnnxPolicy(tmp_path / "other.onnx")
    assert "\n" not in str(caught.value)


def test_metadata_with_another_kind_of_spec_is_refused(tmp_path, file):
    model = onnx.load(file)
    next(entry for entry in model.metadata_props if entry.key == "task_spec").value = '{"shape": [3]}'
    (tmp_path / "other.onnx").write_bytes(sealed(model))
    with pytest.raises(SpecMismatchError, match=r"other\.onnx: not a task spec"):
        OnnxPolicy(tmp_path / "other.onnx")
