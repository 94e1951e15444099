import numpy as np
import pytest

import offrl
from offrl import TaskSpec
from offrl.errors import ConfigError, DatasetError
from offrl.shards import Manifest, write_dataset

# Two episodes, of two steps and of one; the row after each is what its last step led to.
STEPS = {
    "actions": [1, 0, 2],
    "rewards": [0.5, 1.0, -1.0],
    "terminated": [False, True, False],
}
ROWS = np.arange(10, dtype=np.float64).reshape(5, 2)


def shard(directory):
    with np.load(directory / "shard-00000.npz") as members:
        return {name: members[name].tolist() for name in members}


@pytest.mark.parametrize(
    "episodes", [{"episode_lengths": [2, 1]}, {"episode_ids": ["b", "b", "a"]}, {"truncated": [0, 0, 1]}, {}]
)
def test_steps_and_last_observations_become_episodes(tmp_path, episodes):
    manifest = write_dataset(tmp_path / "data", observations=ROWS, **STEPS, **episodes)
    assert shard(tmp_path / "data") == {
        "observations": ROWS.tolist(),
        "actions": [1, 0, 2],
        "rewards": [0.5, 1.0, -1.0],
        "terminated": [False, True, False],
        "truncated": [False, False, True],
        "episode_lengths": [2, 1],
    }
    assert manifest == Manifest.load(tmp_path / "data")
    assert manifest.spec == TaskSpec.vector(2, ("action 0", "action 1", "action 2"))
    assert (manifest.environment, manifest.generator, manifest.complete) == ({}, {"name": "unknown"}, True)


def test_without_last_observations_only_a_truncated_end_is_lost(tmp_path):
    """The first episode repeats its last observation; the second loses its last step of two."""
    with pytest.warns(UserWarning, match=r"1 truncated episode\(s\) lost their last step"):
        write_dataset(
            tmp_path / "data",
            observations=ROWS[:4],
            actions=[1, 0, 2, 2],
            rewards=[1, 2, 3, 4],
            terminated=[0, 1, 0, 0],
            behaviour_probability=[0.5, np.nan, 0.25, 1],
            action_mask=[[0, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 1]],
        )
    found = shard(tmp_path / "data")
    assert found["observations"] == [[0, 1], [2, 3], [2, 3], [4, 5], [6, 7]]
    assert found["actions"] == [1, 0, 2]
    assert found["behaviour_probability"] == pytest.approx([0.5, np.nan, 0.25], nan_ok=True)
    assert found["action_mask"] == [[False, True, True], [True, False, False], [True, True, True]]
    assert found["truncated"] == [False, False, True]


def test_a_table_of_single_decisions_keeps_all(tmp_path):
    write_dataset(tmp_path / "data", observations=ROWS, actions=[0, 1, 0, 1, 0], rewards=range(5), terminated=[1] * 5)
    batch = offrl.open_replay(tmp_path / "data", progress=False).gather(range(5))
    assert batch.observation.tolist() == ROWS.tolist()
    assert batch.reward.tolist() == [0, 1, 2, 3, 4]
    assert batch.discount.tolist() == [0] * 5


@pytest.mark.parametrize("channels", [(), (3,)])
def test_frames_gray_and_of_channels(tmp_path, channels):
    frames = np.random.default_rng(0).integers(256, size=(5, *channels, 4, 6), dtype=np.uint8)
    manifest = write_dataset(
        tmp_path / "data", observations=frames, **STEPS, stack=2, action_names=("l", "s", "r"), environment={"id": "x"}
    )
    num_channels = channels[0] if channels else 1
    assert manifest.spec == TaskSpec.pixels((2 * num_channels, 4, 6), ("l", "s", "r"), channels=num_channels)
    assert manifest.environment == {"id": "x"}
    observation = offrl.open_replay(tmp_path / "data", progress=False).gather([1]).observation.numpy()
    np.testing.assert_array_equal(observation.reshape(2, *frames.shape[1:]), frames[:2])


def test_stacks_are_not_taken_for_channels(tmp_path):
    frames = np.random.default_rng(0).integers(256, size=(9, 4, 6), dtype=np.uint8)
    stacks = np.stack([frames[i : i + 4] for i in range(5)])
    with pytest.raises(DatasetError, match=r"observations are stacks.*observations\[:, -1\]"):
        write_dataset(tmp_path / "data", observations=stacks, **STEPS)


def test_shards_are_bounded(tmp_path):
    manifest = write_dataset(tmp_path / "data", observations=ROWS, **STEPS, shard_bytes=16)
    assert [(record.name, record.num_transitions) for record in manifest.shards] == [
        ("shard-00000.npz", 2),
        ("shard-00001.npz", 1),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episode_lengths": [2, 1], "episode_ids": [0, 0, 1]}, "episode_ids beside episode_lengths"),
        ({"stack": 0}, "stack=0"),
        ({"action_names": 3}, "action_names=3; expected texts, no two alike, or None"),
        ({"action_names": (1, 2, 3)}, "expected texts"),
        ({"action_names": ("a", "b", "a")}, "no two alike"),
        ({"observations": ROWS[:4]}, "observations has 4 rows; expected 5, steps .+ or 3 without"),
        ({"observations": [[np.nan, 0]] * 5}, "observations has nan at row 0"),
        ({"observations": np.zeros((5, 2, 2))}, r"observations is float64 \[5, 2, 2\]; .*; of floats from 0 to 1 make"),
        ({"actions": [1, -1, 2]}, "actions has -1 at row 1"),
        ({"actions": [0.5, 1, 2]}, "actions is float64"),
        ({"action_names": ("a", "b")}, r"actions has 2 at row 2; expected integers 0..1$"),
        ({"rewards": [0, np.inf, 0]}, "rewards has inf at row 1"),
        ({"rewards": [0, 1]}, "rewards has 2 rows; expected 3, like actions$"),
        ({"terminated": [0, 2, 0]}, "terminated has 2 at row 1"),
        ({"episode_lengths": [3]}, "terminated is true at row 1, inside an episode"),
        ({"episode_lengths": [2, 2]}, "do not add up"),
        ({"episode_ids": [0, 1, 0], "terminated": [0, 0, 0]}, "episode_ids has 0 again after another episode"),
        ({"episode_ids": [{}, {}, {}]}, "episode_ids is object"),
        ({"behaviour_probability": [0.5, 1.5, 0.5]}, "behaviour_probability has values outside 0..1"),
        (
            {"behaviour_probability": [0.5, 1.0, 0.0]},
            "behaviour_probability is 0 at row 2; .*; NaN where it is unknown",
        ),
        (
            {"observations": np.zeros((5, 20, 30, 3), np.uint8)},
            r"\[5, 20, 30, 3\]: the channels are last; .* pass observations.transpose\(0, 3, 1, 2\)",
        ),
        ({"action_mask": [[1, 1, 1], [0, 1, 1], [1, 1, 1]]}, r"action_mask forbids the action taken at row 1 \(0\)"),
        ({"actions": np.zeros(0, int), "rewards": [], "terminated": []}, "holds no transitions"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path, changes, message):
    arrays = {"observations": ROWS, **STEPS, **changes}
    with pytest.raises((DatasetError, ConfigError), match=message):
        write_dataset(tmp_path / "data", **arrays)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_exists_is_left_alone(tmp_path):
    with pytest.raises(DatasetError, match="exists already"):
        write_dataset(tmp_path, observations=ROWS, **STEPS)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot be written"):
        write_dataset(tmp_path / "file" / "data", observations=ROWS, **STEPS)
