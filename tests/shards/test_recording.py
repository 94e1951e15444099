import dataclasses
import errno

import pytest
from naive_replay import make_episode, make_spec

from offrl.errors import DatasetError
from offrl.shards import Manifest
from offrl.shards._journal import JOURNAL_NAME, append_line
from offrl.shards._recording import Recording
from offrl.shards.episode import shard_path

PLAN = Manifest(make_spec(), (), {"id": "A", "versions": {"numpy": "1"}}, {"name": "test", "seed": 0}, complete=False)


def written(directory, num_shards):
    recording = Recording.extend(directory, PLAN)
    recording.begin()
    for seed in range(num_shards):
        recording.write([make_episode(seed)])
    return recording


def test_a_shard_counts_once_the_manifest_names_it(tmp_path):
    recording = Recording.resume(tmp_path, PLAN)
    assert recording.manifest == PLAN
    recording.begin()
    assert Manifest.load(tmp_path) == PLAN
    record = recording.write([make_episode(0), make_episode(1)])
    assert record.name == shard_path(tmp_path, 0).name == "shard-00000.npz"
    assert Manifest.load(tmp_path) == recording.manifest
    assert recording.manifest.shards == (record,)
    assert not recording.manifest.complete
    assert recording.complete() == Manifest.load(tmp_path)
    assert recording.manifest.complete


def test_the_manifest_is_written_at_the_beginning_and_the_end_only(tmp_path, monkeypatch):
    save, saved = Manifest.save, []

    def count(manifest, directory):
        saved.append(len(manifest.shards))
        save(manifest, directory)

    monkeypatch.setattr(Manifest, "save", count)
    written(tmp_path, 5).complete()
    assert saved == [0, 5]
    assert (tmp_path / "manifest.json").exists()
    assert not (tmp_path / JOURNAL_NAME).exists()


def test_a_process_that_was_killed_leaves_all_its_shards(tmp_path):
    killed = written(tmp_path / "killed", 3)  # neither folded nor completed
    whole = written(tmp_path / "whole", 4)
    whole.complete()
    assert Manifest.load(tmp_path / "killed") == killed.manifest
    recording = Recording.resume(tmp_path / "killed", PLAN)
    assert len(recording) == 3
    recording.write([make_episode(3)])
    assert Manifest.load(tmp_path / "killed").shards == recording.manifest.shards
    recording.complete()
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes()


def test_a_killed_process_may_leave_the_journal_beside_the_manifest_that_has_it_all(tmp_path):
    written(tmp_path, 3)
    journal = (tmp_path / JOURNAL_NAME).read_bytes()
    for complete in (False, True):
        recording = Recording.resume(tmp_path, PLAN)
        recording.complete() if complete else recording.fold()
        if not complete:
            recording.begin()
        (tmp_path / JOURNAL_NAME).write_bytes(journal)
        (tmp_path / ".lock").touch()
        assert len(Manifest.load(tmp_path).shards) == 3
    assert Recording.completed(tmp_path, PLAN) == Manifest.load(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", *(f"shard-0000{i}.npz" for i in range(3))}


@pytest.mark.parametrize("damage", ["cut short", "changed", "another dataset's", "repeated"])
def test_lines_of_the_journal_count_up_to_the_first_that_is_not_whole(tmp_path, damage):
    shards = written(tmp_path, 3).manifest.shards
    path = tmp_path / JOURNAL_NAME
    lines = path.read_bytes().splitlines(keepends=True)
    if damage == "another dataset's":
        other = dataclasses.replace(PLAN, generator={"name": "test", "seed": 1})
        append_line(tmp_path, other.identity(), 3, dataclasses.asdict(shards[2]))
        assert Manifest.load(tmp_path).shards == shards
        return
    lines[1] = {
        "cut short": lines[1][:-1],
        "changed": lines[1].replace(b'"num_episodes": 1', b'"num_episodes": 2'),
        "repeated": lines[0],
    }[damage]
    path.write_bytes(b"".join(lines))
    assert Manifest.load(tmp_path).shards == shards[:1]
    assert Recording.resume(tmp_path, PLAN).manifest.shards == shards[:1]


def test_a_line_that_cannot_be_written_leaves_none_behind(tmp_path, monkeypatch):
    recording = written(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space")))
        with pytest.raises(DatasetError, match=r"cannot be written \(no space\)"):
            recording.add(recording.manifest.shards[0])
    assert len(recording) == 1
    recording.write([make_episode(1)])
    assert Manifest.load(tmp_path) == recording.manifest


def test_a_journal_that_is_no_file_is_refused(tmp_path):
    written(tmp_path, 1).fold()
    (tmp_path / JOURNAL_NAME).mkdir()
    with pytest.raises(DatasetError, match=r"\.manifest\.journal: cannot be read"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_who_can_make_shards_again_gets_those_before_the_damaged_one(tmp_path, damage):
    shards = written(tmp_path, 3).manifest.shards
    path = tmp_path / shards[1].name
    path.unlink() if damage == "missing" else path.write_bytes(b"other")
    assert Recording.resume(tmp_path, PLAN).manifest.shards == shards[:1]
    with pytest.raises(DatasetError, match=r"shard-00001.npz: is missing or damaged; .*; restore it"):
        Recording.extend(tmp_path, PLAN)


def test_who_adds_gets_all_shards_and_names_the_next_one(tmp_path):
    shards = written(tmp_path, 2).manifest.shards
    recording = Recording.extend(tmp_path, PLAN)
    assert recording.manifest.shards == shards
    assert recording.write([make_episode(5)]).name == "shard-00002.npz"


def test_other_versions_matter_only_to_one_who_makes_the_same_bytes(tmp_path):
    written(tmp_path, 1)
    newer = dataclasses.replace(PLAN, environment={"id": "A", "versions": {"numpy": "2"}})
    with pytest.raises(DatasetError, match="environment.versions"):
        Recording.resume(tmp_path, newer)
    assert len(Recording.extend(tmp_path, newer).manifest.shards) == 1
    Recording.extend(tmp_path, PLAN).complete()
    assert Recording.resume(tmp_path, newer).manifest.complete


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spec": make_spec(4)}, r"spec.observation_shape is \(2, 2, 3\); expected \(4, 2, 3\); use another directory"),
        ({"environment": {"id": "B", "versions": {"numpy": "1"}}}, "environment.id is 'A'; expected 'B'"),
        ({"generator": {"name": "test", "seed": 1}}, "generator.seed is 0; expected 1"),
        ({"generator": {"name": "test", "seed": 0, "more": 1}}, "generator.more is None; expected 1"),
    ],
)
def test_another_dataset_is_left_alone(tmp_path, changes, message):
    written(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for way in (Recording.resume, Recording.extend):
        with pytest.raises(DatasetError, match=message):
            way(tmp_path, dataclasses.replace(PLAN, **changes))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_without_a_manifest_are_left_alone(tmp_path):
    (tmp_path / "mine.npz").write_bytes(b"precious")
    for way in (Recording.resume, Recording.extend):
        with pytest.raises(DatasetError, match="holds .npz files without a manifest"):
            way(tmp_path, PLAN)


def test_shards_that_were_made_ahead_are_removed(tmp_path):
    recording = written(tmp_path, 1)
    shard_path(tmp_path, 1).write_bytes(b"ahead")
    (tmp_path / "notes.txt").touch()
    recording.fold()
    recording.remove_strays()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "notes.txt", "shard-00000.npz"]
