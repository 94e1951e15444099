import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_replay import datasets, make_episode, make_spec

from offrl.errors import DatasetError
from offrl.shards import Episode, Manifest, ShardRecord, write_shard
from offrl.shards import manifest as shards
from offrl.shards.episode import read_shard
from offrl.shards.manifest import file_sha256
from offrl.system.json_files import read_json


def episode(**changes):
    fields = {
        "observations": np.arange(3 * 2, dtype=np.uint8).reshape(3, 1, 2),
        "actions": np.array([1, 0]),
        "rewards": np.array([0.5, -1.0], np.float32),
        "terminated": False,
        "truncated": True,
    }
    return Episode(**{**fields, **changes})


def test_members_of_a_pixel_shard(tmp_path):
    cut = episode(leading=1, observations=np.full((4, 1, 2), 9, np.uint8), behaviour_probability=np.array([0.5, 0.25]))
    record = write_shard(tmp_path / "a.npz", [episode(terminated=True, truncated=False), cut])
    with np.load(tmp_path / "a.npz", allow_pickle=False) as members:
        found = {name: members[name] for name in members.files}
    assert found["frames"].dtype == np.uint8
    assert found["frames"].tolist() == [[[0, 1]], [[2, 3]], [[4, 5]]] + [[[9, 9]]] * 4
    assert found["actions"].tolist() == [1, 0, 1, 0]
    assert found["rewards"].dtype == np.float32
    assert found["rewards"].tolist() == [0.5, -1.0, 0.5, -1.0]
    assert found["terminated"].tolist() == [False, True, False, False]
    assert found["truncated"].tolist() == [False, False, False, True]
    assert found["episode_lengths"].tolist() == [2, 2]
    assert found["leading"].tolist() == [0, 1]
    assert np.isnan(found["behaviour_probability"][:2]).all()
    assert found["behaviour_probability"][2:].tolist() == [0.5, 0.25]
    assert "action_mask" not in found
    assert record == ShardRecord("a.npz", file_sha256(tmp_path / "a.npz"), 4, 2, 7)


def test_members_of_a_vector_shard(tmp_path):
    write_shard(tmp_path / "a.npz", [make_episode(0, pixels=False)])
    with np.load(tmp_path / "a.npz", allow_pickle=False) as members:
        assert sorted(members.files) == [
            "actions",
            "episode_lengths",
            "observations",
            "rewards",
            "terminated",
            "truncated",
        ]
        assert members["observations"].shape == (4, 4)


def test_equal_episodes_give_equal_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        write_shard(tmp_path / name, [make_episode(0), make_episode(1)])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": np.zeros(0, np.int64)}, r"Episode.actions: int64 \[0\]; expected integers \[T\], T at least 1"),
        ({"actions": np.array([0.0, 1.0])}, r"Episode.actions: float64 \[2\]"),
        ({"rewards": np.zeros(3, np.float32)}, r"Episode.rewards: float32 \[3\]; expected real numbers \[2\]"),
        ({"rewards": np.array([0, np.nan], np.float32)}, "Episode.rewards: holds NaN"),
        ({"observations": np.zeros((3, 1, 2), np.float32)}, r"Episode.observations: float32 \[3, 1, 2\]"),
        ({"observations": np.zeros((2, 1, 2), np.uint8)}, r"expected 0 \+ 2 \+ 1 rows"),
        ({"leading": -1}, "Episode.leading: -1"),
        ({"leading": 1, "observations": np.zeros((4, 2), np.float32)}, "and 0 for vectors"),
        ({"behaviour_probability": np.ones(3)}, r"Episode.behaviour_probability: float64 \[3\]"),
        ({"action_mask": np.ones((2, 4))}, r"Episode.action_mask: float64 \[2, 4\]; expected bool \[2, A\]"),
    ],
)
def test_episodes_are_checked(changes, message):
    with pytest.raises(DatasetError, match=message):
        episode(**changes)


