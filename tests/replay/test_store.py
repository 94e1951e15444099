import json
import mmap
from dataclasses import asdict

import numpy as np
import pytest
from naive_replay import NAMES, make_episode, make_spec, save_frames

from offrl import TaskSpec
from offrl.errors import ConfigError, DatasetError
from offrl.replay import FrameStore, IngestReport, ingest
from offrl.replay import store as store_module
from offrl.shards import Episode, Problem
from offrl.system.json_files import read_json, write_sealed_json


@pytest.fixture
def path(tmp_path):
    shards = [[make_episode(0, 3, behaviour_probability=np.array([0.5, 0.25, 1.0]))], [make_episode(1, 2)]]
    save_frames(tmp_path, shards, make_spec())
    return ingest(tmp_path).path


@pytest.mark.parametrize(("tier", "is_map"), [("mmap", True), ("ram", False)])
def test_tiers_differ_in_where_the_frames_are(path, tier, is_map):
    store = FrameStore.open(path, tier)
    assert store.tier == tier
    assert isinstance(store.frames.base, np.memmap) == is_map
    assert type(store.observations(np.array([0]))) is np.ndarray


@pytest.mark.parametrize(("spare_bytes", "tier"), [(1, "ram"), (0, "mmap")])
def test_auto_takes_ram_for_frames_smaller_than_half_of_it(path, monkeypatch, spare_bytes, tier):
    size = (path / "frames.npy").stat().st_size
    monkeypatch.setattr(store_module, "available_memory", lambda: 2 * (size + spare_bytes))
    assert FrameStore.open(path, "auto").tier == tier


def test_arrays_hold_the_log(path):
    store = FrameStore.open(path)
    assert (len(store), len(store.frames)) == (5, 7)
    assert store.segment_end.tolist() == [2, 2, 2, 4, 4]
    assert store.terminated.tolist() == [False, False, True, False, True]
    np.testing.assert_array_equal(store.behaviour_probability, [0.5, 0.25, 1.0, np.nan, np.nan])
    assert store.action_mask is None


def test_one_step_windows(path):
    store = FrameStore.open(path)
    frames = store.frames
    np.testing.assert_array_equal(store.observations(np.array([3, 1])), [frames[[4, 4]], frames[[0, 1]]])
    np.testing.assert_array_equal(store.next_observations(np.array([3, 1])), [frames[[4, 5]], frames[[1, 2]]])


class Adviser:
    """Stands in for a file mapping, and keeps what it was told."""

    def __init__(self, refuses=False):
        self.refuses = refuses
        self.ranges = []

    def madvise(self, advice, start, length):
        assert advice == mmap.MADV_WILLNEED
        self.ranges.append((start, start + length))
        if self.refuses:
            raise OSError("EAGAIN")


@pytest.mark.skipif(mmap.PAGESIZE != 4096, reason="the numbers are for pages of 4096 bytes")
@pytest.mark.parametrize("refuses", [False, True])
def test_prefetching_asks_for_the_pages_of_each_window_and_no_others(tmp_path, monkeypatch, refuses):
    # frames of 4096 bytes behind a header of 128: rows 0..19 see the frames max(row - 1, 0) .. row
    frames = np.random.default_rng(0).integers(256, size=(21, 64, 64), dtype=np.uint8)
    episode = Episode(frames, np.zeros(20, np.int64), np.zeros(20, np.float32), True, False)
    save_frames(tmp_path, [[episode]], TaskSpec.pixels((2, 64, 64), NAMES))
    store = FrameStore.open(ingest(tmp_path).path, "mmap")
    store.frames_between(0, 21)  # checked once, and from then on only what is needed is read
    adviser = Adviser(refuses)
    monkeypatch.setattr(store_module, "_mapping", lambda array: (adviser, 128))
    store.prefetch(np.array([0, 9]), np.array([0, 12]))
    windows = [(0, 0), (8, 9), (0, 1), (12, 13)]  # of the two observations, then of where they lead to
    expected = [(first * 4096, 128 + (last + 1) * 4096) for first, last in windows]
    assert adviser.ranges == (expected[:1] if refuses else expected)


