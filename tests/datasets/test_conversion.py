import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from episode_checks import assert_same_episodes
from naive_replay import make_episode, make_spec, rows_of, save_frames, save_stacked, stacked_members

from offrl.datasets import Conversion, convert
from offrl.datasets import conversion as convert_module
from offrl.datasets._episodes import episodes
from offrl.errors import ConfigError, DatasetError, InUseError, SpecMismatchError
from offrl.replay import ingest
from offrl.shards import Manifest
from offrl.shards import episode as episode_module
from offrl.shards.arrays import require_directory
from offrl.system.locks import locked

EPISODES = [make_episode(0, 3), make_episode(1, 2, terminated=False), make_episode(2, 1), make_episode(3, 4, leading=1)]
SPEC = make_spec(2)


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def frames(tmp_path):
    save_frames(tmp_path / "frames", [EPISODES[:2], EPISODES[2:]], SPEC)
    return tmp_path / "frames"


@pytest.fixture
def stacked(tmp_path):
    save_stacked(tmp_path / "stacked", [EPISODES], stack=2)
    return tmp_path / "stacked"


def test_stacked_to_frames_stores_shared_frames_once(stacked, tmp_path):
    found = convert(stacked, tmp_path / "new", "frames")
    assert_same_episodes(episodes(ingest(tmp_path / "new")), EPISODES)
    assert (found.source_format, found.target_format) == ("stacked", "frames")
    assert (found.num_transitions, found.num_episodes) == (10, 4)
    assert (found.frames_before, found.frames_after) == (10 * 2 * 2, 4 + 3 + 2 + 6)
    assert found.bytes_before == (stacked / "shard-000.npz").stat().st_size
    assert found.bytes_after == sum(path.stat().st_size for path in (tmp_path / "new").glob("[!.]*") if path.is_file())
    assert found.notes == ()


def test_frames_to_stacked_and_back(frames, tmp_path):
    found = convert(frames, tmp_path / "rows", "stacked")
    assert (found.frames_before, found.frames_after) == (15, 40)
    with np.load(tmp_path / "rows" / "shard-00000.npz", allow_pickle=False) as members:
        for name, expected in stacked_members(rows_of(EPISODES, 2)).items():
            np.testing.assert_array_equal(members[name], expected, err_msg=name)
    convert(tmp_path / "rows", tmp_path / "back", "frames")
    assert_same_episodes(episodes(ingest(tmp_path / "back")), EPISODES)
    assert ingest(tmp_path / "back").spec == SPEC


def test_the_manifest_says_what_the_source_said_and_where_it_came_from(frames, tmp_path):
    convert(frames, tmp_path / "rows", "stacked")
    manifest = Manifest.load(tmp_path / "rows")
    assert (manifest.layout, manifest.complete, manifest.spec) == ("stacked", True, SPEC)
    assert manifest.environment == {"id": "test"}
    origin = {"format": "frames", "path": str(frames)}
    assert manifest.generator == {"name": "test", "converted_from": origin}
    assert manifest.num_transitions == 10


def test_what_a_protocol_compares_with_is_kept(frames, tmp_path):
    protocol = {"kind": "mixed", "random_return": 1.5, "best_return": 9.0, "num_pairs": 12}
    replace(Manifest.load(frames), protocol=protocol).save(frames)
    convert(frames, tmp_path / "rows", "stacked")
    convert(tmp_path / "rows", tmp_path / "back", "frames")
    assert Manifest.load(tmp_path / "back").protocol == protocol


def test_the_environment_is_noted_where_the_source_has_none(stacked, frames, tmp_path):
    for source, expected in ((stacked, "Toy-v0"), (frames, "test")):
        convert(source, tmp_path / f"new-{expected}", "frames", environment={"id": "Toy-v0"})
        assert Manifest.load(tmp_path / f"new-{expected}").environment == {"id": expected}


def test_a_target_inside_the_source_is_not_counted_with_it(stacked):
    size = sum(path.stat().st_size for path in stacked.iterdir())
    assert convert(stacked, stacked / "frames", "frames", progress=False).bytes_before == size


