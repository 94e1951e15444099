import json
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from naive_replay import make_episode, make_spec, rows_of, save_frames, save_stacked, stacked_members

from offrl import TaskSpec
from offrl.errors import ConfigError, DatasetError
from offrl.replay import _build as build_module
from offrl.replay import ingest
from offrl.replay import ingestion as ingest_module
from offrl.shards import Manifest, ShardRecord
from offrl.shards.manifest import file_sha256
from offrl.system.locks import locked

SHARDS = ([make_episode(0, 3)], [make_episode(1, 2, terminated=False), make_episode(2, 1)])


def tree(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def refuse_to_read(*_):
    raise AssertionError("a shard was read again")


@pytest.mark.parametrize("save", [save_frames, save_stacked])
def test_a_second_ingest_opens_the_first_ones_store(tmp_path, monkeypatch, save):
    save(tmp_path, SHARDS, make_spec() if save is save_frames else 2)
    first = ingest(tmp_path)
    monkeypatch.setattr(build_module, "open_npz", refuse_to_read)
    monkeypatch.setattr(build_module, "file_sha256", refuse_to_read)
    (tmp_path / ".store" / "lock").touch()  # by a process that was killed
    second = ingest(tmp_path, progress=False)
    assert second.path == first.path
    assert [*first.path.parent.iterdir()] == [first.path]
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


@pytest.mark.filterwarnings("ignore")  # of the other reading of dones
def test_the_store_of_what_a_dataset_was_before_is_removed(tmp_path):
    save_stacked(tmp_path, FIVE[:2], 2)
    old, of_other_dones = ingest(tmp_path), ingest(tmp_path, dones="not_done")
    frames = old.observations(np.arange(len(old)))
    save_stacked(tmp_path, FIVE[:3], 2)
    new = ingest(tmp_path)
    assert {path.name for path in (tmp_path / ".store").iterdir() if path.is_dir()} == {new.path.name}
    assert not of_other_dones.path.exists()
    np.testing.assert_array_equal(old.observations(np.arange(len(old))), frames)  # who has it open reads on
    again = ingest(tmp_path, dones="not_done")
    assert again.path.exists()
    assert new.path.exists()  # of the same shards


class Interrupted(BaseException):
    pass


FIVE = tuple([make_episode(seed, 1 + seed)] for seed in range(5))


def interrupt(directory, monkeypatch, num_shards, **options):
    """An ingest that stops as by ctrl-C: so many shards are recorded as done, and one more is half done."""
    append = build_module.StoreWriter.append
    kept = []

    def append_then_stop(writer, *args):
        append(writer, *args)
        kept.append(None)
        if len(kept) > num_shards:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "_SAVE_BYTES", 1)
        patch.setattr(build_module.StoreWriter, "append", append_then_stop)
        with pytest.raises(Interrupted):
            ingest(directory, **options)


def shards_read(monkeypatch, directory, **options):
    """The shards that an ingest opens, and its store."""
    names, open_npz = [], build_module.open_npz

    def noted(path):
        names.append(path.name)
        return open_npz(path)

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "open_npz", noted)
        store = ingest(directory, **options)
    return sorted(names), store


def same_files(one, other):
    return [path.read_bytes() for path in sorted(one.iterdir())] == [
        path.read_bytes() for path in sorted(other.iterdir())
    ]


@pytest.mark.parametrize(("free", "most"), [(1, 1), (2**50, 3)])
def test_shards_that_are_held_at_once_keep_to_the_free_memory(tmp_path, monkeypatch, free, most):
    save_frames(tmp_path, FIVE, make_spec())
    held, waiting = [0], []
    read = build_module._read

    def noted(*args):
        held[0] += 1
        return read(*args)

    append = build_module.StoreWriter.append

    def appended(writer, *args):
        time.sleep(0.05)  # so that others are read meanwhile
        waiting.append(held[0])
        held[0] -= 1
        append(writer, *args)

    monkeypatch.setattr(build_module, "num_cores", lambda: 2)
    monkeypatch.setattr(build_module, "available_memory", lambda: free)
    monkeypatch.setattr(build_module, "_read", noted)
    monkeypatch.setattr(build_module.StoreWriter, "append", appended)
    ingest(tmp_path)
    assert max(waiting) == most if most == 1 else 1 < max(waiting) <= most


