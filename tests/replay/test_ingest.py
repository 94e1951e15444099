import numpy as np
import pytest
from naive_replay import make_episode, make_spec, rows_of, save_frames, save_stacked, stacked_members

from offrl.errors import ConfigError, DatasetError
from offrl.replay import ingest as ingest_module
from offrl.replay.ingest import ingest
from offrl.replay.shards import Manifest
from offrl.spec import TaskSpec

SHARDS = ([make_episode(0, 3)], [make_episode(1, 2, terminated=False), make_episode(2, 1)])


def tree(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def refuse_to_read(*_):
    raise AssertionError("a shard was read again")


@pytest.mark.parametrize("save", [save_frames, save_stacked])
def test_a_second_ingest_opens_the_first_ones_store(tmp_path, monkeypatch, save):
    save(tmp_path, SHARDS, make_spec() if save is save_frames else 2)
    first = ingest(tmp_path)
    monkeypatch.setattr(ingest_module, "open_npz", refuse_to_read)
    monkeypatch.setattr(ingest_module, "file_sha256", refuse_to_read)
    second = ingest(tmp_path, progress=False)
    assert second.path == first.path
    assert second.path.parent == tmp_path / ".store"
    assert second.fingerprint == first.fingerprint


def test_changed_data_and_other_options_get_a_store_of_their_own(tmp_path):
    save_stacked(tmp_path, SHARDS, 2)
    first = ingest(tmp_path)
    with pytest.warns(UserWarning, match='pass dones="not_done"'):
        inverted = ingest(tmp_path, dones="not_done")
    save_stacked(tmp_path, (*SHARDS, [make_episode(9, 4)]), 2)
    changed = ingest(tmp_path)
    assert len({store.path for store in (first, inverted, changed)}) == 3
    assert len({store.fingerprint for store in (first, inverted, changed)}) == 3
    assert (len(first), len(changed)) == (6, 10)


def test_copied_data_has_the_same_fingerprint(tmp_path):
    for name in ("a", "b"):
        save_frames(tmp_path / name, SHARDS, make_spec())
    assert ingest(tmp_path / "a").fingerprint == ingest(tmp_path / "b").fingerprint


class Interrupted(BaseException):
    pass


def test_an_interrupted_ingest_leaves_nothing_and_the_next_one_succeeds(tmp_path, monkeypatch):
    save_frames(tmp_path, SHARDS, make_spec())
    before = tree(tmp_path)
    append = ingest_module.StoreWriter.append

    def append_then_stop(writer, *args):
        append(writer, *args)
        raise Interrupted

    monkeypatch.setattr(ingest_module.StoreWriter, "append", append_then_stop)
    with pytest.raises(Interrupted):
        ingest(tmp_path)
    monkeypatch.undo()
    assert tree(tmp_path) == before
    assert len(ingest(tmp_path)) == 6


def test_what_a_killed_ingest_left_is_built_anew(tmp_path):
    save_frames(tmp_path, SHARDS, make_spec())
    path = ingest(tmp_path).path
    partial = path.rename(f"{path}.partial")  # as a kill would leave it, just before the rename
    (partial / "store.json").unlink()
    assert len(ingest(tmp_path)) == 6
    assert not partial.exists()


def test_a_bad_last_shard_leaves_nothing(tmp_path):
    save_stacked(tmp_path, SHARDS, 2)
    (tmp_path / "zzz.npz").write_bytes(b"PK\x03\x04 cut short")
    before = tree(tmp_path)
    with pytest.raises(DatasetError, match=r"zzz\.npz: cannot be opened"):
        ingest(tmp_path)
    assert tree(tmp_path) == before


def test_a_full_disk_is_a_dataset_error_and_leaves_nothing(tmp_path, monkeypatch):
    save_frames(tmp_path, SHARDS, make_spec())
    before = tree(tmp_path)

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ingest_module.StoreWriter, "finish", no_space)
    with pytest.raises(DatasetError, match=r"cannot be written \(.*No space left.*\).*OFFRL_CACHE"):
        ingest(tmp_path)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("through", ["argument", "environment", "home"])
def test_a_store_goes_to_the_cache_where_the_data_cannot_be_written(tmp_path, monkeypatch, through):
    data, cache = tmp_path / "data", tmp_path / "cache"
    save_frames(data, SHARDS, make_spec())
    before = tree(data)
    monkeypatch.setattr(ingest_module.os, "access", lambda path, mode: data != path and data not in path.parents)
    monkeypatch.delenv("OFFRL_CACHE", raising=False)
    if through == "environment":
        monkeypatch.setenv("OFFRL_CACHE", str(cache))
    if through == "home":
        monkeypatch.setenv("HOME", str(tmp_path))
        cache = tmp_path / ".cache" / "offrl"
    arguments = {"cache": cache} if through == "argument" else {}
    first = ingest(data, **arguments)
    assert first.path.parent == cache
    assert tree(data) == before
    assert ingest(data, **arguments).path == first.path


