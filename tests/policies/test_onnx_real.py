"""The exported file acts like torch on 1,000 real CarRacing observations, in every runtime that we name."""

import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from offrl import DiscreteBCQ, FitConfig, OnnxPolicy, TorchPolicy, fit, open_replay
from offrl.collection import collect
from offrl.datasets import sample_stacks
from offrl.envs import CarRacingMixture, car_racing
from offrl.losses import greedy_actions
from offrl.policies import export_onnx, verify_onnx

# What is exported is compared with torch: that it learned from one long episode does not matter.
pytestmark = pytest.mark.filterwarnings("ignore:all transitions to train on are of one episode")
BATCHES = (1, 7, 64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A briefly trained BCQ and 1,000 observations of the task."""
    data = tmp_path_factory.mktemp("data")
    collect(car_racing.make, CarRacingMixture(), data, transitions=1000, workers=1, episodes_per_shard=1)
    replay = open_replay(data, n_step=5, reward_scale=0.1)
    learner = fit(DiscreteBCQ(replay.spec), replay, FitConfig(updates=15, batch_size=32), loggers=[])
    observations, _ = sample_stacks(replay.store, 1000, seed=0)
    return learner.snapshot(), observations


def in_batches(policy, observations):
    """Acts on all observations, in batches of 1, 7 and 64 in turn."""
    actions, start = [], 0
    while start < len(observations):
        size = BATCHES[len(actions) % len(BATCHES)]
        actions.append(policy(observations[start : start + size]))
        start += size
    return np.concatenate(actions)


def is_near_tie(algorithm, observations, tolerance=1e-4):
    """Where rounding may decide: two allowed scores, or a likelihood and the threshold, that are almost equal."""
    with torch.no_grad():
        scores, logits = algorithm(algorithm.spec.normalise(torch.from_numpy(observations)))
    ratio = (logits - logits.max(dim=1, keepdim=True).values).exp()
    at_threshold = ((ratio - algorithm.threshold).abs() < tolerance).any(dim=1)
    best = scores.masked_fill(ratio <= algorithm.threshold, -torch.inf).topk(2, dim=1).values
    return (at_threshold | (best[:, 0] - best[:, 1] < tolerance)).numpy()


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs offrl[serve]")
@pytest.mark.parametrize("contract", ["float", "uint8"])
def test_onnxruntime_acts_like_torch(trained, tmp_path, contract):
    algorithm, observations = trained
    path = export_onnx(algorithm, tmp_path / "bcq.onnx", contract=contract)
    policy = OnnxPolicy(path)
    assert policy.runtime.startswith("onnxruntime")
    near = is_near_tie(algorithm, observations)
    assert near.mean() < 0.05  # the share that is set aside
    ours = in_batches(TorchPolicy(algorithm), observations)
    assert len(set(ours)) > 1
    assert (in_batches(policy, observations) == ours)[~near].all()
    check = verify_onnx(path, algorithm, observations)
    assert check.num_observations >= 1000
    assert {1, 7} <= set(check.batch_sizes)


@pytest.mark.skipif(find_spec("onnx2pytorch") is None, reason="make test installs it without its dependencies")
@pytest.mark.usefixtures("torchvision_stand_in")
def test_onnx2pytorch_acts_like_torch(trained, tmp_path):
    import onnx
    from onnx2pytorch import ConvertModel

    algorithm, observations = trained
    path = export_onnx(algorithm, tmp_path / "bcq.onnx", contract="float")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ConvertModel(onnx.load(path)).eval()

        def policy(raw):
            with torch.no_grad():
                q, logits = model(algorithm.spec.normalise(torch.from_numpy(raw)))
            return greedy_actions(q, logits, 0.3).numpy()

        theirs = in_batches(policy, observations)
    near = is_near_tie(algorithm, observations)
    assert (theirs == in_batches(TorchPolicy(algorithm), observations))[~near].all()
