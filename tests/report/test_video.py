import functools
import resource

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from offrl import envs
from offrl.envs import CartPoleDriver
from offrl.errors import ConfigError, RunError
from offrl.policies import Choices
from offrl.report import ActionPanel, Moment, record_episode, record_episodes

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
    assert (meta["codec"], meta["fps"], meta["size"]) == ("h264", 10, (576, 480))  # 96 times larger
    assert [int(frame.mean(axis=(0, 1)).argmax()) for frame in frames] == [0, 1, 2]
    assert [p.name for p in path.parent.iterdir()] == ["colours.mp4"]


def test_a_film_that_is_cut_short_takes_the_place_of_none(tmp_path):
    path = tmp_path / "colours.mp4"
    record_episode(ones, Colours, 0, path, fps=10)
    whole, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))  # what a full disk does to ffmpeg
    try:
        with pytest.raises(RunError, match=r"colours.mp4: the film cannot be written whole; expected room for it"):
            record_episode(ones, Colours, 0, path, fps=10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["colours.mp4"]


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


def test_a_panel_stands_beside_every_picture_and_leaves_the_score_alone(tmp_path):
    moments: list[Moment] = []

    def panel(moment):
        moments.append(moment)
        return np.full((moment.height + 3, 21, 3), (0, 0, 90), np.uint8)

    assert record_episode(ones, Colours, 0, tmp_path / "a.mp4", panel=panel) == (2.0, 2)
    assert [(moment.action, moment.score, moment.step) for moment in moments] == [
        (1, 0.0, 0),
        (1, 1.0, 1),
        (None, 2.0, 2),
    ]
    assert {(moment.height, moment.observation.shape) for moment in moments} == {(480, (1,))}
    meta, frames = read(tmp_path / "a.mp4")
    assert meta["size"] == (598, 484)  # 576 + 21 and 480 + 3, made even
    assert [int(frame[:480, :576].mean(axis=(0, 1)).argmax()) for frame in frames] == [0, 1, 2]
    for frame in frames:
        assert abs(frame[8:-8, 584:590].mean(axis=(0, 1)) - (0, 0, 90)).max() < 8
        assert frame[482:, :560].min() > 200  # white under the picture, which is lower


def test_a_film_says_the_seed_of_each_episode_and_whether_it_was_cut(tmp_path):
    moments = []

    def panel(moment):
        moments.append((moment.seed, moment.action, moment.has_ended))
        return np.zeros((4, 4, 3), np.uint8)

    record_episodes(ones, Colours, [7, 8], str(tmp_path / "two.mp4"), panel_of=lambda seed: panel)
    assert moments == [(7, 1, False), (7, 1, False), (7, None, True), (8, 1, False), (8, 1, False), (8, None, True)]
    moments.clear()
    record_episode(ones, Colours, 7, tmp_path / "cut.mp4", panel=panel, max_steps=1)
    assert moments == [(None, 1, False), (None, None, False)]


def test_a_film_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"a film named a.gif; expected a name that ends in .mp4"):
        record_episode(ones, Colours, 0, tmp_path / "a.gif")


def test_an_environment_without_pictures_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"gives no pictures.*render_mode"):
        record_episode(ones, functools.partial(envs.make, "CartPole-v1"), 0, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("good_steps", [0, 1])
def test_a_failing_policy_leaves_no_file(tmp_path, good_steps):
    actions = iter([np.ones(1, np.int64)] * good_steps)

    def policy(observations):
        return next(actions, None)[0:]  # None has no items

    with pytest.raises(TypeError, match="NoneType"):
        record_episode(policy, Colours, 0, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_episodes_whose_scores_have_more_digits_fit_into_one_film(tmp_path):
    pytest.importorskip("PIL")
    path = tmp_path / "two.mp4"

    def panel_of(seed):
        def choices(observation):
            scores = torch.tensor([[float(seed), -float(seed)]])
            return Choices(scores, torch.ones(1, 2, dtype=torch.bool), scores)

        return ActionPanel(("left", "right"), choices, (-float(seed), float(seed)))

    record_episodes(ones, Colours, [7, 70_000], path, fps=2, panel_of=panel_of)
    _, frames = read(path)
    assert len(frames) == 2 * 4
    for frame in frames:  # the picture is one colour, and the panel is white at its lower right end
        assert np.ptp(frame[8:-8, 8:568].astype(int), axis=(0, 1)).max() < 10
        assert frame[400:, -10:].min() > 240


class Growing(Colours):
    """Its pictures grow with the seed."""

    def _info(self):
        return {"rgb": super()._info()["rgb"].repeat(1 + self.number, axis=1)}

    def reset(self, *, seed=None, options=None):
        self.number = seed
        return super().reset(seed=seed)


def test_pictures_that_change_their_size_are_refused_and_nothing_is_written(tmp_path):
    message = (
        r"record_episodes: the picture of step 0 of the episode of seed 1 has 1152 x 480 pixels; "
        r"expected 576 x 480, as the film began; make the environment"
    )
    with pytest.raises(ConfigError, match=message):
        record_episodes(ones, Growing, [0, 1], tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
    record_episode(ones, Growing, 1, tmp_path / "a.mp4")
    assert read(tmp_path / "a.mp4")[0]["size"] == (1152, 480)
