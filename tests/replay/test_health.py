import numpy as np
import pytest
from naive_replay import make_spec, save_frames, save_stacked

from offrl.replay.health import find_problems
from offrl.replay.ingest import ingest
from offrl.replay.shards import Episode

RNG = np.random.default_rng(0)


def episode(rewards, terminated=True, frames=None):
    steps = len(rewards)
    if frames is None:
        frames = RNG.integers(256, size=(steps + 1, 2, 3), dtype=np.uint8)
    actions = np.arange(steps) % 3
    return Episode(frames, actions, np.array(rewards, np.float32), terminated, not terminated)


def problems(folder, episodes):
    save_frames(folder, [episodes], make_spec())
    return find_problems(ingest(folder))


def test_a_sound_dataset_has_none(tmp_path):
    assert problems(tmp_path, [episode([0.5, -0.1, 0.5, -100])] * 4) == []


def test_rewards_written_one_step_late(tmp_path):
    (line,) = problems(tmp_path, [episode([-100, 0.5, -0.1, 0.5, -0.1])] * 4)
    assert line.startswith("4 episodes begin with a reward larger than any that follows, and none ends with one")


def test_a_large_reward_at_both_bounds_is_no_shift(tmp_path):
    assert problems(tmp_path, [episode([-100, 0.5, -0.1, 0.5, -100])] * 4) == []


def test_two_large_first_rewards_may_be_an_accident(tmp_path):
    late, sound = episode([-100, 0.5, -0.1, 0.5]), episode([0.5, -0.1, 0.5, -0.1])
    assert problems(tmp_path, [late, late, sound, sound]) == []


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (np.full((5, 2, 3), 7, np.uint8), "100% of the frames have one colour only"),
        (np.tile(np.arange(6, dtype=np.uint8).reshape(2, 3), (5, 1, 1)), "100% of the frames repeat the one before"),
    ],
)
def test_frames_that_show_nothing(tmp_path, frames, words):
    (line,) = problems(tmp_path, [episode([0, 1, 0, 1], frames=frames)])
    assert line.startswith(words)


def test_unused_actions_and_equal_rewards(tmp_path):
    found = problems(tmp_path, [episode([1, 1])])
    assert found == ["1 of 3 actions never occur: jump", "every reward is 1"]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([True, False, True], ["1 of 3 episodes have no end in the log"]),
        ([False], ["1 of 1 episodes have no end in the log"]),
        ([False, False], ["dones is never true"]),
        ([True, True], []),
    ],
)
def test_episodes_without_an_end(tmp_path, ends, expected):
    episodes = [episode([0.5, -0.1, 0.5, -0.1], terminated=end) for end in ends]
    save_stacked(tmp_path, [episodes], stack=2)
    found = find_problems(ingest(tmp_path, spec=make_spec()))
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))