@pytest.mark.parametrize("save", [save_frames, save_stacked])
def test_an_interrupted_ingest_goes_on_and_its_store_is_the_same(tmp_path, monkeypatch, save):
    for name in ("whole", "cut"):
        save(tmp_path / name, FIVE, make_spec() if save is save_frames else 2)
    interrupt(tmp_path / "cut", monkeypatch, 3)
    assert not list((tmp_path / "cut").rglob("store.json"))
    names, store = shards_read(monkeypatch, tmp_path / "cut")
    assert names == ["shard-003.npz", "shard-004.npz"]  # the fourth was kept, but not yet recorded
    assert same_files(store.path, ingest(tmp_path / "whole").path)
    assert [path.name for path in store.path.parent.iterdir() if path.is_dir()] == [store.path.name]


@pytest.mark.parametrize("damage", ["array", "record"])
def test_what_an_interruption_left_damaged_is_built_anew(tmp_path, monkeypatch, damage):
    save_frames(tmp_path, FIVE, make_spec())
    interrupt(tmp_path, monkeypatch, 3)
    (partial,) = (tmp_path / ".store").glob("*.partial")
    (partial / "frames.npy" if damage == "array" else partial / "progress.json").write_bytes(b"{")
    names, store = shards_read(monkeypatch, tmp_path)
    assert len(names) == 5
    assert len(store) == 15


@pytest.mark.parametrize("name", ["frames.npy", "frames.blocks.npy", "actions.npy"])
def test_what_an_interruption_left_changed_is_built_anew(tmp_path, monkeypatch, name):
    for folder in ("whole", "cut"):
        save_frames(tmp_path / folder, FIVE, make_spec())
    interrupt(tmp_path / "cut", monkeypatch, 3)
    (partial,) = (tmp_path / "cut" / ".store").glob("*.partial")
    content = bytearray((partial / name).read_bytes())
    if len(content) == 128:  # one block that is not full: its digest is in progress.json
        name, content = "progress.json", bytearray((partial / "progress.json").read_bytes())
    content[130] ^= 1  # of the first row, behind the header
    (partial / name).write_bytes(content)
    names, store = shards_read(monkeypatch, tmp_path / "cut")
    assert len(names) == 5
    assert same_files(store.path, ingest(tmp_path / "whole").path)


def test_a_store_of_version_3_is_used_as_it_is(tmp_path):
    made = Path(__file__).parent.parent / "compatibility" / "made_by_caac73b" / "pixels"
    shutil.copytree(made, tmp_path / "pixels")
    before = tree(tmp_path)
    store = ingest(tmp_path / "pixels", tier="mmap")
    assert json.loads((store.path / "store.json").read_text())["format_version"] == 3
    assert set(tree(tmp_path)) <= set(before)
    content = bytearray((store.path / "frames.npy").read_bytes())
    content[-1] ^= 1
    (store.path / "frames.npy").write_bytes(content)
    assert (ingest(tmp_path / "pixels").frames == store.frames).all()  # unnoticed: it has no hashes of its frames
    shutil.rmtree(store.path)
    again = ingest(tmp_path / "pixels", tier="ram")
    assert json.loads((again.path / "store.json").read_text())["format_version"] == 4
    assert (again.actions == store.actions).all()


def test_bad_shards_are_set_aside_counted_and_named(tmp_path):
    save_stacked(tmp_path, FIVE, 2)
    (tmp_path / "shard-000.npz").write_bytes(b"PK\x03\x04 cut short")
    content = (tmp_path / "shard-003.npz").read_bytes()
    (tmp_path / "shard-003.npz").write_bytes(content[:-30])
    with pytest.warns(
        UserWarning, match=r"2 damaged shard\(s\) set aside: .*shard-000\.npz: cannot be opened.*shard-003"
    ):
        store = ingest(tmp_path, skip_bad_shards=True)
    assert len(store) == 2 + 3 + 5
    assert store.report.num_shards == 3
    assert [name for name, _ in store.report.skipped] == ["shard-000.npz", "shard-003.npz"]
    assert ingest(tmp_path, skip_bad_shards=True).path == store.path  # not built again