def test_shards_hold_episodes_of_one_shape(tmp_path):
    with pytest.raises(DatasetError, match=r"no episodes to write"):
        write_shard(tmp_path / "a.npz", [])
    with pytest.raises(DatasetError, match=r"episode 1 has observations float32 \(4,\); expected uint8 \(2, 3\)"):
        write_shard(tmp_path / "a.npz", [make_episode(0), make_episode(1, pixels=False)])
    masks = [episode(action_mask=np.ones((2, width), np.bool_)) for width in (2, 3)]
    with pytest.raises(DatasetError, match=r"action_mask: widths \[2, 3\]"):
        write_shard(tmp_path / "a.npz", masks)
    assert list(tmp_path.iterdir()) == []


BAD_NAMES = ["a\0.npz", "\ud800.npz", "a\x1b[2J.npz", "a\\b.npz", "/etc/passwd", ".hidden.npz", "a" * 256, "a\n.npz"]


def recorded(name):
    return {"name": name, "sha256": "", "num_transitions": 1, "num_episodes": 1, "num_frames": 2}


def manifest():
    records = (ShardRecord("a.npz", "ab", 4, 2, 7), ShardRecord("b.npz", "cd", 5, 1, 6))
    return Manifest(make_spec(), records, {"id": "Car-v3", "options": {"laps": 1}}, {"seed": 3}, complete=False)


@settings(deadline=None, max_examples=60)
@given(datasets(), st.booleans(), st.booleans())
def test_the_episodes_of_a_shard_come_back_as_they_were_written(tmp_path_factory, dataset, has_probability, has_masks):
    _, _, shards = dataset
    rng = np.random.default_rng(0)
    episodes = []
    for each in shards[0]:
        probability = rng.random(len(each)).astype(np.float32) if has_probability else None
        mask = rng.random((len(each), 3)) < 0.5 if has_masks else None
        episodes.append(replace(each, behaviour_probability=probability, action_mask=mask))
    path = tmp_path_factory.mktemp("shard") / "a.npz"
    write_shard(path, episodes)
    found = read_shard(path)
    assert len(found) == len(episodes)
    for ours, theirs in zip(found, episodes, strict=True):
        assert (ours.terminated, ours.truncated, ours.leading) == (theirs.terminated, theirs.truncated, theirs.leading)
        for name in ("observations", "actions", "rewards", "behaviour_probability", "action_mask"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), strict=True)


def test_a_manifest_comes_back_as_it_was_saved(tmp_path):
    manifest().save(tmp_path)
    assert Manifest.load(tmp_path) == manifest()
    assert "protocol" not in read_json(tmp_path / "manifest.json")
    ours = replace(manifest(), protocol={"kind": "mixed", "random_return": 1.5})
    ours.save(tmp_path)
    assert Manifest.load(tmp_path) == ours
    assert manifest().num_transitions == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is no manifest of offrl's"),
        ({"format_version": 2}, "format_version is 2; expected 1"),
        ({"shards": None}, "a field is missing or malformed"),
        ({"shards": [{"name": "a.npz"}]}, "sha256"),
        ({"shards": [recorded("../a.npz")]}, "not a plain file name"),
        ({"shards": [recorded("..")]}, "not a plain file name"),
        ({"shards": [recorded("")]}, "not a plain file name"),
        ({"shards": [recorded("a.npz"), recorded("b.npz"), recorded("a.npz")]}, r"\['a.npz'\] named twice"),
        ({"environment": 3}, "a field is missing or malformed"),
        ({"protocol": 3}, "a field is missing or malformed"),
        ({"complete": "no"}, "complete is 'no'"),
        ({"format_version": True}, "format_version is True; expected 1"),
        ({"shards": {}}, "shards are no list"),
        ({"shards": [recorded(7)]}, "name or sha256 is no text"),
        ({"shards": [recorded("a.npz") | {"sha256": 7}]}, "name or sha256 is no text"),
        ({"shards": [recorded("a.npz") | {"num_frames": 4.9}]}, "num_frames of a.npz is 4.9"),
        ({"shards": [recorded("a.npz") | {"num_frames": "4"}]}, "num_frames of a.npz is '4'"),
        ({"shards": [recorded("a.npz") | {"num_frames": True}]}, "num_frames of a.npz is True"),
        ({"shards": [recorded("a.npz") | {"num_frames": -1}]}, "num_frames of a.npz is -1"),
        ({"shards": [recorded("a.npz") | {"num_frames": 10**30}]}, "num_frames of a.npz is 10000"),
        *(({"shards": [recorded(name)]}, "is not a plain file name") for name in BAD_NAMES),
    ],
)
def test_a_malformed_manifest_is_named(tmp_path, change, message):
    manifest().save(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**read_json(path), **change}))
    with pytest.raises(DatasetError, match=message) as caught:
        Manifest.load(tmp_path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_manifest_is_named(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"manifest\.json: (cannot be read|is no manifest)"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(tmp_path, number):
    manifest().save(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**read_json(path), "environment": {"size": 5.25}}).replace("5.25", number))
    with pytest.raises(DatasetError, match=r"manifest\.json: cannot be read \(.*number"):
        Manifest.load(tmp_path)