@pytest.mark.parametrize(("shard_bytes", "episodes_in"), [(2**20, [4]), (7 * 6, [2, 1, 1]), (1, [1, 1, 1, 1])])
def test_shards_are_bounded_and_episodes_whole(frames, tmp_path, shard_bytes, episodes_in):
    convert(frames, tmp_path / "new", "frames", shard_bytes=shard_bytes)
    manifest = Manifest.load(tmp_path / "new")
    assert [shard.num_episodes for shard in manifest.shards] == episodes_in
    assert_same_episodes(episodes(ingest(tmp_path / "new")), EPISODES)


@pytest.mark.parametrize("to", ["frames", "stacked"])
@pytest.mark.parametrize(("compress", "method"), [(True, zipfile.ZIP_DEFLATED), (False, zipfile.ZIP_STORED)])
def test_compression_is_a_choice(frames, tmp_path, to, compress, method):
    convert(frames, tmp_path / "new", to, compress=compress)
    with zipfile.ZipFile(tmp_path / "new" / "shard-00000.npz") as archive:
        assert {member.compress_type for member in archive.infolist()} == {method}


def test_what_the_target_cannot_hold_is_noted(tmp_path):
    known = make_episode(0, 3, behaviour_probability=np.full(3, 0.5, np.float32))
    save_frames(tmp_path / "frames", [[known]], SPEC)
    found = convert(tmp_path / "frames", tmp_path / "rows", "stacked")
    assert found.notes == ("behaviour_probability has no place in the format stacked and is left out",)
    rows = rows_of([make_episode(0, 3)], 2)
    rows[-1].next_observation = rows[-1].next_observation + 1
    (tmp_path / "log").mkdir()
    np.savez(tmp_path / "log" / "a.npz", **stacked_members(rows))
    assert convert(tmp_path / "log", tmp_path / "a", "stacked").notes == ()
    (note,) = convert(tmp_path / "log", tmp_path / "b", "frames").notes
    assert note.startswith("1 terminated transition(s) lead to a stack that does not continue theirs")


@pytest.mark.parametrize("to", ["minari", "d3rlpy"])
def test_to_another_format_and_back(frames, tmp_path, to):
    pytest.importorskip({"minari": "minari", "d3rlpy": "h5py"}[to])
    there = convert(frames, tmp_path / "there-v0", to)
    assert (there.num_transitions, there.num_episodes) == (10, 4)
    assert names_in(tmp_path) == ["frames", "there-v0"]
    back = convert(tmp_path / "there-v0", tmp_path / "back", "frames")
    assert (back.source_format, back.num_episodes) == (to, 4)
    assert back.bytes_before == there.bytes_after > 0
    store = ingest(tmp_path / "back")
    assert store.spec == SPEC
    assert Manifest.load(tmp_path / "back").environment == {"id": "test"}
    if to == "minari":
        assert_same_episodes(episodes(store), EPISODES)
    else:  # the step of episode 1 that was cut has nothing to lead to
        assert store.actions.tolist() == [a for e in EPISODES for a in (e.actions if e.terminated else e.actions[:-1])]
        assert [note[:40] for note in there.notes + back.notes] == [
            "d3rlpy holds no last observation: in 1 e",
            "1 episode(s) begin in mid-episode: their",
            "1 episode(s) that did not terminate lost",
            "what the last step of 3 terminated episo",
        ]


def test_other_formats_become_frames_first(frames, tmp_path):
    pytest.importorskip("minari")
    convert(frames, tmp_path / "there-v0", "minari")
    with pytest.raises(ConfigError, match="from minari to stacked; expected frames; convert to frames first"):
        convert(tmp_path / "there-v0", tmp_path / "new", "stacked")
    (tmp_path / "log.h5").touch()
    with pytest.raises(ConfigError, match="from d3rlpy to d3rlpy"):
        convert(tmp_path / "log.h5", tmp_path / "new", "d3rlpy")


@pytest.mark.parametrize("to", ["frames", "stacked", "minari", "d3rlpy"])
def test_nothing_is_overwritten(frames, tmp_path, to):
    (tmp_path / "empty-v0").mkdir()
    (tmp_path / "file-v0").write_text("mine")
    (tmp_path / "link-v0").symlink_to(tmp_path / "nowhere")
    for name in ("frames", "empty-v0", "file-v0", "link-v0"):
        with pytest.raises(DatasetError, match=f"{name}: exists already; expected a new path"):
            convert(frames, tmp_path / name, to)
    assert (tmp_path / "file-v0").read_text() == "mine"