def test_a_store_that_lacks_shards_is_only_for_who_asks_for_it(tmp_path):
    save_frames(tmp_path, FIVE, make_spec())
    content = (tmp_path / "shard-002.npz").read_bytes()
    (tmp_path / "shard-002.npz").write_bytes(content[:-1])
    with pytest.warns(UserWarning, match="set aside"):
        lacking = ingest(tmp_path, skip_bad_shards=True)
    assert len(lacking) == 12
    with pytest.raises(DatasetError, match=r"shard-002\.npz: sha256"):
        ingest(tmp_path)
    (tmp_path / "shard-002.npz").write_bytes(content)
    assert len(ingest(tmp_path)) == 15


def test_a_shard_that_was_set_aside_is_read_once_it_is_whole_again(tmp_path):
    save_frames(tmp_path, SHARDS, make_spec())
    path = tmp_path / "shard-001.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.warns(UserWarning, match="set aside"):
        assert len(ingest(tmp_path, skip_bad_shards=True)) == 3
    assert len(ingest(tmp_path, skip_bad_shards=True)) == 3  # and not warned about again
    path.write_bytes(whole)
    assert len(ingest(tmp_path, skip_bad_shards=True)) == 6


def test_nothing_but_bad_shards_is_an_error(tmp_path):
    save_stacked(tmp_path, FIVE, 2)
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(b"PK")
    with pytest.raises(DatasetError, match="the shards hold no transitions"):
        ingest(tmp_path, skip_bad_shards=True)
    assert not list(tmp_path.rglob("*.partial"))


def test_what_was_set_aside_before_an_interruption_is_looked_at_again(tmp_path, monkeypatch):
    save_stacked(tmp_path, FIVE, 2)
    (tmp_path / "shard-000.npz").write_bytes(b"PK")
    interrupt(tmp_path, monkeypatch, 2, skip_bad_shards=True)
    with pytest.raises(DatasetError, match=r"shard-000\.npz: cannot be opened"):
        ingest(tmp_path)


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

    monkeypatch.setattr(build_module.StoreWriter, "finish", no_space)
    with pytest.raises(DatasetError, match=r"cannot be written \(.*No space left.*\).*OFFRL_CACHE"):
        ingest(tmp_path)
    assert tree(tmp_path) == before


def test_the_second_of_two_waits_and_opens_what_the_first_made(tmp_path, monkeypatch):
    save_frames(tmp_path, SHARDS, make_spec())
    found = []
    with locked(tmp_path / ".store" / "lock"):
        second = threading.Thread(target=lambda: found.append(ingest(tmp_path, progress=False)))
        second.start()
        second.join(0.2)
        assert found == []
    second.join()
    assert tree(tmp_path / ".store") == tree_of_a_store(found[0].path)


def tree_of_a_store(path):
    return sorted([path.name, *(f"{path.name}/{file.name}" for file in path.iterdir())])


_KILLED = """
import os, sys
from offrl.replay import _build, ingest
def kill(*args):
    os.kill(os.getpid(), 9)
_build._SAVE_BYTES = 1
if sys.argv[2] == "finish":
    _build.StoreWriter.finish = kill
else:
    _build.sync = kill
ingest(sys.argv[1], progress=False)
"""


@pytest.mark.parametrize("where", ["finish", "sync"])
def test_a_killed_ingest_goes_on_to_the_same_store(tmp_path, where):
    for name in ("whole", "killed"):
        save_frames(tmp_path / name, FIVE, make_spec())
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "killed"), where], check=False)
    assert killed.returncode == -9
    store = ingest(tmp_path / "killed", progress=False)
    assert same_files(store.path, ingest(tmp_path / "whole", progress=False).path)
    assert tree(tmp_path / "killed" / ".store") == tree_of_a_store(store.path)


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


