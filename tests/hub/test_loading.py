import shutil
import sys
from functools import partial
from types import ModuleType

import numpy as np
import pytest
import torch

import offrl
from offrl import OnnxPolicy, TaskSpec, TorchPolicy
from offrl.algorithms import BC, DiscreteBCQ, DiscreteBCQConfig
from offrl.algorithms.building import with_settings
from offrl.errors import ConfigError, MissingDependencyError, RunError
from offrl.hub import publish
from offrl.hub.loading import find_policy
from offrl.networks import MLPEncoder
from offrl.runs import latest_checkpoint, load_policy
from offrl.runs.files import read_run_config
from offrl.training import FitConfig, fit

OBSERVATIONS = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def published(runs, tmp_path_factory):
    return publish(runs / "bcq-1", tmp_path_factory.mktemp("hub") / "published")


@pytest.mark.parametrize("place", ["", "checkpoints/step-000000002", "checkpoints/step-000000002/policy.safetensors"])
def test_a_run_or_a_checkpoint_acts_as_its_algorithm_does(runs, place):
    run = runs / "bcq-1"
    spec = TaskSpec.vector(3, ("left", "right", "stay"))
    algorithm = DiscreteBCQ(spec, DiscreteBCQConfig(threshold=0.2), seed=9)
    expected = TorchPolicy(load_policy(algorithm, latest_checkpoint(run / "checkpoints")))
    policy = offrl.load(run / place, device="cpu")
    assert isinstance(policy, TorchPolicy)
    assert policy.threshold == 0.2
    assert policy(OBSERVATIONS).tolist() == expected(OBSERVATIONS).tolist()
    torch.testing.assert_close(policy.choices(OBSERVATIONS).scores, expected.choices(OBSERVATIONS).scores)


def test_a_published_folder_and_its_files_act_as_the_run(runs, published, tmp_path):
    files_alone = tmp_path / "files"
    files_alone.mkdir()
    shutil.copy(published / "model-uint8.onnx", files_alone)
    expected = offrl.load(runs / "bcq-1")(OBSERVATIONS).tolist()
    for place in (published, files_alone, published / "model.onnx"):
        assert offrl.load(place)(OBSERVATIONS).tolist() == expected
    assert isinstance(offrl.load(files_alone), OnnxPolicy)


def test_how_it_acts_is_passed_on(runs, published):
    for place in (runs / "bcq-1", published / "model-uint8.onnx"):
        policy = offrl.load(place, threshold=0.5, epsilon=1.0, seed=3)
        assert (policy.threshold, policy.epsilon, policy.seed) == (0.5, 1.0, 3)


def test_a_class_of_ones_own_is_passed_and_never_loaded_because_a_file_says_so(toy_replay, tmp_path):
    class Mine(BC):
        name = "mine"

    wide = partial(MLPEncoder, hidden=(7,))
    fit(Mine(toy_replay.spec, encoder=wide), toy_replay, FitConfig(updates=1), run=tmp_path / "run", loggers=[])
    with pytest.raises(ConfigError, match=r"made with the algorithm mine .test_loading:.*; expected that class"):
        offrl.load(tmp_path / "run")
    with pytest.raises(RunError, match=r"the weights encoder\.\S+ are \[7\]; expected \[5\]"):
        offrl.load(tmp_path / "run", algorithm=Mine, encoder=lambda shape: MLPEncoder(shape, (5,)))  # ours, not torch's
    assert offrl.load(tmp_path / "run", algorithm=Mine, encoder=wide).algorithm.name == "mine"


class Squashed(MLPEncoder):
    """Features that a function has squashed, which the weights do not tell."""

    def __init__(self, observation_shape, squash="tanh"):
        super().__init__(observation_shape, hidden=(5,))
        self.squash = squash if callable(squash) else getattr(torch, squash)

    def forward(self, observation):
        return self.squash(super().forward(observation))


def trained(toy_replay, run, encoder, **how):
    algorithm = BC(toy_replay.spec, encoder=encoder)
    return fit(algorithm, toy_replay, FitConfig(updates=2), run=run, loggers=[], **how).algorithm.eval()


def test_the_settings_of_offrls_own_encoder_are_the_runs(toy_replay, tmp_path):
    deep = trained(toy_replay, tmp_path / "run", partial(MLPEncoder, hidden=(7, 6)))
    loaded = offrl.load(tmp_path / "run").algorithm
    assert loaded.encoder.feature_dim == 6
    observation = toy_replay.spec.normalise(toy_replay.gather([0, 1, 2]).observation)
    assert torch.equal(loaded(observation).logits, deep(observation).logits)


