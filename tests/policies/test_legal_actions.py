"""Legal actions hold where a policy acts: in torch, in exported files, in the environment."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch

import offrl
from offrl.cli import names
from offrl.cli.names import algorithm_class
from offrl.collection import collect
from offrl.envs import RandomBehaviour, make
from offrl.errors import ExportError, SpecMismatchError
from offrl.policies import verify_onnx
from offrl.shards import Episode, Manifest, write_shard

# The data here is one long episode, or one in which an action may be missing: it is the masks that are tested.
pytestmark = [
    pytest.mark.filterwarnings("ignore:all transitions to train on are of one episode"),
    pytest.mark.filterwarnings("ignore:1 of 5 legal actions never occur"),
    pytest.mark.filterwarnings("ignore:every reward is"),
]
NAMES = ("left", "stay", "right")
CONTRACTS = ("float", "uint8")


def save(directory, *, masks, seed=0, steps=200):
    """Two features at random; "right" pays most and "stay" least. With masks, "right" is legal where feature 0 < 0."""
    rng = np.random.default_rng(seed)
    directory.mkdir()
    observations = rng.normal(size=(steps + 1, 2)).astype(np.float32)
    legal = np.ones((steps, 3), np.bool_)
    legal[:, 2] = observations[:-1, 0] < 0
    actions = np.array([rng.choice(np.flatnonzero(row if masks else [1, 1, 1])) for row in legal])
    rewards = np.array([0.5, 0.0, 1.0], np.float32)[actions]
    mask = legal if masks else None
    episode = Episode(observations, actions, rewards, terminated=True, truncated=False, action_mask=mask)
    record = write_shard(directory / "shard-00000.npz", [episode])
    Manifest(offrl.TaskSpec.vector(2, NAMES), (record,), {"id": "test"}, {"name": "test"}).save(directory)
    return directory


def train(kind, replay):
    algorithm = kind(replay.spec, encoder=partial(offrl.MLPEncoder, hidden=(16,)), seed=1)
    learner = offrl.LearnerConfig(learning_rate=3e-3, precision="fp32", compile="off")
    config = offrl.FitConfig(updates=100, batch_size=64)
    return offrl.fit(algorithm, replay, config, learner=learner, loggers=[], device="cpu").snapshot()


ALGORITHMS = [algorithm_class(name) for name in names.ALGORITHMS]
OBSERVATIONS = np.random.default_rng(9).normal(size=(300, 2)).astype(np.float32)


@pytest.mark.parametrize("setting", ["actions", "legal_actions"])
@pytest.mark.parametrize("kind", ALGORITHMS)
def test_a_subset_of_the_actions_is_part_of_the_policy_and_of_both_contracts(kind, setting, tmp_path):
    data = save(tmp_path / "data", masks=False)
    replay = offrl.open_replay(data, **{setting: (0, 1)}, include=sorted(kind.needs), progress=False)
    assert (len(replay) == 200) == (setting == "legal_actions")  # the others are learned from too
    algorithm = train(kind, replay)
    assert algorithm.spec.legal_actions == (0, 1)
    policies = [offrl.TorchPolicy(algorithm), offrl.TorchPolicy(algorithm, epsilon=1.0)]
    for contract in CONTRACTS:
        path = offrl.export_onnx(algorithm, tmp_path / f"{contract}.onnx", contract=contract)
        verify_onnx(path, algorithm, OBSERVATIONS)
        policies += [offrl.OnnxPolicy(path), offrl.OnnxPolicy(path, epsilon=1.0)]
        # A reader that knows nothing of subsets: the best q among softmax(logits) > 0.3 of the largest.
        outputs = offrl.policies._onnx_file.OnnxFile(path).run(OBSERVATIONS)
        share = outputs["logits"].softmax(dim=1)
        allowed = share / share.max(dim=1, keepdim=True).values > 0.3
        assert torch.isfinite(outputs["q"]).all()
        assert not (outputs["q"].masked_fill(~allowed, -torch.inf).argmax(dim=1) == 2).any()
    for policy in policies:
        assert 2 not in policy(OBSERVATIONS)
        assert (policy.probabilities(OBSERVATIONS)[:, 2] == 0).all()
    # Of what is legal, "left" pays most; CQL and actors stay closer to the data for so few updates.
    if kind in (offrl.DiscreteBCQ, offrl.DQN, offrl.REM, offrl.QRDQN, offrl.QRBCQ):
        assert (policies[0](OBSERVATIONS) == 0).mean() > 0.9


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_a_mask_for_each_observation_holds_in_torch_and_in_the_file(kind, tmp_path):
    replay = offrl.open_replay(save(tmp_path / "data", masks=True), include=sorted(kind.needs), progress=False)
    algorithm = train(kind, replay)
    assert algorithm.spec.action_masks
    mask = np.ones((len(OBSERVATIONS), 3), np.int8)  # as Gymnasium gives them
    mask[:, 2] = OBSERVATIONS[:, 0] < 0
    with pytest.raises(ExportError, match="float"):
        offrl.export_onnx(algorithm, tmp_path / "float.onnx", contract="float")
    path = offrl.export_onnx(algorithm, tmp_path / "uint8.onnx", contract="uint8")
    verify_onnx(path, algorithm, OBSERVATIONS)
    torch_policy, onnx_policy = offrl.TorchPolicy(algorithm), offrl.OnnxPolicy(path)
    actions = torch_policy(OBSERVATIONS, mask)
    np.testing.assert_array_equal(actions, onnx_policy(OBSERVATIONS, mask))
    for policy in (torch_policy, onnx_policy, offrl.TorchPolicy(algorithm, epsilon=1.0, stochastic=False)):
        assert (np.take_along_axis(mask, policy(OBSERVATIONS, mask)[:, None], axis=1) == 1).all()
        assert (policy.probabilities(OBSERVATIONS, mask)[mask == 0] == 0).all()
        with pytest.raises(SpecMismatchError, match="no action_mask"):
            policy(OBSERVATIONS)
    if kind is offrl.DQN:  # "right" pays most where it is legal
        assert (actions[mask[:, 2] == 1] == 2).mean() > 0.9


def test_probabilities_of_a_stochastic_policy_are_the_softmax_of_the_likely_legal_logits():
    algorithm = offrl.BC(offrl.TaskSpec.vector(1, NAMES))
    torch.nn.init.zeros_(algorithm.imitation_head.output.weight)
    algorithm.imitation_head.output.bias.data = torch.tensor([2.0, 1.0, 8.0]).log()
    policy = offrl.TorchPolicy(algorithm, stochastic=True, seed=3)
    ones = np.ones((4000, 1), np.float32)
    np.testing.assert_allclose(policy.probabilities(ones[:1]), [[2 / 11, 1 / 11, 8 / 11]], rtol=1e-6)
    legal = np.tile([True, True, False], (4000, 1))
    np.testing.assert_allclose(policy.probabilities(ones[:1], legal[:1]), [[2 / 3, 1 / 3, 0]], rtol=1e-6)
    shares = np.bincount(policy(ones, legal), minlength=3) / 4000
    np.testing.assert_allclose(shares, [2 / 3, 1 / 3, 0], atol=0.03)
    assert shares[2] == 0


class Strict(gymnasium.Wrapper):
    """Refuses what Taxi's mask forbids."""

    def reset(self, **options):
        observation, self.info = self.env.reset(**options)
        return observation, self.info

    def step(self, action):
        assert self.info["action_mask"][action] == 1
        observation, reward, terminated, truncated, self.info = self.env.step(action)
        return observation, reward, terminated, truncated, self.info


def strict_taxi():
    return Strict(make("Taxi-v4", max_episode_steps=30))


def test_taxi_is_collected_learned_and_played_legally(tmp_path):
    collect(strict_taxi, RandomBehaviour(), tmp_path / "data", transitions=300, workers=1, progress=False)
    replay = offrl.open_replay(tmp_path / "data", progress=False)
    assert replay.spec.action_masks
    assert replay.gather([0]).action_mask.sum() < 6  # Taxi forbids something everywhere
    algorithm = train(offrl.DiscreteBCQ, replay)
    path = offrl.export_onnx(algorithm, tmp_path / "taxi.onnx", contract="uint8")
    for policy in (offrl.TorchPolicy(algorithm, epsilon=0.5), offrl.OnnxPolicy(path)):
        found = offrl.evaluate(policy, strict_taxi, [1, 2], workers=0)
        assert len(found.scores) == 2
