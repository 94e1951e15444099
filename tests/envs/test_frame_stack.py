from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from torch import nn

import offrl
from offrl.collection import collect
from offrl.datasets import inspect_dataset
from offrl.envs import FrameStack, RandomBehaviour
from offrl.errors import ConfigError, UnknownEnvironmentError
from offrl.report import write_dataset_page


class Planes(gymnasium.Env):
    """Counts its steps: frame t is t in channel 0, 10 + t in channel 1, 20 + t in channel 2; 1 or 0 where bool."""

    action_space = spaces.Discrete(2)

    def __init__(self, dtype=np.uint8):
        self.observation_space = spaces.Box(0, 1 if dtype == np.bool_ else 255, (6, 5, 3), dtype)

    def _frame(self):
        values = np.array([self.t, 10 + self.t, 20 + self.t])
        return np.broadcast_to(values % 2 if self.observation_space.dtype == np.bool_ else values, (6, 5, 3)).astype(
            self.observation_space.dtype
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._frame(), {}

    def step(self, action):
        self.t += 1
        return self._frame(), float(action), self.t == 4, False, {}


def test_channels_of_a_frame_lie_together_oldest_frame_first():
    env = FrameStack(Planes(), stack=2)
    assert (env.task_spec.observation_shape, env.task_spec.stack, env.task_spec.channels) == ((6, 6, 5), 2, 3)
    first, _ = env.reset(seed=0)
    assert first[:, 0, 0].tolist() == [0, 10, 20, 0, 10, 20]
    second = env.step(1)[0]
    assert second[:, 0, 0].tolist() == [0, 10, 20, 1, 11, 21]
    assert env.observation_space.contains(second)


def test_planes_of_booleans_are_seen_as_0_and_1():
    env = FrameStack(Planes(np.bool_))
    env.reset(seed=0)
    observation = env.step(0)[0]
    assert observation[:, 0, 0].tolist() == [1, 1, 1]
    assert (env.task_spec.scale, env.task_spec.offset, env.task_spec.stack) == (1.0, 0.0, 1)


def test_other_observations_are_refused():
    with pytest.raises(UnknownEnvironmentError, match="FrameStack: observations Box"):
        FrameStack(gymnasium.make("CartPole-v1"))


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_])
def test_actions_that_begin_elsewhere_than_at_0_are_refused(dtype):
    env = Planes(dtype)
    env.action_space = spaces.Discrete(4, start=1)
    with pytest.raises(UnknownEnvironmentError, match=r"FrameStack: .*start=1.*and Discrete actions from 0"):
        FrameStack(env)


@pytest.mark.parametrize("stack", [0, 1.5])
def test_a_stack_of_no_frames_is_refused(stack):
    with pytest.raises(ConfigError, match=rf"FrameStack.stack: {stack}; expected 1 or more, a whole number"):
        FrameStack(Planes(), stack)


class Mean(nn.Module):
    """The mean of each plane. [B, C, H, W] -> [B, C]."""

    def __init__(self, observation_shape):
        super().__init__()
        self.feature_dim = observation_shape[0]

    def forward(self, observation):
        return observation.mean(dim=(2, 3))


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_])
@pytest.mark.parametrize("stack", [1, 3])
def test_what_is_played_in_colour_is_kept_once_learned_and_played_again(tmp_path, dtype, stack):
    make_env = partial(make_planes, dtype, stack)
    collect(make_env, RandomBehaviour(), tmp_path / "data", transitions=40, workers=1, progress=False)
    replay = offrl.open_replay(tmp_path / "data", n_step=2, progress=False)
    assert replay.store.frames.shape == (60, 3, 6, 5)  # twelve episodes of four steps and what they end with
    batch = replay.gather([1])  # the second step: frames 0, 0, 1 and, two steps on, 1, 2, 3
    frames = np.concatenate([np.array([t, 10 + t, 20 + t]) % (2 if dtype == np.bool_ else 256) for t in (0, 0, 1)])
    assert batch.observation[0, :, 0, 0].tolist() == frames[-3 * stack :].tolist()
    algorithm = offrl.DiscreteBCQ(replay.spec, encoder=Mean)
    learner = offrl.fit(algorithm, replay, offrl.FitConfig(updates=3, batch_size=8), loggers=[], device="cpu")
    path = offrl.export_onnx(learner.snapshot(), tmp_path / "policy.onnx", contract="uint8")
    scores = [
        offrl.evaluate(policy, make_env, [1], workers=0, num_envs=1).scores
        for policy in (offrl.TorchPolicy(learner.snapshot()), offrl.OnnxPolicy(path))
    ]
    assert scores[0] == scores[1]
    page = tmp_path / "page.html"
    write_dataset_page(replay.store, page, title="planes", summary=inspect_dataset(replay.store))
    channels = f"stacks of {stack} frames of 6 x 5 pixels, 3 channels each"
    assert channels in Path(page).read_text(encoding="utf-8")


def make_planes(dtype, stack):
    return FrameStack(Planes(dtype), stack)
