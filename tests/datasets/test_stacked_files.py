import numpy as np
import pytest
from hypothesis import given, settings
from naive_replay import datasets, make_episode, make_spec, rows_of, save_frames, save_stacked, stacked_members

from offrl.datasets import _stacked_files as stacked
from offrl.datasets._stacked_files import stacked_shards, write_stacked_shard
from offrl.replay import ingest

ROW_BYTES = 2 * 2 * 6  # a stack of 2 frames of 2 x 3, and the next one


def members_of(path):
    with np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def rewritten(source, target, max_bytes=2**20):
    store = ingest(source)
    for index, shard in enumerate(stacked_shards(store, max_bytes)):
        write_stacked_shard(target / f"shard-{index:03}.npz", store, shard)
    return store


def test_stacked_rows_are_written_as_they_were_read(tmp_path, monkeypatch):
    """Rows that lead elsewhere, or follow no other, included; in chunks smaller than the shard."""
    monkeypatch.setattr(stacked, "_CHUNK", 2)
    rows = rows_of([make_episode(0, 3), make_episode(1, 4, terminated=False)], stack=4)
    rows[1].next_observation = np.full_like(rows[1].observation, 7)
    rows[5], rows[6] = rows[6], rows[5]
    (tmp_path / "before").mkdir()
    np.savez(tmp_path / "before" / "shard-000.npz", **stacked_members(rows))
    rewritten(tmp_path / "before", tmp_path / "after")
    before, after = (members_of(tmp_path / name / "shard-000.npz") for name in ("before", "after"))
    assert list(after) == ["states", "actions", "next_states", "rewards", "dones"]
    for name, expected in before.items():
        assert after[name].dtype == expected.dtype
        np.testing.assert_array_equal(after[name], expected)


def test_float_pixels_come_back_within_half_a_gray_level(tmp_path):
    members = stacked_members(rows_of([make_episode(0, 3)], stack=2))
    wrong = np.float32(0.4 / 128)  # 0.4 gray levels
    for name in ("states", "next_states"):
        members[name] = np.clip(members[name].astype(np.float32) / 128 - 1 + wrong, -1, 1)
    (tmp_path / "before").mkdir()
    np.savez(tmp_path / "before" / "shard-000.npz", **members)
    with pytest.warns(UserWarning, match="gray levels off"):
        rewritten(tmp_path / "before", tmp_path / "after")
    after = members_of(tmp_path / "after" / "shard-000.npz")
    for name in ("states", "next_states"):
        assert after[name].dtype == np.uint8
        assert np.abs((members[name] + 1) * 128 - after[name]).max() <= 0.5


@pytest.mark.filterwarnings("ignore:.*dones is true")
@settings(max_examples=40, deadline=None)
@given(datasets())
def test_frames_become_rows_in_the_same_segments(tmp_path_factory, dataset):
    pixels, stack, shards = dataset
    directory = tmp_path_factory.mktemp("log")
    save_frames(directory / "before", shards, make_spec(stack, pixels=pixels))
    before = rewritten(directory / "before", directory / "after")
    after = ingest(directory / "after", spec=make_spec(stack, pixels=pixels))
    rows = np.arange(len(before))
    for name in ("actions", "rewards", "terminated", "segment_end"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)
    # `dones` has no word for an end that was both.
    np.testing.assert_array_equal(after.truncated, before.truncated & ~before.terminated)
    np.testing.assert_array_equal(after.observations(rows), before.observations(rows))
    np.testing.assert_array_equal(after.next_observations(rows), before.next_observations(rows))


@pytest.mark.parametrize(
    ("max_bytes", "expected"), [(7 * ROW_BYTES, [7]), (5 * ROW_BYTES, [5, 2]), (1, [3, 2, 2]), (4 * ROW_BYTES, [3, 4])]
)
def test_shards_are_bounded_and_segments_whole(tmp_path, max_bytes, expected):
    save_frames(tmp_path, [[make_episode(0, 3), make_episode(1, 2), make_episode(2, 2)]], make_spec(stack=2))
    shards = stacked_shards(ingest(tmp_path), max_bytes)
    assert [shard[-1].stop - shard[0].start for shard in shards] == expected


def test_segments_that_would_be_taken_for_one_are_in_shards_of_their_own(tmp_path):
    """As an episode that went on in the next shard: linking it would change n-step returns."""
    whole = make_episode(0, 4)
    rows = rows_of([whole], stack=2)
    for index in range(2):
        np.savez(tmp_path / f"shard-{index}.npz", **stacked_members(rows[2 * index : 2 * index + 2]))
    store = ingest(tmp_path)
    assert [list(shard) for shard in stacked_shards(store, 2**20)] == [[range(2)], [range(2, 4)]]


@pytest.mark.parametrize("compress", [True, False])
def test_equal_rows_give_equal_bytes_deflated_or_not(tmp_path, compress):
    save_stacked(tmp_path / "log", [[make_episode(0, 400, high=2)]], stack=2)
    store = ingest(tmp_path / "log")
    (shard,) = stacked_shards(store, 2**20)
    records = [write_stacked_shard(tmp_path / f"{n}.npz", store, shard, compress=compress) for n in "ab"]
    assert records[0].sha256 == records[1].sha256
    assert (records[0].num_transitions, records[0].num_episodes, records[0].num_frames) == (400, 1, 1600)
    assert ((tmp_path / "a.npz").stat().st_size < 400 * ROW_BYTES) == compress
