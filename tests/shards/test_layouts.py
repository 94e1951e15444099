import numpy as np
import pytest
from naive_replay import make_episode, make_spec, rows_of, stacked_members

from offrl.errors import DatasetError
from offrl.shards import write_shard
from offrl.shards._frames_layout import read_frames
from offrl.shards._npz import open_npz
from offrl.shards._stacked_layout import read_stacked
from offrl.shards.layouts import detect_layout, episode_windows, row_windows


@pytest.fixture
def frames_shard(tmp_path):
    """A writer of a good frames shard (episodes of 3 and 2 steps) with some members replaced or, by None, dropped."""

    def make(*, pixels=True, **changes):
        episodes = [make_episode(0, 3, pixels=pixels), make_episode(1, 2, pixels=pixels, terminated=False)]
        write_shard(tmp_path / "log.npz", episodes)
        with np.load(tmp_path / "log.npz", allow_pickle=False) as good:
            members = {**good, **changes}
        np.savez(tmp_path / "log.npz", **{k: v for k, v in members.items() if v is not None})
        return open_npz(tmp_path / "log.npz")

    return make


@pytest.fixture
def stacked_shard(tmp_path):
    """A writer of a good stacked shard of 5 rows (stack 2) with some members replaced or, by None, dropped."""

    def make(**changes):
        rows = rows_of([make_episode(0, 3), make_episode(1, 2, terminated=False)], stack=2)
        members = {**stacked_members(rows), **changes}
        np.savez(tmp_path / "log.npz", **{k: v for k, v in members.items() if v is not None})
        return open_npz(tmp_path / "log.npz")

    return make


def test_layouts_are_told_apart_by_their_members(frames_shard, stacked_shard, tmp_path):
    with frames_shard() as shard:
        assert detect_layout(shard) == "frames"
    with stacked_shard() as shard:
        assert detect_layout(shard) == "stacked"
    np.savez(tmp_path / "log.npz", obs=np.zeros(3))
    with (
        open_npz(tmp_path / "log.npz") as shard,
        pytest.raises(DatasetError, match=r"log\.npz: has the members \['obs'\]"),
    ):
        detect_layout(shard)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("states", "actions", "rewards", "dones"), "has no member 'next_states' beside .*write_dataset.*=states"),
        (
            ("observations", "actions", "rewards", "terminals", "timeouts"),
            "has the members terminals, timeouts, as D4RL names them; .*write_dataset.* terminated=terminals",
        ),
    ],
)
def test_logs_of_known_names_are_told_what_makes_a_dataset_of_them(tmp_path, names, message):
    np.savez(tmp_path / "log.npz", **{name: np.zeros(3) for name in names})
    with open_npz(tmp_path / "log.npz") as shard, pytest.raises(DatasetError, match=message):
        detect_layout(shard)


def test_frames_windows_by_hand(frames_shard):
    with frames_shard() as shard:
        rows = read_frames(shard, make_spec())
    assert rows.first.tolist() == [0, 0, 0, 4, 4]
    assert rows.last.tolist() == [0, 1, 2, 4, 5]
    assert rows.next_last.tolist() == [1, 2, 3, 5, 6]
    assert rows.segment_end.tolist() == [2, 2, 2, 4, 4]
    assert rows.terminated.tolist() == [False, False, True, False, False]
    assert rows.truncated.tolist() == [False, False, False, False, True]


