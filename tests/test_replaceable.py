"""Each abstraction of the design is replaced by a user's own, without touching offrl."""

from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from offrl import BC, Algorithm, DiscreteBCQ, FitConfig, LearnerConfig, TorchPolicy, evaluate, fit
from offrl.algorithms import PolicyOutput
from offrl.envs import task_spec
from offrl.losses import imitation_loss
from offrl.networks import seeded
from offrl.policies import OnnxPolicy, export_onnx, verify_onnx
from offrl.replay import ReplaySource


class Line(gymnasium.Env):
    """An environment adapter of a user's own: walk to +3; the observation is the position."""

    observation_space = spaces.Box(-100, 100, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._position, self._steps = 0, 0
        return np.array([0.0], np.float32), {}

    def step(self, action):
        self._position += 1 if action == 1 else -1
        self._steps += 1
        arrived = self._position == 3
        return np.array([self._position], np.float32), float(arrived), arrived, self._steps == 20, {}


class OwnReplay(ReplaySource):
    """A replay source of a user's own: the line's transitions, walked at random, made on the fly."""

    def __init__(self):
        self.spec = task_spec(Line())

    def __len__(self):
        return 1000

    def indices(self, step, batch_size):
        return np.random.default_rng((3, step)).integers(1000, size=batch_size)

    def gather(self, indices):
        from offrl import Batch

        rows = np.asarray(indices)
        position, action = rows % 6 - 3, rows // 6 % 2
        following = position + 2 * action - 1
        arrived = following == 3
        return Batch(
            torch.from_numpy(position[:, None].astype(np.float32)),
            torch.from_numpy(action),
            torch.from_numpy(arrived.astype(np.float32)),
            torch.from_numpy(np.where(arrived, 0, 0.9).astype(np.float32)),
            torch.from_numpy(following[:, None].astype(np.float32)),
        )


class OwnEncoder(nn.Module):
    """An encoder of a user's own."""

    feature_dim = 16

    def __init__(self, observation_shape):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(observation_shape[0], 16), nn.Tanh())

    def forward(self, observation):
        return self.layers(observation)


@dataclass(frozen=True)
class OwnConfig:
    sharpness: float = 1.0


class OwnAlgorithm(Algorithm):
    """An algorithm of a user's own: imitates only what led right."""

    name = "right-only"

    def __init__(self, spec):
        super().__init__(spec, OwnConfig())
        with seeded(0):
            self.network = nn.Linear(spec.observation_shape[0], spec.num_actions)

    def loss(self, batch):
        logits = self.network(batch.observation)
        right = (batch.next_observation > batch.observation).squeeze(1).float()
        loss = (right * nn.functional.cross_entropy(logits, batch.action, reduction="none")).mean()
        return loss, {"imitation_loss": imitation_loss(logits, batch.action).detach()}

    def forward(self, observation):
        logits = self.config.sharpness * self.network(observation)
        return PolicyOutput(logits, logits)


def always_right(observations):
    """A policy of a user's own."""
    return np.ones(len(observations), np.int64)


def test_own_environment_and_own_policy():
    result = evaluate(always_right, Line, [0, 1], workers=0)
    assert (result.scores, result.lengths) == ((1.0, 1.0), (3, 3))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda spec: OwnAlgorithm(spec), id="algorithm"),
        pytest.param(lambda spec: DiscreteBCQ(spec, encoder=OwnEncoder), id="encoder"),
    ],
)
def test_own_replay_trains_own_parts_to_a_policy_that_is_exported(make, tmp_path):
    replay = OwnReplay()
    settings = LearnerConfig(learning_rate=1e-2)
    learner = fit(make(replay.spec), replay, FitConfig(updates=400), learner=settings, run=tmp_path / "run", loggers=[])
    algorithm = learner.snapshot()
    assert evaluate(TorchPolicy(algorithm), Line, [0], workers=0).lengths == (3,)
    path = export_onnx(algorithm, tmp_path / "own.onnx", contract="uint8")
    assert verify_onnx(path, algorithm).num_disagreements == 0
    assert evaluate(OnnxPolicy(path), Line, [0], workers=0).lengths == (3,)


def test_an_instance_made_by_hand_is_an_encoder_too():
    spec = task_spec(Line())
    pretrained = OwnEncoder(spec.observation_shape)
    bc = BC(spec, encoder=lambda shape: pretrained)
    assert bc.encoder is pretrained