def test_the_second_of_two_into_one_target_is_told_who_has_it(frames, tmp_path):
    with locked(tmp_path / ".new.lock"), pytest.raises(InUseError, match=r"new: is in use by process \d+ of"):
        convert(frames, tmp_path / "new", "stacked")
    convert(frames, tmp_path / "new", "stacked")
    assert names_in(tmp_path) == ["frames", "new"]


def test_what_a_killed_call_left_beside_a_whole_target_goes(frames, tmp_path):
    convert(frames, tmp_path / "new", "stacked")
    (tmp_path / ".new.lock").touch()
    (tmp_path / ".new.0123456789ab.partial").mkdir()
    with pytest.raises(DatasetError, match="new: exists already"):
        convert(frames, tmp_path / "new", "stacked")
    assert names_in(tmp_path) == ["frames", "new"]


def test_a_target_that_appeared_meanwhile_is_left_alone(frames, tmp_path, monkeypatch):
    pytest.importorskip("h5py")
    lock = convert_module.locked

    def taken(path, **settings):
        (tmp_path / "new.h5").write_text("mine")
        return lock(path, **settings)

    monkeypatch.setattr(convert_module, "locked", taken)
    with pytest.raises(DatasetError, match=r"new\.h5"):
        convert(frames, tmp_path / "new.h5", "d3rlpy")
    assert (tmp_path / "new.h5").read_text() == "mine"


_KILLED = """
import os, sys
from offrl.datasets import conversion
def kill(*args, **settings):
    os.kill(os.getpid(), 9)
conversion.Manifest.save = kill
conversion.convert(sys.argv[1], sys.argv[2], "stacked", progress=False)
"""


def test_a_killed_conversion_can_be_repeated_and_its_litter_goes(frames, tmp_path):
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(frames), str(tmp_path / "new")], check=False)
    assert killed.returncode == -9
    assert len(names_in(tmp_path)) == 3  # the lock and what was written
    convert(frames, tmp_path / "new", "stacked", progress=False)
    assert names_in(tmp_path) == ["frames", "new"]
    assert len(ingest(tmp_path / "new")) == len(ingest(frames))


def test_a_full_disk_is_one_line_and_leaves_nothing(frames, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(convert_module, "write_stacked_shard", full)
        with pytest.raises(DatasetError, match=r"new: cannot be written \(.*No space left.*; free some space"):
            convert(frames, tmp_path / "new", "stacked")
    assert names_in(tmp_path) == ["frames"]
    convert(frames, tmp_path / "new", "stacked")


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize(
    ("to", "writer"),
    [("frames", "write_next_shard"), ("stacked", "write_stacked_shard"), ("minari", None), ("d3rlpy", None)],
)
def test_an_interrupted_conversion_leaves_nothing(frames, tmp_path, monkeypatch, to, writer):
    if writer is None:
        pytest.importorskip({"minari": "minari", "d3rlpy": "h5py"}[to])

        def two_then_stop(store):
            yield from EPISODES[:2]
            raise Interrupted

        monkeypatch.setattr(convert_module, "episodes", two_then_stop)
    else:
        module = episode_module if writer == "write_next_shard" else convert_module
        write, written = getattr(module, writer), []

        def one_then_stop(path, *args, **settings):
            if written:
                raise Interrupted
            written.append(path)
            return write(path, *args, **settings)

        monkeypatch.setattr(module, writer, one_then_stop)
    with pytest.raises(Interrupted):
        convert(frames, tmp_path / "new-v0", to, shard_bytes=1)
    assert names_in(tmp_path) == ["frames"]


def test_what_frames_cannot_hold_leaves_nothing(tmp_path):
    rows = rows_of([make_episode(0, 3, terminated=False)], 2)
    rows[0].next_observation = rows[0].next_observation + 1
    (tmp_path / "log").mkdir()
    np.savez(tmp_path / "log" / "a.npz", **stacked_members(rows))
    with pytest.raises(DatasetError, match="keep the stacked layout, or drop these rows"):
        convert(tmp_path / "log", tmp_path / "new", "frames")
    assert names_in(tmp_path) == ["log"]


def test_a_disk_that_is_full_is_named(frames, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(episode_module, "write_next_shard", full)
    with pytest.raises(DatasetError, match=r"new: cannot be written \(.*No space left.*\); expected room for it"):
        convert(frames, tmp_path / "new", "frames")
    assert names_in(tmp_path) == ["frames"]


def test_settings_are_checked(frames, tmp_path):
    with pytest.raises(ConfigError, match="to: 'zip'; expected one of frames, stacked, minari, d3rlpy"):
        convert(frames, tmp_path / "new", "zip")
    with pytest.raises(ConfigError, match="shard_bytes: 0; expected 1 or more"):
        convert(frames, tmp_path / "new", "frames", shard_bytes=0)
    with pytest.raises(SpecMismatchError, match="observation_shape"):
        convert(frames, tmp_path / "new", "frames", spec=make_spec(3))
    with pytest.raises(DatasetError, match="no such directory; expected a directory of .npz shards, a dataset of"):
        convert(tmp_path / "nowhere", tmp_path / "new", "frames")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("log.tsv", "is a file; expected a directory .*; save it as .csv, separated by commas"),
        ("log.pq", "is a file; .* or as .parquet"),
        ("shard.npz", "is a file; .* name the directory that it lies in"),
    ],
)
def test_what_is_no_source_is_told_what_makes_one_of_it(tmp_path, name, message):
    (tmp_path / name).write_text("episode,action,reward\n")
    with pytest.raises(DatasetError, match=message):
        convert(tmp_path / name, tmp_path / "new", "frames")