def test_an_episode_that_just_stops_counts_as_truncated(frames_shard):
    with frames_shard(truncated=np.zeros(5, np.bool_)) as shard:
        assert read_frames(shard, make_spec()).truncated.tolist() == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": None}, "has no member 'rewards'"),
        ({"behavior_probability": np.ones(5)}, r"holds \['behavior_probability'\], unknown to the frames layout"),
        (
            {"observations": np.ones((7, 4))},
            r"holds \['observations'\], unknown .*; expected only action_mask, actions,",
        ),
        ({"frames": np.zeros((7, 2, 4), np.uint8)}, r"frames is uint8 \[7, 2, 4\]; expected uint8 \[7, 2, 3\]"),
        ({"frames": np.zeros((7, 2, 3), np.float32)}, r"frames is float32 \[7, 2, 3\]; expected uint8"),
        ({"frames": np.zeros((6, 2, 3), np.uint8)}, "frames has 6 rows; expected 7: leading"),
        ({"episode_lengths": np.array([3, 3])}, r"episode_lengths .* do not add up .* add up to 5"),
        ({"episode_lengths": np.array([5, 0])}, r"episode_lengths \(smallest 0\)"),
        ({"episode_lengths": np.array([2**62] * 4)}, "episode_lengths .* do not add up"),
        ({"episode_lengths": np.array([3.0, 2.0])}, r"episode_lengths is float64 \[2\]; expected integers"),
        ({"leading": np.array([1, 0])}, "frames has 7 rows; expected 8"),
        ({"leading": np.array([-1, 1])}, "leading has values out of range"),
        ({"leading": np.array([0])}, r"leading is int64 \[1\]; expected integers \[2\]"),
        ({"terminated": np.array([1, 0, 1, 0, 0])}, "terminated is true at row 0, inside an episode"),
        ({"truncated": np.array([0, 0, 0, 1, 1])}, "truncated is true at row 3, inside an episode"),
        ({"truncated": np.zeros(4)}, "truncated has 4 rows; expected 5"),
        ({"behaviour_probability": np.ones(4)}, r"behaviour_probability is float64 \[4\]; expected float \[5\]"),
        ({"behaviour_probability": np.full(5, 1.5)}, r"behaviour_probability has values outside 0\.\.1"),
        ({"action_mask": np.ones((5, 2), np.bool_)}, r"action_mask is bool \[5, 2\]; expected bool \[5, 3\]"),
        ({"action_mask": np.zeros((5, 3), np.bool_)}, "action_mask forbids the action taken at row 0"),
    ],
)
def test_bad_frames_shards_are_refused(frames_shard, changes, message):
    with frames_shard(**changes) as shard, pytest.raises(DatasetError, match=r"log\.npz: " + message):
        read_frames(shard, make_spec())


def test_what_else_a_logger_keeps_in_a_stacked_shard_is_left_alone(stacked_shard):
    with stacked_shard(infos=np.zeros(3)) as shard:
        assert len(read_stacked(shard, None, None, "terminated")) == 5


def test_bad_vectors_are_refused(frames_shard):
    observations = np.zeros((7, 4), np.float32)
    observations[5, 2] = np.nan
    with (
        frames_shard(pixels=False, observations=observations) as shard,
        pytest.raises(DatasetError, match="observations has nan at row 5"),
    ):
        read_frames(shard, make_spec(pixels=False))


def stacks(*gray):
    """Stacks of 1 by 1 pixels from their gray levels."""
    return np.array(gray, np.uint8)[:, :, None, None]


def test_stacked_rows_that_follow_each_other_share_their_frames(tmp_path):
    # Rows 0 and 1 follow each other; row 2 starts anew in the middle of an episode; row 3 is its continuation.
    np.savez(
        tmp_path / "log.npz",
        states=stacks([1, 1], [1, 2], [7, 8], [8, 9]),
        next_states=stacks([1, 2], [2, 3], [8, 9], [9, 10]),
        actions=np.zeros(4, np.int64),
        rewards=np.zeros(4),
        dones=np.array([0, 0, 0, 1]),
    )
    with open_npz(tmp_path / "log.npz") as shard:
        rows = read_stacked(shard, None, None, "terminated")
    assert rows.observations[:, 0, 0].tolist() == [1, 1, 2, 3, 7, 8, 9, 10]
    assert rows.last.tolist() == [1, 2, 5, 6]
    assert rows.next_last.tolist() == [2, 3, 6, 7]
    assert rows.segment_end.tolist() == [1, 1, 3, 3]
    assert rows.truncated.tolist() == [False, True, False, False]
    assert rows.terminated.tolist() == [False, False, False, True]
    assert rows.observation_shape == (2, 1, 1)


@pytest.mark.parametrize(
    ("states", "next_states", "dones", "reason"),
    [
        (stacks([1, 2], [2, 3]), stacks([2, 3], [3, 4]), [1, 0], "done"),
        (stacks([1, 2], [2, 4]), stacks([2, 3], [4, 5]), [0, 0], "another state"),
        (stacks([1, 2], [9, 9]), stacks([9, 9], [9, 8]), [0, 0], "the next episode's first state"),
    ],
)
def test_stacked_rows_that_do_not_follow_are_not_linked(tmp_path, states, next_states, dones, reason):
    np.savez(
        tmp_path / "log.npz",
        states=states,
        next_states=next_states,
        actions=np.zeros(2, np.int64),
        rewards=np.zeros(2),
        dones=np.array(dones),
    )
    with open_npz(tmp_path / "log.npz") as shard:
        rows = read_stacked(shard, None, None, "terminated")
    assert rows.segment_end.tolist() == [0, 1], reason
    for last, observations in ((rows.last, states), (rows.next_last, next_states)):
        for row in range(2):
            assert rows.observations[last[row] - 1 : last[row] + 1].tolist() == observations[row].tolist()