def test_the_settings_of_ones_own_encoder_are_the_runs(toy_replay, tmp_path):
    sine = partial(Squashed, squash="sin")
    expected = trained(toy_replay, tmp_path / "run", sine)
    observation = toy_replay.spec.normalise(toy_replay.gather([0, 1, 2]).observation)
    for given in (Squashed, sine):
        loaded = offrl.load(tmp_path / "run", encoder=given).algorithm
        assert torch.equal(loaded(observation).logits, expected(observation).logits)
    message = r"an encoder with the settings {'squash': 'tanh'}; expected {'squash': 'sin'}, as the run has them"
    with pytest.raises(ConfigError, match=message):
        offrl.load(tmp_path / "run", encoder=partial(Squashed, squash="tanh"))
    with pytest.raises(RunError, match="encoder_settings.squash is 'tanh'; expected 'sin', as the run began with"):
        trained(toy_replay, tmp_path / "run", partial(Squashed, squash="tanh"), resume=True)


def test_where_a_run_says_nothing_the_encoder_that_is_passed_is_taken():
    sine = partial(Squashed, squash="sin")  # a run of an earlier version says nothing, and one of a function
    assert with_settings(sine, {}, "run") is sine


def test_a_function_of_ones_own_knows_its_encoders_settings(toy_replay, tmp_path):
    def make(observation_shape, weights):
        return MLPEncoder(observation_shape, hidden=(len(weights),))

    trained(toy_replay, tmp_path / "run", partial(make, weights="abc"))
    assert offrl.load(tmp_path / "run", encoder=partial(make, weights="xyz")).algorithm.encoder.feature_dim == 3


@pytest.mark.parametrize("value", [float("inf"), torch.Tensor.relu, {1: 2}, (1, (2, 3))])
def test_what_a_file_would_change_is_recorded_by_name(toy_replay, tmp_path, value):
    class Any(Squashed):
        def __init__(self, observation_shape, value=None):
            super().__init__(observation_shape)

    trained(toy_replay, tmp_path / "run", partial(Any, value=value))
    (recorded,) = read_run_config(tmp_path / "run")["encoder_settings"].values()
    assert recorded.keys() == {"object"}


def test_settings_that_no_file_holds_are_passed(toy_replay, tmp_path):
    sine = partial(Squashed, squash=torch.sin)
    trained(toy_replay, tmp_path / "run", sine)
    with pytest.raises(ConfigError, match=r"the run's encoder has the settings .*; expected encoder=functools.partial"):
        offrl.load(tmp_path / "run", encoder=Squashed)
    assert offrl.load(tmp_path / "run", encoder=sine).algorithm.encoder.squash is torch.sin


def test_the_class_of_another_algorithm_is_refused_by_name(toy_replay, tmp_path):
    class Mine(BC):
        name = "mine"

    fit(Mine(toy_replay.spec), toy_replay, FitConfig(updates=1), run=tmp_path / "run", loggers=[])
    with pytest.raises(ConfigError, match=r"algorithm: BC, whose name is .bc.; expected the class of .mine., which"):
        offrl.load(tmp_path / "run", algorithm=BC)


def test_what_is_no_policy_is_named(tmp_path, published):
    with pytest.raises(RunError, match=r"nope: no such file or directory; expected a run, .* hf://owner/name, or"):
        offrl.load("nope")
    with pytest.raises(RunError, match="no policy here"):
        offrl.load(tmp_path)
    (tmp_path / "runs" / "first" / "checkpoints").mkdir(parents=True)
    with pytest.raises(RunError, match=r"runs: no policy here; .*; did you mean .*runs/first\?"):
        offrl.load(tmp_path / "runs")
    with pytest.raises(RunError, match=r"did you mean carracing-bcq\?"):
        offrl.load("carracing-bq")
    with pytest.raises(ConfigError, match="algorithm or encoder beside an ONNX file"):
        offrl.load(published / "model.onnx", algorithm=BC)


def test_the_policy_that_comes_with_offrl_drives_for_a_grader_too():
    from offrl.evaluation.grader import GraderPolicy

    path = find_policy("carracing-bcq")
    policy = offrl.load(path)
    frames = np.random.default_rng(0).integers(256, size=(3, *policy.spec.observation_shape), dtype=np.uint8)
    assert len(policy(frames)) == 3
    GraderPolicy(path)  # refuses what a course's grader cannot read


def test_an_address_on_the_hub_is_fetched_by_the_hubs_own_package(published, monkeypatch):
    asked = []
    hub = ModuleType("huggingface_hub")

    def snapshot_download(repo_id, *, revision, allow_patterns):
        asked.append((repo_id, revision))
        if repo_id == "nobody/nothing":
            raise OSError("404: no such repository\nand a long page")
        return str(published)

    hub.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    expected = offrl.load(published)(OBSERVATIONS).tolist()
    assert offrl.load("hf://owner/name@v2")(OBSERVATIONS).tolist() == expected
    assert asked == [("owner/name", "v2")]
    with pytest.raises(RunError, match=r"hf://nobody/nothing: cannot be fetched \(404: no such repository\)"):
        offrl.load("hf://nobody/nothing")


def test_without_the_hubs_package_the_command_that_brings_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"-m pip install .*hugging.?face.?hub"):
        offrl.load("hf://owner/name")
