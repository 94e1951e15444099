import json
import sys

import numpy as np
import pytest
from episode_checks import assert_same_episodes
from naive_replay import NAMES, make_episode, make_spec

from offrl import TaskSpec
from offrl.datasets._d3rlpy_files import read_d3rlpy, write_d3rlpy
from offrl.datasets._episodes import EpisodeLog
from offrl.errors import ConfigError, DatasetError, MissingDependencyError, SpecMismatchError
from offrl.shards import Episode

h5py = pytest.importorskip("h5py", reason="needs the extra hdf5")


def log_of(episodes, spec):
    steps = sum(map(len, episodes))
    return EpisodeLog(spec, iter(episodes), steps, steps, {"id": "test"}, {"name": "test", "seed": 3})


def read(path, spec=None, **told):
    with read_d3rlpy(path, spec, **told) as log:
        return log, list(log.episodes)


@pytest.fixture
def dumped(tmp_path):
    """A writer of what d3rlpy 2.8 dumps for two episodes, with some members replaced or, by None, dropped."""

    def make(**changes):
        members = {
            "columns": ["observations", "actions", "rewards", "terminated"],
            "num_episodes": 2,
            "version": "2.1",
            "observations_0": np.array([[0.0, 1.0], [2.0, 3.0]]),
            "actions_0": np.array([[2], [0]]),
            "rewards_0": np.array([[0.5], [1.0]], np.float32),
            "terminated_0": True,
            "observations_1": np.array([[4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]),
            "actions_1": np.array([[1], [1], [0]]),
            "rewards_1": np.array([[0.25], [0.5], [9.0]], np.float32),
            "terminated_1": False,
            **changes,
        }
        with h5py.File(tmp_path / "log.h5", "w") as file:
            for name, value in members.items():
                if value is not None:
                    file.create_dataset(name, data=value)
        return tmp_path / "log.h5"

    return make


def test_a_file_of_d3rlpys_by_hand(dumped):
    log, (first, second) = read(dumped())
    assert log.spec == TaskSpec.vector(2, ("action 0", "action 1", "action 2"))
    assert (log.num_transitions, log.num_frames) == (4, 5)
    assert first.observations.dtype == np.float32
    assert first.observations.tolist() == [[0, 1], [2, 3], [2, 3]]  # nothing depends on the last one
    assert (first.actions.tolist(), first.rewards.tolist()) == ([2, 0], [0.5, 1.0])
    assert (first.terminated, first.truncated) == (True, False)
    assert second.observations.tolist() == [[4, 5], [6, 7], [8, 9]]
    assert (second.actions.tolist(), second.rewards.tolist()) == ([1, 1], [0.25, 0.5])
    assert (second.terminated, second.truncated) == (False, True)
    assert log.notes[0].startswith("1 episode(s) that did not terminate lost their last step")


def test_the_members_that_d3rlpy_reads(tmp_path):
    pixels = make_episode(0, 2, leading=1)
    write_d3rlpy(tmp_path / "log.h5", log_of([pixels], make_spec()))
    with h5py.File(tmp_path / "log.h5") as file:
        assert [text.decode() for text in file["columns"][()]] == ["observations", "actions", "rewards", "terminated"]
        assert (file["num_episodes"][()], file["version"][()]) == (1, b"2.1")
        np.testing.assert_array_equal(file["observations_0"], pixels.observations[1:3, None])
        np.testing.assert_array_equal(file["actions_0"], pixels.actions[:, None])
        np.testing.assert_array_equal(file["rewards_0"], pixels.rewards[:, None])
        assert [file[f"{name}_0"].dtype.name for name in ("observations", "rewards", "terminated")] == [
            "uint8", "float32", "bool",
        ]  # fmt: skip
        assert file["terminated_0"][()]


@pytest.mark.parametrize("pixels", [True, False])
def test_a_round_trip_costs_what_d3rlpy_has_no_place_for(tmp_path, pixels):
    spec = make_spec(pixels=pixels)
    written = [
        make_episode(0, 3, pixels=pixels),
        make_episode(1, 3, pixels=pixels, terminated=False),
        make_episode(2, 1, pixels=pixels),
        make_episode(3, 1, pixels=pixels, terminated=False),
    ]
    said = write_d3rlpy(tmp_path / "log.h5", log_of(written, spec))
    assert (said.num_transitions, said.num_episodes, said.num_frames) == (8, 4, 8)
    assert said.notes[0].startswith("d3rlpy holds no last observation: in 2 episode(s)")
    log, found = read(tmp_path / "log.h5")
    assert (log.spec, log.environment, log.generator) == (spec, {"id": "test"}, {"name": "test", "seed": 3})
    assert log.num_transitions == sum(map(len, found)) == 3 + 2 + 1

    def kept(episode):
        if episode.terminated:
            frames = np.concatenate([episode.observations[:-1], episode.observations[-2:-1]])
            return Episode(frames, episode.actions, episode.rewards, terminated=True, truncated=False)
        shorter = episode.observations[:-1], episode.actions[:-1], episode.rewards[:-1]
        return Episode(*shorter, terminated=False, truncated=True)

    assert_same_episodes(found, [kept(episode) for episode in written[:3]])


def test_older_frames_are_left_out_and_that_is_said(tmp_path):
    said = write_d3rlpy(tmp_path / "log.h5", log_of([make_episode(0, 3, leading=2)], make_spec(3)))
    assert said.notes == ("1 episode(s) begin in mid-episode: their older frames are left out",)


@pytest.mark.parametrize("compress", [True, False])
def test_compression(tmp_path, compress):
    dull = Episode(np.zeros((3, 200, 200), np.uint8), np.zeros(2, int), np.zeros(2, np.float32), True, False)
    log = log_of([dull], TaskSpec.pixels((4, 200, 200), NAMES))
    write_d3rlpy(tmp_path / "log.h5", log, compress=compress)
    assert ((tmp_path / "log.h5").stat().st_size < 2 * 200 * 200) == compress
    assert read(tmp_path / "log.h5")[1][0].observations.tolist() == dull.observations.tolist()


def test_overlapping_stacks_become_frames(dumped):
    frames = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 3), np.uint8)
    stacks = np.stack([frames[i : i + 3] for i in range(3)])
    path = dumped(num_episodes=1, observations_0=stacks[:2])
    log, (episode,) = read(path)
    assert log.spec.observation_shape == (3, 2, 3)
    assert episode.leading == 2
    assert episode.observations[:, 0, 0].tolist() == [0, 1, 2, 3, 3]
    with pytest.raises(DatasetError, match="episode 0: observations do not continue each other by one frame"):
        read(dumped(num_episodes=1, observations_0=stacks[::2]))