def test_tables_are_no_shards_and_the_command_that_makes_some_is_named(tmp_path):
    (tmp_path / "log.csv").write_text("episode,action,reward\n")
    with pytest.raises(DatasetError, match=r"holds no shards; .*; it holds tables: offrl convert .* --to frames makes"):
        ingest(tmp_path)


def test_a_dataset_of_minaris_is_no_directory():
    with pytest.raises(DatasetError, match=r"is a dataset of Minari's; .*; offrl convert minari:cart-v0 DIRECTORY"):
        require_directory(Path("minari:cart-v0"))


def test_the_result_in_words_and_in_json(stacked, tmp_path):
    found = convert(stacked, tmp_path / "new", "frames")
    text = found.to_text()
    assert "transitions  10 in 4 episodes" in text
    assert text.splitlines()[1].split() == ["stacked", "frames"]
    assert text.splitlines()[3].split() == ["frames", "40", "15"]
    assert json.loads(json.dumps(found.to_dict()))["frames_after"] == 15


def test_damaged_shards_can_be_set_aside(stacked, tmp_path):
    (stacked / "shard-001.npz").write_bytes(b"cut short")
    with pytest.raises(DatasetError, match=r"shard-001\.npz: cannot be opened"):
        convert(stacked, tmp_path / "new", "frames")
    with pytest.warns(UserWarning, match=r"shard-001\.npz"):
        convert(stacked, tmp_path / "new", "frames", skip_bad_shards=True)
    assert_same_episodes(episodes(ingest(tmp_path / "new")), EPISODES)


def test_shards_may_lie_elsewhere_but_the_target_is_here(stacked, tmp_path):
    convert(stacked.as_uri(), tmp_path / "new", "frames")
    assert_same_episodes(episodes(ingest(tmp_path / "new")), EPISODES)
    with pytest.raises(ConfigError, match="memory://bucket/new: is an address; expected a path on this machine"):
        convert(stacked, "memory://key:secret@bucket/new", "frames")


def test_a_conversion_is_shown_as_a_table_and_as_json():
    found = Conversion("stacked", "frames", 2000, 3, 90_000, 1_200, 16_000, 2_003, notes=("floats were rounded",))
    assert found.to_text().splitlines() == [
        "transitions  2,000 in 3 episodes",
        "                   stacked          frames",
        "bytes               90,000           1,200",
        "frames              16,000           2,003",
        "note: floats were rounded",
    ]
    assert json.loads(json.dumps(found.to_dict()))["notes"] == ["floats were rounded"]