def test_dones_that_mean_not_done_are_inverted(stacked_shard):
    with stacked_shard() as shard:
        terminated = read_stacked(shard, None, None, "terminated").terminated
    with stacked_shard(dones=~terminated) as shard:
        assert read_stacked(shard, None, None, "not_done").terminated.tolist() == terminated.tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_all_gray_levels_survive_as_floats(tmp_path, dtype):
    gray = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    floats = (gray / 128 - 1).astype(dtype)
    np.savez(tmp_path / "log.npz", states=floats, next_states=floats, actions=[0], rewards=[0.0], dones=[True])
    with open_npz(tmp_path / "log.npz") as shard:
        rows = read_stacked(shard, None, None, "terminated")
    assert rows.observations.dtype == np.uint8
    assert rows.observations[rows.last[0]].tolist() == gray[0, 0].tolist()
    assert rows.largest_rounding_error == 0


def test_floats_between_gray_levels_go_to_the_nearest(tmp_path):
    # In gray levels: 10.25 -> 10, 10.75 -> 11, and 256 -> 255, the worst of them.
    states = (np.array([10.25, 10.75, 256.0]) / 128 - 1).reshape(1, 1, 1, 3)
    np.savez(tmp_path / "log.npz", states=states, next_states=states, actions=[0], rewards=[0.0], dones=[True])
    with open_npz(tmp_path / "log.npz") as shard:
        rows = read_stacked(shard, None, None, "terminated")
    assert rows.observations[rows.last[0], 0].tolist() == [10, 11, 255]
    assert rows.largest_rounding_error == 1.0


def test_stacks_with_the_newest_frame_first_are_noticed(tmp_path):
    members = dict.fromkeys(("actions", "rewards", "dones"), np.zeros(2, np.int64))
    np.savez(tmp_path / "log.npz", states=stacks([2, 1], [3, 2]), next_states=stacks([3, 2], [4, 3]), **members)
    with open_npz(tmp_path / "log.npz") as shard:
        assert read_stacked(shard, None, None, "terminated").newest_first
    np.savez(tmp_path / "log.npz", states=stacks([1, 2], [2, 3]), next_states=stacks([2, 3], [3, 4]), **members)
    with open_npz(tmp_path / "log.npz") as shard:
        assert not read_stacked(shard, None, None, "terminated").newest_first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"next_states": None}, "has no member 'next_states'"),
        ({"states": np.zeros((6, 2, 2, 3), np.uint8)}, "states has 6 rows; expected 5, like actions"),
        ({"states": np.zeros((5, 3, 2, 3), np.uint8)}, r"states is uint8 \[5, 3, 2, 3\]; expected \[5, 2, 2, 3\]"),
        ({"states": np.zeros((5, 2, 3), np.uint8)}, r"states is uint8 \[5, 2, 3\]"),
        ({"states": np.zeros((5, 2, 2, 3), np.int64)}, r"states is int64 .*; expected uint8 0\.\.255, or float"),
        ({"states": np.full((5, 2, 2, 3), 255.0)}, r"states has values from 255 to 255 in rows 0\.\.4"),
        ({"next_states": np.full((5, 2, 2, 3), np.nan)}, "next_states has values from nan"),
        ({"actions": np.array([0, 1, 2, 3, 0])}, "actions has 3 at row 3"),
        ({"dones": np.zeros(4)}, "dones has 4 rows; expected 5"),
    ],
)
def test_bad_stacked_shards_are_refused(stacked_shard, changes, message):
    with stacked_shard(**changes) as shard, pytest.raises(DatasetError, match=r"log\.npz: " + message):
        read_stacked(shard, (2, 2, 3), 3, "terminated")


def test_without_a_spec_next_states_must_look_like_states(stacked_shard):
    with (
        stacked_shard(next_states=np.zeros((5, 4), np.float32)) as shard,
        pytest.raises(DatasetError, match=r"next_states is float32 \[5, 4\]; expected \[5, 2, 2, 3\]"),
    ):
        read_stacked(shard, None, None, "terminated")


def test_windows_of_episodes_by_hand():
    """Two steps after one leading frame are frames 0 to 3; one step without is frames 4 and 5."""
    windows = episode_windows(np.array([2, 1]), np.array([1, 0]))
    assert [each.tolist() for each in windows] == [[1, 2, 4], [0, 0, 4], [2, 3, 5], [0, 0, 4], [1, 1, 2]]


def test_windows_of_stacked_rows_by_hand():
    """Stacks of 2: row 0 is frames 0, 1 and leads on to 2; row 1 goes on to 3; row 2 leaps from 4, 5 to 6, 7."""
    follows, moved_on = np.array([False, True, False]), np.array([True, True, False])
    windows = row_windows(follows, moved_on, 2)
    assert [each.tolist() for each in windows] == [[1, 2, 5], [0, 1, 4], [2, 3, 7], [1, 2, 6], [1, 1, 2]]
