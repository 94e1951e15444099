import functools

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from offrl import envs
from offrl.envs.drivers import CartPoleDriver
from offrl.errors import ConfigError
from offrl.video import record_episode

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
# imageio-ffmpeg's reader, which only these tests use, leaves the pipes of its process to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Colours(gymnasium.Env):
    """One 5 x 6 picture a step, red, green, then blue; ends after two steps."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)
    pictures = np.eye(3, dtype=np.uint8) * 255

    def _info(self):
        return {"rgb": np.tile(self.pictures[self.step_number], (5, 6, 1))}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_number = 0
        return np.zeros(1, np.float32), self._info()

    def step(self, action):
        self.step_number += 1
        return np.zeros(1, np.float32), float(action), self.step_number == 2, False, self._info()


def ones(observations):
    return np.ones(len(observations), dtype=np.int64)


def read(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    return meta, [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]


def test_every_frame_is_in_the_file_in_order(tmp_path):
    path = tmp_path / "videos" / "colours.mp4"
    assert record_episode(ones, Colours, 0, path, fps=10) == (2.0, 2)
    meta, frames = read(path)
    assert (meta["codec"], meta["fps"], meta["size"]) == ("h264", 10, (456, 380))  # 76 times larger
    assert [int(frame.mean(axis=(0, 1)).argmax()) for frame in frames] == [0, 1, 2]
    assert [p.name for p in path.parent.iterdir()] == ["colours.mp4"]


def test_the_score_is_that_of_the_same_policy_and_seed(tmp_path):
    make_env = functools.partial(envs.make, "CartPole-v1", render_mode="rgb_array")
    driver = CartPoleDriver(weights=(0.0, 0.0, 1.0, 0.0))

    def policy(observations):
        return np.array([driver(observation)[0] for observation in observations])

    env = make_env()
    observation, _ = env.reset(seed=3)
    expected, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(policy(observation[None])[0])
        expected, ended = expected + reward, terminated or truncated
    recording = record_episode(policy, make_env, 3, tmp_path / "a.mp4")
    assert recording == (expected, expected)
    assert len(read(tmp_path / "a.mp4")[1]) == expected + 1


def test_max_steps_ends_the_film_early(tmp_path):
    assert record_episode(ones, Colours, 0, tmp_path / "a.mp4", max_steps=1) == (1.0, 1)


def test_the_policy_sees_as_many_copies_as_in_the_evaluation(tmp_path):
    sizes = set()

    def policy(observations):
        sizes.add(len(observations))
        return ones(observations)

    record_episode(policy, Colours, 0, tmp_path / "a.mp4", num_envs=7)
    assert sizes == {7}


def test_an_environment_without_pictures_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"gives no pictures.*render_mode"):
        record_episode(ones, functools.partial(envs.make, "CartPole-v1"), 0, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_policy_leaves_no_file(tmp_path):
    def policy(observations):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        record_episode(policy, Colours, 0, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