def test_single_frames_become_stacks_of_four_or_as_many_as_are_asked_for(dumped):
    path = dumped(num_episodes=1, observations_0=np.zeros((2, 1, 2, 3), np.uint8))
    names = ("action 0", "action 1", "action 2")  # 2 is the highest that occurs
    assert read(path)[0].spec == TaskSpec.pixels((4, 2, 3), names)
    log, (episode,) = read(path, stack=2, action_names=("left", "right", "stay", "never taken"))
    assert log.spec == TaskSpec.pixels((2, 2, 3), ("left", "right", "stay", "never taken"))
    assert episode.observations.shape == (3, 2, 3)
    assert read(path, make_spec(2))[0].spec == make_spec(2)


def test_a_stack_is_refused_where_it_is_known(dumped, tmp_path):
    frames = {"observations_0": np.zeros((2, 1, 2, 3), np.uint8), "num_episodes": 1}
    with pytest.raises(ConfigError, match=r"log\.h5: stack and action_names beside data whose task is known"):
        read(dumped(**frames), make_spec(2), stack=2, action_names=("a", "b", "c"))
    with pytest.raises(DatasetError, match=r"holds observations \[2, 2\]; expected single frames for stack 4"):
        read(dumped(), stack=4)
    with pytest.raises(DatasetError, match="holds stacks of 2; expected single frames for stack 4"):
        read(dumped(**{**frames, "observations_0": np.zeros((2, 2, 2, 3), np.uint8)}), stack=4)
    with pytest.raises(DatasetError, match=r"actions has 2 at row 0; expected integers 0\.\.1; write it again"):
        read(dumped(), action_names=("left", "right"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": None}, "has no member 'columns'"),
        ({"columns": ["observations"]}, r"has the columns \['observations'\]"),
        ({"columns": [3]}, r"has the columns \['3'\]"),
        ({"num_episodes": None}, "has no member 'num_episodes'"),
        ({"num_episodes": 10**12}, "num_episodes is 1000000000000"),
        ({"num_episodes": 0}, "holds no transitions"),
        ({"num_episodes": 3}, "episode 2: has no member 'actions_2'"),
        ({"actions_1": np.zeros((3, 2))}, r"episode 1: actions is float64 \[3, 2\]"),
        ({"actions_1": np.array([[1], [-1], [0]])}, "episode 1: actions has -1 at row 1"),
        ({"rewards_0": np.array([[1.0], [np.nan]])}, "episode 0: rewards has nan at row 1"),
        ({"rewards_0": np.zeros((3, 1))}, "episode 0: rewards has 3 rows; expected 2"),
        ({"observations_1": np.zeros((4, 2))}, "episode 1: observations has 4 rows; expected 3"),
        ({"observations_1": np.zeros((3, 5))}, r"episode 1: observations is float64 \[3, 5\]"),
        ({"observations_0": np.full((2, 2), np.inf)}, "episode 0: observations has inf at row 0"),
        ({"observations_0": None}, "episode 0: has no member 'observations_0'"),
        ({"terminated_0": [True, False]}, r"episode 0: terminated is bool \[2\]"),
        ({"offrl": "{"}, "member 'offrl' cannot be read"),
        ({"offrl": json.dumps({"spec": 3, "environment": {}, "generator": {}})}, "not a task spec"),
    ],
)
def test_bad_files_are_named(dumped, changes, message):
    path = dumped(**changes)
    with pytest.raises((DatasetError, SpecMismatchError), match=message) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 an npz file", None])
def test_other_files_are_named(tmp_path, content):
    if content is not None:
        (tmp_path / "log.h5").write_bytes(content)
    with pytest.raises(DatasetError, match=r"log\.h5: cannot be opened .*; expected an HDF5 file of d3rlpy's"):
        read(tmp_path / "log.h5")


def test_a_damaged_file_is_named(tmp_path):
    write_d3rlpy(tmp_path / "log.h5", log_of([make_episode(0, 50)], make_spec()))
    whole = (tmp_path / "log.h5").read_bytes()
    (tmp_path / "log.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="cannot be"):
        read(tmp_path / "log.h5")


def test_another_task_is_refused(tmp_path):
    write_d3rlpy(tmp_path / "log.h5", log_of([make_episode(0)], make_spec(2)))
    with pytest.raises(SpecMismatchError, match=r"observation_shape is \(2, 2, 3\); expected \(3, 2, 3\)"):
        read(tmp_path / "log.h5", make_spec(3))


def test_without_h5py_the_command_to_install_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"-m pip install 'h5py>="):
        read(tmp_path / "log.h5")