def test_a_spec_is_read_off_stacked_data(tmp_path):
    rows = rows_of([make_episode(0, 3)], stack=2)
    for row, row_action in zip(rows, (0, 4, 1), strict=True):
        row.action = row_action
    np.savez(tmp_path / "log.npz", **stacked_members(rows))
    spec = ingest(tmp_path).spec
    assert spec == TaskSpec.pixels((2, 2, 3), ("action 0", "action 1", "action 2", "action 3", "action 4"))


def test_a_vector_spec_is_read_off_stacked_data(tmp_path):
    save_stacked(tmp_path, [[make_episode(0, 6, pixels=False)]], 1)
    spec = ingest(tmp_path).spec
    assert spec.observation_shape == (4,)
    assert spec.observation_dtype == "float32"


def test_a_given_spec_is_kept_for_stacked_data(tmp_path):
    save_stacked(tmp_path, SHARDS, 2)
    assert ingest(tmp_path, spec=make_spec()).spec == make_spec()


def test_frames_without_a_manifest_need_a_spec(tmp_path):
    save_frames(tmp_path, SHARDS, make_spec())
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(DatasetError, match=r"manifest\.json: no such file.*or pass spec="):
        ingest(tmp_path)
    assert len(ingest(tmp_path, spec=make_spec())) == 6


def test_dones_nearly_everywhere_are_warned_about_and_the_store_is_there(tmp_path):
    save_stacked(tmp_path, [[make_episode(i, 1) for i in range(4)]], 2)
    with pytest.warns(UserWarning, match="dones is true in 100% of the rows"):
        first = ingest(tmp_path)
    assert ingest(tmp_path).path == first.path


def test_pixels_of_another_normalisation_are_warned_about(tmp_path):
    members = stacked_members(rows_of([make_episode(0, 3)], stack=2))
    for name in ("states", "next_states"):
        members[name] = (members[name] / 127.5 - 1).astype(np.float32)
    np.savez(tmp_path / "log.npz", **members)
    with pytest.warns(UserWarning, match="gray levels off the uint8 kept"):
        report = ingest(tmp_path).report
    assert 0.3 < report.largest_rounding_error <= 1


def test_stacks_newest_first_are_warned_about(tmp_path):
    members = stacked_members(rows_of([make_episode(0, 6)], stack=2))
    for name in ("states", "next_states"):
        members[name] = members[name][:, ::-1]
    np.savez(tmp_path / "log.npz", **members)
    with pytest.warns(UserWarning, match="look newest first"):
        ingest(tmp_path)


def test_an_interrupted_collection_is_warned_about(tmp_path):
    save_frames(tmp_path, SHARDS, make_spec(), complete=False)
    with pytest.warns(UserWarning, match="the collection was interrupted"):
        assert len(ingest(tmp_path)) == 6


def test_missing_empty_and_wrong_directories_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"none: no such directory; expected a directory of \.npz shards"):
        ingest(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "._mac.npz").write_bytes(b"not a shard")
    with pytest.raises(DatasetError, match=r"empty: holds no shards; expected \*\.npz files"):
        ingest(tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="file: is not a directory"):
        ingest(tmp_path / "file")
    Manifest(make_spec(), (), {}, {}).save(tmp_path / "listed")
    with pytest.raises(DatasetError, match="listed: holds no shards"):
        ingest(tmp_path / "listed")


def test_shards_without_rows_are_named(tmp_path):
    members = stacked_members(rows_of([make_episode(0)], stack=2))
    np.savez(tmp_path / "log.npz", **{name: array[:0] for name, array in members.items()})
    with pytest.raises(DatasetError, match="the shards hold no transitions"):
        ingest(tmp_path)


def test_shards_that_are_not_the_manifests_are_named(tmp_path):
    save_frames(tmp_path, SHARDS, make_spec())
    last = tmp_path / "shard-001.npz"
    content = last.read_bytes()
    last.write_bytes(content[:-1])
    with pytest.raises(DatasetError, match=r"shard-001\.npz: sha256 is .*as manifest\.json says"):
        ingest(tmp_path)
    last.unlink()
    with pytest.raises(DatasetError, match=r"shard-001\.npz: cannot be read \(No such file"):
        ingest(tmp_path)
    last.write_bytes(content)
    assert len(ingest(tmp_path)) == 6


def test_mixed_layouts_and_shapes_are_named(tmp_path):
    save_stacked(tmp_path, [SHARDS[0]], 2)
    save_stacked(tmp_path / "other", [SHARDS[0]], 3)
    (tmp_path / "other" / "shard-000.npz").rename(tmp_path / "z.npz")
    with pytest.raises(DatasetError, match=r"z\.npz: states is uint8 \[3, 3, 2, 3\]; expected \[3, 2, 2, 3\]"):
        ingest(tmp_path)
    save_frames(tmp_path / "other", [SHARDS[0]], make_spec())
    (tmp_path / "other" / "shard-000.npz").rename(tmp_path / "z.npz")
    with pytest.raises(DatasetError, match=r"z\.npz: is in the frames layout; expected stacked"):
        ingest(tmp_path)


@pytest.mark.parametrize("option", ["dones", "tier"])
def test_unknown_options_are_refused_before_the_work(tmp_path, option):
    with pytest.raises(ConfigError, match=f"{option}: 'maybe'; expected one of"):
        ingest(tmp_path / "none", **{option: "maybe"})
