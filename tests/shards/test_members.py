import numpy as np
import pytest

from offrl.errors import DatasetError
from offrl.shards._members import read_actions, read_flags, read_rewards
from offrl.shards._npz import open_npz


@pytest.fixture
def shard_of(tmp_path):
    def make(**members):
        np.savez(tmp_path / "log.npz", **members)
        return open_npz(tmp_path / "log.npz")

    return make


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64, ">i4"])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_actions_may_be_integers_of_any_width_and_a_column(shard_of, dtype, shape):
    with shard_of(actions=np.array([2, 0, 1], dtype).reshape(shape)) as shard:
        actions = read_actions(shard, num_actions=3)
    assert actions.dtype == np.dtype(np.int64)
    assert actions.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.array([0, 3, 1]), r"actions has 3 at row 1; expected integers 0\.\.2"),
        (np.array([0, 1, -1], np.int8), r"actions has -1 at row 2"),
        (np.array([2**64 - 1], np.uint64), r"actions has 18446744073709551615 at row 0"),
        (np.array([0.0, 1.0]), r"actions is float64 \[2\]; expected integers; they are whole numbers: save"),
        (np.array([0.5, 1.0]), r"actions is float64 \[2\]; expected integers; number the discrete actions"),
        (np.array([True, False]), r"actions is bool \[2\]; expected integers; they are whole numbers"),
        (np.array(["0", "1"]), r"actions is <U1 \[2\]; expected integers; they are numbers as texts: save"),
        (np.eye(3, dtype=np.int64), r"actions is int64 \[3, 3\]; expected integers \[N\]; they are one-hot: save"),
        (np.ones((3, 3)), r"actions is float64 \[3, 3\]; expected integers \[N\]; number the discrete actions"),
        (np.zeros((3, 3, 1)), r"actions is float64 \[3, 3, 1\]; expected \[N\]; re-create the shard"),
        (np.array([1, 3, 2]), r"actions has 3 at row 1; expected integers 0\.\.2; they look counted from 1: save"),
        (np.array(["left"]), r"actions is <U4 \[1\]; expected integers; number the discrete actions"),
    ],
)
def test_other_actions_are_refused(shard_of, actions, message):
    with shard_of(actions=actions) as shard, pytest.raises(DatasetError, match=r"log\.npz: " + message):
        read_actions(shard, num_actions=3)


def test_without_a_spec_any_action_table_passes_but_not_just_anything(shard_of):
    with shard_of(actions=np.array([0, 200])) as shard:
        assert read_actions(shard, None).tolist() == [0, 200]
    with shard_of(actions=np.array([0, 10**9])) as shard, pytest.raises(DatasetError, match="1000000000 at row 1"):
        read_actions(shard, None)


def test_rewards_become_float32(shard_of):
    with shard_of(rewards=np.array([[1], [-2]])) as shard:
        rewards = read_rewards(shard, num_rows=2)
    assert rewards.dtype == np.float32
    assert rewards.tolist() == [1, -2]


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (np.array([0, np.nan]), "rewards has nan at row 1; expected finite numbers"),
        (np.array([-np.inf, 0]), "rewards has -inf at row 0"),
        (np.array([0, 1e300]), "rewards has inf at row 1; expected finite numbers in the range of float32"),
        (np.array([0.0, 1.0, 2.0]), "rewards has 3 rows; expected 2, like actions"),
        (np.array([1j, 0]), r"rewards is complex128 \[2\]; expected real numbers"),
    ],
)
def test_other_rewards_are_refused(shard_of, rewards, message):
    with shard_of(rewards=rewards) as shard, pytest.raises(DatasetError, match=r"log\.npz: " + message):
        read_rewards(shard, num_rows=2)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float32])
def test_flags_may_be_zeros_and_ones_of_any_type(shard_of, dtype):
    with shard_of(dones=np.array([0, 1], dtype)) as shard:
        assert read_flags(shard, "dones", num_rows=2).tolist() == [False, True]


@pytest.mark.parametrize(
    ("dones", "message"),
    [
        (np.array([0, 2]), "dones has 2 at row 1; expected 0 or 1"),
        (np.array([np.nan, 1]), "dones has nan at row 0"),
        (
            np.array(["yes", "no"]),
            r"dones is <U3 \[2\]; expected booleans; they are texts \('no', 'yes'\): save dones == 'yes'",
        ),
        (
            np.array(["a", "b"]),
            r".*they are texts \('a', 'b'\): save a comparison",
        ),
        (np.array([b"\xff", b"True"]), r".*they are texts \(b'True', b'\\xff'\): save dones == b'True'"),
        (np.zeros(3), "dones has 3 rows; expected 2"),
    ],
)
def test_other_flags_are_refused(shard_of, dones, message):
    with shard_of(dones=dones) as shard, pytest.raises(DatasetError, match=r"log\.npz: " + message):
        read_flags(shard, "dones", num_rows=2)