@pytest.mark.parametrize("tier", ["mmap", "ram"])
def test_only_a_mapped_array_has_a_mapping(path, tier):
    frames = FrameStore.open(path, tier).frames
    found = store_module._mapping(frames)
    assert (found is None) == (tier == "ram")
    if found is not None:
        mapping, offset = found
        assert mapping[offset : offset + frames.nbytes] == frames.tobytes()


def test_an_unknown_tier_is_refused(path):
    with pytest.raises(ConfigError, match="tier: 'disk'; expected one of auto, ram, mmap"):
        FrameStore.open(path, "disk")


@pytest.mark.parametrize("name", ["store.json", "frames.npy", "next_last.npy"])
@pytest.mark.parametrize("size", [None, 0, 40])
def test_a_damaged_store_is_refused(path, name, size):
    if size is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes((path / name).read_bytes()[:size])
    with pytest.raises(DatasetError, match=r"no finished frame store .*; delete this directory"):
        FrameStore.open(path, "mmap")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("actions", np.zeros(4, np.int64)),
        ("actions", np.full(5, 2)),
        ("next_last", np.full(5, 99)),
        ("segment_end", np.full(5, 4)),
        ("terminated", np.zeros((5, 1), np.bool_)),
        ("rewards", np.zeros(5, ">f4")),
    ],
)
def test_rows_that_were_changed_are_refused(path, name, values):
    np.save(path / f"{name}.npy", values)
    with pytest.raises(DatasetError, match=rf"{name}\.npy was changed since it was written"):
        FrameStore.open(path)


def test_an_array_that_was_put_there_is_not_used(path):
    np.save(path / "action_mask.npy", np.ones((5, 3), np.bool_))
    assert FrameStore.open(path).action_mask is None


@pytest.mark.parametrize("change", [{"fingerprint": "0"}, {"format_version": 2}, {"arrays": {}}])
def test_what_the_store_says_of_itself_was_not_changed(path, change):
    about = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps(about | change))
    with pytest.raises(DatasetError, match="its content and content_sha256 differ"):
        FrameStore.open(path)


@pytest.mark.parametrize(("removed", "added"), [("truncated", []), (None, ["../elsewhere"])])
def test_a_store_names_the_arrays_of_a_store(path, removed, added):
    about = read_json(path / "store.json")
    arrays = {name: sha256 for name, sha256 in about["arrays"].items() if name != removed} | dict.fromkeys(added)
    write_sealed_json(path / "store.json", {**about, "arrays": arrays})  # as somebody would who means it
    with pytest.raises(DatasetError, match=rf"lacks the array {removed or added[0]}, or names one that no store has"):
        FrameStore.open(path)


@pytest.mark.parametrize(("version", "message"), [(2, "format_version is 2, not 4"), (5, "format_version is 5, not 4")])
def test_stores_of_other_versions_are_refused(path, version, message):
    write_sealed_json(path / "store.json", read_json(path / "store.json") | {"format_version": version})
    with pytest.raises(DatasetError, match=message):
        FrameStore.open(path)


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        (np.zeros((6, 2, 3), np.uint8), r"uint8 \[6, 2, 3\]"),
        (np.zeros((7, 3, 2), np.uint8), r"uint8 \[7, 3, 2\]"),
        (np.zeros((7, 2, 3), np.int8), r"int8 \[7, 2, 3\]"),
    ],
)
def test_frames_of_another_number_shape_or_type_are_refused(path, frames, found):
    np.save(path / "frames.npy", frames)
    with pytest.raises(DatasetError, match=rf"frames\.npy: {found}; expected uint8 \[7, 2, 3\]; delete this directory"):
        FrameStore.open(path)


def test_the_report_is_kept(path):
    about = json.loads((path / "store.json").read_text())
    assert about["report"] == {
        "layout": "frames",
        "num_shards": 2,
        "num_transitions": 5,
        "num_segments": 2,
        "num_frames": 7,
        "largest_rounding_error": 0.0,
        "warnings": [],
        "skipped": [],
    }


def test_an_ingest_report_survives_json():
    report = IngestReport("stacked", 2, 30, 4, 34, 0.25, (Problem("where", "what", "hint"),), (("a.npz", "damaged"),))
    assert IngestReport.from_dict(json.loads(json.dumps(asdict(report)))) == report
    assert IngestReport.from_dict(asdict(IngestReport("frames", 1, 2, 1, 3))).skipped == ()