def test_a_changed_manifest_is_noticed_and_one_without_a_seal_is_read(tmp_path):
    manifest().save(tmp_path)
    path = tmp_path / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"laps": 1', '"laps": 2'))
    with pytest.raises(DatasetError, match=r"manifest\.json: cannot be read \(it was changed since it was written"):
        Manifest.load(tmp_path)
    path.write_text(json.dumps(read_json_text(text)))
    assert Manifest.load(tmp_path) == manifest()


def read_json_text(text):
    """Without its seal, as before there were seals."""
    return {key: value for key, value in json.loads(text).items() if key not in ("sealed", "content_sha256")}


def test_what_is_no_regular_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(DatasetError, match=r"manifest\.json: cannot be read \(.*pipe or device"):
        Manifest.load(tmp_path)
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="pipe or device"):
        file_sha256(tmp_path / "zero")


def test_a_manifest_too_large_is_not_read_whole(tmp_path, monkeypatch):
    manifest().save(tmp_path)
    monkeypatch.setattr(shards, "MAX_BYTES", 100)
    with pytest.raises(DatasetError, match=r"cannot be read \(it has more than 100 bytes"):
        Manifest.load(tmp_path)


def test_a_manifest_of_60_000_shards_is_read_in_linear_time(tmp_path):
    # Comparing each name with each other would take 3.6 billion comparisons, minutes: this would not end in time.
    records = tuple(ShardRecord(f"shard-{index:05}.npz", "ab", 1, 1, 2) for index in range(60_000))
    manifest().save(tmp_path)
    data = {**read_json(tmp_path / "manifest.json"), "shards": [asdict(record) for record in (*records, records[7])]}
    with pytest.raises(DatasetError, match=r"\['shard-00007.npz'\] named twice"):
        Manifest.parse(json.dumps(data).encode(), where="manifest.json")


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"manifest\.json: no such file"):
        Manifest.load(tmp_path)


def test_workers_write_shards_without_importing_torch():
    code = f"import sys, {shards.__name__}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_shards_can_be_stored_without_deflating(tmp_path):
    dull = episode(observations=np.zeros((3, 64, 64), np.uint8))
    sizes = []
    for compress in (True, False):
        write_shard(tmp_path / "a.npz", [dull], compress=compress)
        with np.load(tmp_path / "a.npz", allow_pickle=False) as members:
            assert members["frames"].tolist() == dull.observations.tolist()
        sizes.append((tmp_path / "a.npz").stat().st_size)
    assert sizes[0] < 3 * 64 * 64 < sizes[1]


def test_a_manifest_says_the_layout_of_its_shards(tmp_path):
    assert manifest().layout == "frames"
    stacked = replace(manifest(), layout="stacked")
    stacked.save(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["format"] == "offrl-stacked"
    assert Manifest.load(tmp_path) == stacked


@pytest.mark.parametrize(
    ("environment", "name"),
    [({"id": "a-v0"}, "a-v0"), ({"id": "a-v0", "settings": {"gravity": 5.0}}, None), ({}, None)],
)
def test_an_environment_is_named_by_its_id_where_that_says_all(environment, name):
    manifest = Manifest(make_spec(), (), environment=environment, generator={})
    assert manifest.plain_environment == name