@pytest.mark.filterwarnings("error")
def test_gray_that_was_not_rounded_is_kept_without_a_warning(tmp_path):
    """What course loggers write: (0.299 R + 0.587 G + 0.114 B) / 128 - 1."""
    rgb = np.random.default_rng(0).integers(256, size=(4, 2, 2, 3, 3))
    stacks = (rgb @ np.array([0.299, 0.587, 0.114]) / 128 - 1).astype(np.float32)
    zeros = np.zeros(3, np.int64)
    np.savez(tmp_path / "log.npz", states=stacks[:3], next_states=stacks[1:], actions=zeros, rewards=zeros, dones=zeros)
    store = ingest(tmp_path)
    assert 0.3 < store.report.largest_rounding_error <= 0.5
    assert np.abs(store.observations(np.arange(3)) - (stacks[:3] + 1) * 128).max() <= 0.5


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
    with pytest.raises(DatasetError, match="file: is a file; expected a directory of .npz shards; check the path"):
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


@pytest.mark.parametrize("save", [save_frames, save_stacked])
@pytest.mark.parametrize("name", ["store.json", "frames.npy", "rewards.npy"])
def test_a_damaged_store_is_made_again(tmp_path, save, name):
    save(tmp_path, SHARDS, make_spec() if save is save_frames else 2)
    whole = ingest(tmp_path)
    files = {path.name: path.read_bytes() for path in whole.path.iterdir()}
    (whole.path / name).write_bytes(files[name][:-2])
    again = ingest(tmp_path, progress=False)
    assert {path.name: path.read_bytes() for path in again.path.iterdir()} == files


@pytest.mark.parametrize(
    ("save", "change", "message"),
    [
        (save_frames, {"num_transitions": 4}, "num_transitions is 3; expected 4, as manifest.json says"),
        (save_frames, {"num_episodes": 2}, "num_episodes is 1; expected 2, as"),
        (save_frames, {"num_frames": 5}, "num_frames is 4; expected 5, as"),
        (save_frames, {"layout": "stacked"}, "layout is frames; expected stacked, as"),
        (save_stacked, {"num_transitions": 4}, "num_transitions is 3; expected 4, as"),
        (save_stacked, {"num_frames": 4}, "num_frames is 12; expected 4, as"),
        (save_stacked, {"layout": "frames"}, "layout is stacked; expected frames, as"),
    ],
)
def test_a_manifest_that_contradicts_a_shard_is_refused(tmp_path, save, change, message):
    save(tmp_path, SHARDS[:1], make_spec() if save is save_frames else 2)
    path = tmp_path / "shard-000.npz"
    counts = {"num_transitions": 3, "num_episodes": 1, "num_frames": 4 if save is save_frames else 12}
    facts = {**counts, "layout": "frames" if save is save_frames else "stacked"} | change
    layout = facts.pop("layout")
    record = ShardRecord(path.name, file_sha256(path), **facts)
    Manifest(make_spec(), (record,), {}, {}, layout=layout).save(tmp_path)
    with pytest.raises(DatasetError, match=rf"shard-000\.npz: {message}.*; the manifest was changed"):
        ingest(tmp_path)


def test_shards_beside_a_manifest_that_does_not_name_them_are_warned_about(tmp_path):
    save_frames(tmp_path, SHARDS, make_spec())
    manifest = Manifest.load(tmp_path)
    replace(manifest, shards=manifest.shards[:1]).save(tmp_path)
    with pytest.warns(UserWarning, match="does not name shard-001.npz, which is not read"):
        assert len(ingest(tmp_path)) == 3


def test_a_link_to_nowhere_is_a_bad_shard(tmp_path):
    save_stacked(tmp_path, SHARDS, 2)
    (tmp_path / "shard-002.npz").symlink_to(tmp_path / "gone.npz")
    with pytest.raises(DatasetError, match=r"shard-002\.npz: cannot be read \(No such file or directory\)"):
        ingest(tmp_path)
    with pytest.warns(UserWarning, match=r"1 damaged shard\(s\) set aside"):
        assert len(ingest(tmp_path, skip_bad_shards=True)) == 6


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
