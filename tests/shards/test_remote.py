import json
import os
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from naive_replay import make_episode, make_spec

from offrl.errors import ConfigError, DatasetError, MissingDependencyError
from offrl.replay import ingest, open_replay
from offrl.shards import Manifest, is_remote, local_copy, redacted, write_shard
from offrl.shards.remote import fetched_copy

URL = "memory://bucket/data"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and an empty memory for the file system."""
    monkeypatch.setenv("OFFRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OFFRL_CACHE_LIMIT", raising=False)
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    return tmp_path / "cache"


@pytest.fixture
def fetched(monkeypatch):
    """The names of the files that were fetched; an exception put into `fails` is raised for that name."""

    class Fetched(list):
        def __init__(self):
            super().__init__()
            self.fails = {}

    names, get_file = Fetched(), MemoryFileSystem.get_file

    def counted(self, rpath, lpath=None, **kwargs):
        name = rpath.rpartition("/")[2]
        names.append(name)
        if name in names.fails:
            raise names.fails[name]
        return get_file(self, rpath, lpath, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "get_file", counted)
    return names


def upload(folder, url=URL):
    for path in folder.iterdir():
        put(path.name, path.read_bytes(), url)


def put(name, content, url=URL):
    fsspec.filesystem("memory").pipe_file(f"{url}/{name}", content)


@pytest.fixture
def data(tmp_path):
    """A frames dataset of three shards, at URL and here."""
    folder = tmp_path / "data"
    records = [write_shard(folder / f"shard-{seed}.npz", [make_episode(seed)]) for seed in range(3)]
    Manifest(make_spec(), tuple(records), {}, {}).save(folder)
    upload(folder)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_copy_is_the_dataset(data, fetched, cache):
    copy = local_copy(URL)
    assert copy.parent == cache / "remote"
    assert copy.name.startswith("memory-bucket-data-")
    assert contents(copy) == contents(data)
    assert fetched == ["shard-0.npz", "shard-1.npz", "shard-2.npz"]


def test_a_replay_over_an_address_is_one_over_the_data(data):
    ours, theirs = open_replay(URL, n_step=2, progress=False), open_replay(data, n_step=2, progress=False)
    assert (len(ours), ours.fingerprint) == (len(theirs), theirs.fingerprint) == (9, ours.fingerprint)
    rows = np.arange(9)
    np.testing.assert_array_equal(ours.gather(rows).observation, theirs.gather(rows).observation)


def test_a_second_call_fetches_nothing_and_finds_the_store(data, fetched):
    store = ingest(URL, progress=False)
    fetched.clear()
    assert ingest(f"{URL}/", progress=False).path == store.path
    assert fetched == []


def test_a_path_is_itself(tmp_path):
    assert local_copy(tmp_path) == local_copy(str(tmp_path)) == local_copy(f"file://{tmp_path}") == tmp_path
    assert not is_remote(str(tmp_path))
    assert fetched_copy(str(tmp_path)) is None


def test_what_was_fetched_is_known(data):
    assert fetched_copy(URL) is None
    copy = local_copy(URL)
    assert fetched_copy(URL) == copy
    assert fetched_copy(f"{URL}/?token=1") == copy
    assert fetched_copy("memory://bucket/other") is None


def test_shards_without_a_manifest_are_all_fetched(data, fetched):
    fsspec.filesystem("memory").rm(f"{URL}/manifest.json")
    put("notes.txt", b"not for us")
    put(".hidden.npz", b"nor this")
    put("more/shard-9.npz", b"nor what is deeper")
    assert sorted(contents(local_copy(URL))) == fetched == ["shard-0.npz", "shard-1.npz", "shard-2.npz"]
    fetched.clear()
    local_copy(URL)
    assert fetched == []


def test_what_changed_there_is_fetched_anew(data, fetched, tmp_path):
    store = ingest(URL, progress=False)
    fetched.clear()
    folder = tmp_path / "changed"
    records = [write_shard(folder / f"shard-{seed}.npz", [make_episode(seed * 7)]) for seed in range(2)]
    Manifest(make_spec(), tuple(records), {}, {}).save(folder)
    upload(folder)
    changed = ingest(URL, progress=False)
    assert fetched == ["shard-1.npz"]  # the first is the same, the third is not in the manifest any more
    assert contents(local_copy(URL)) == contents(folder)
    assert len(changed) == 6
    assert changed.fingerprint != store.fingerprint
    assert not store.path.exists()


def test_without_a_manifest_time_and_size_tell_what_changed(data, fetched):
    fsspec.filesystem("memory").rm(f"{URL}/manifest.json")
    local_copy(URL)
    fetched.clear()
    put("shard-1.npz", (data / "shard-1.npz").read_bytes())  # written later
    copy = local_copy(URL)
    assert fetched == ["shard-1.npz"]
    (copy / "shard-2.npz").write_bytes(b"cut short")
    local_copy(URL)
    assert fetched == ["shard-1.npz", "shard-2.npz"]


def test_an_etag_goes_before_the_time(data, fetched, monkeypatch):
    fsspec.filesystem("memory").rm(f"{URL}/manifest.json")
    listing, tags = MemoryFileSystem.ls, {"shard-1.npz": "a"}

    def tagged(self, path, detail=True, **kwargs):
        found = listing(self, path, detail=True)
        return [{**info, "ETag": tags.get(info["name"].rpartition("/")[2], "x")} for info in found]

    monkeypatch.setattr(MemoryFileSystem, "ls", tagged)
    local_copy(URL)
    fetched.clear()
    put("shard-1.npz", (data / "shard-1.npz").read_bytes())  # written later, the same bytes
    local_copy(URL)
    assert fetched == []
    tags["shard-1.npz"] = "b"
    local_copy(URL)
    assert fetched == ["shard-1.npz"]


def test_sizes_that_a_listing_does_not_say_are_asked_for(data, fetched, monkeypatch):
    listing = MemoryFileSystem.ls
    monkeypatch.setattr(
        MemoryFileSystem, "ls", lambda self, path, **_: [{**info, "size": None} for info in listing(self, path)]
    )
    with pytest.raises(DatasetError, match="takes .*; expected at most the 10.0B"):
        local_copy(URL, limit=10)
    assert contents(local_copy(URL)) == contents(data)


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), TimeoutError("no answer")])
def test_an_interrupted_fetch_goes_on_from_the_whole_files(data, fetched, failure, cache):
    fetched.fails["shard-1.npz"] = failure
    with pytest.raises((KeyboardInterrupt, DatasetError)):
        local_copy(URL)
    assert [path.name for path in cache.rglob("*.npz")] == ["shard-0.npz"]
    fetched.fails.clear()
    fetched.clear()
    copy = local_copy(URL)
    assert fetched == ["shard-1.npz", "shard-2.npz"]
    assert contents(copy) == contents(data)


def test_what_a_killed_fetch_left_is_removed(data):
    copy = local_copy(URL)
    (copy / ".shard-0.npz.123.partial").write_bytes(b"half of")
    local_copy(URL)
    assert not list(copy.glob("*.partial")) + list(copy.glob(".*.partial"))


@pytest.mark.parametrize("content", [b"not what it was", None])
def test_a_damaged_shard_is_refused_and_the_others_are_kept(data, cache, content):
    whole = (data / "shard-1.npz").read_bytes()
    put("shard-1.npz", whole[:-1] + b"!" if content is None else content)
    with pytest.raises(DatasetError, match=r"bucket/data/shard-1.npz: sha256 is .*, as manifest.json says; the file"):
        local_copy(URL)
    assert [path.name for path in cache.rglob("*.npz")] == ["shard-0.npz"]
    put("shard-1.npz", whole)
    assert contents(local_copy(URL)) == contents(data)


def test_shards_damaged_or_missing_there_can_be_set_aside(data, fetched):
    whole = (data / "shard-1.npz").read_bytes()
    put("shard-1.npz", whole[:-1] + b"!")
    fsspec.filesystem("memory").rm(f"{URL}/shard-2.npz")
    with pytest.warns(UserWarning, match=r"2 damaged shard\(s\) set aside: .*shard-1.npz: sha256 is"):
        replay = open_replay(URL, skip_bad_shards=True, progress=False)
    assert [name for name, _ in replay.store.report.skipped] == ["shard-1.npz", "shard-2.npz"]
    assert len(replay) == 3
    fetched.clear()
    assert len(open_replay(URL, skip_bad_shards=True, progress=False)) == 3
    assert fetched == []  # what is damaged there would come damaged again
    with pytest.raises(DatasetError, match="shard-2.npz: no such file"):
        open_replay(URL, progress=False)
    upload(data)
    assert len(open_replay(URL, skip_bad_shards=True, progress=False)) == 9
    assert fetched == ["shard-1.npz", "shard-2.npz"]


def test_a_shard_that_was_set_aside_is_refused_by_who_wants_all(data):
    put("shard-1.npz", b"not what it was")
    with pytest.warns(UserWarning, match="set aside"):
        open_replay(URL, skip_bad_shards=True, progress=False)
    with pytest.raises(DatasetError, match=r"bucket/data/shard-1.npz: sha256 is .*; the file there was changed"):
        open_replay(URL, progress=False)


def test_a_fetch_that_stops_short_is_refused(data, fetched, monkeypatch):
    fsspec.filesystem("memory").rm(f"{URL}/manifest.json")
    monkeypatch.setattr(MemoryFileSystem, "get_file", lambda self, rpath, lpath, **_: Path(lpath).touch())
    with pytest.raises(DatasetError, match="shard-0.npz: 0 of .* bytes came; the same call fetches it again"):
        local_copy(URL)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/none", "memory://bucket/none: no such file or directory; expected a dataset"),
        ("memory://none", "memory://none: no such file or directory"),
        (f"{URL}/shard-0.npz", "shard-0.npz: is a file; expected a directory of .npz shards"),
        ("memory://bucket", "memory://bucket: holds no shards"),
    ],
)
def test_what_is_not_there_is_refused_and_leaves_nothing(data, cache, url, message):
    with pytest.raises(DatasetError, match=message):
        open_replay(url)
    assert not cache.exists()


def test_a_manifest_that_names_what_is_not_there_is_refused(data):
    fsspec.filesystem("memory").rm(f"{URL}/shard-2.npz")
    with pytest.raises(DatasetError, match="memory://bucket/data/shard-2.npz: no such file; expected the shard that"):
        local_copy(URL)
    put("manifest.json", b"{")
    with pytest.raises(DatasetError, match="memory://bucket/data/manifest.json: cannot be read"):
        local_copy(URL)


def test_a_missing_package_is_named(monkeypatch):
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"s3://bucket/data: the package .* not installed; .*s3fs"):
        local_copy("s3://bucket/data")
    with pytest.raises(MissingDependencyError, match="gcsfs"):
        local_copy("gs://bucket/data")


def test_fsspec_itself_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingDependencyError, match=r"fsspec is not installed; .*-m pip install 'fsspec>="):
        local_copy(URL)


def test_unknown_kinds_of_addresses_are_refused():
    with pytest.raises(ConfigError, match="carrier-pigeon://coop: addresses of a kind that fsspec .* does not know"):
        local_copy("carrier-pigeon://coop")


def test_an_address_as_a_path_is_refused(tmp_path, monkeypatch):

    with pytest.raises(ConfigError, match="s3:: an address as a pathlib.Path, which loses a slash; expected a text"):
        local_copy(Path("s3://bucket/data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    assert local_copy(Path("s3:")) == Path("s3:")


def test_a_cache_that_cannot_be_written_is_said(data, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"the copy cannot be written \(.*\); expected a writable directory"):
        local_copy(URL, cache=tmp_path / "file")


def test_a_full_disk_is_said(data, fetched):
    fetched.fails["shard-0.npz"] = OSError(28, "No space left on device")
    with pytest.raises(DatasetError, match=r"the copy cannot be written \(No space left on device\)"):
        local_copy(URL)


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_dataset_larger_than_the_limit_is_refused_and_nothing_is_removed(data, monkeypatch):
    upload(data, "memory://bucket/other")
    other = local_copy("memory://bucket/other")
    monkeypatch.setenv("OFFRL_CACHE_LIMIT", "1K")
    with pytest.raises(DatasetError, match="data: takes .*; expected at most the 1.00kB .*; set OFFRL_CACHE_LIMIT"):
        local_copy(URL)
    assert contents(other) == contents(data)
    monkeypatch.setenv("OFFRL_CACHE_LIMIT", "plenty")
    with pytest.raises(ConfigError, match="OFFRL_CACHE_LIMIT: 'plenty'; expected a size such as 500M"):
        local_copy(URL)


def test_the_copy_that_was_not_used_for_the_longest_time_goes_first(data):
    names = ("a", "b", "c", "d")
    for name in names:
        upload(data, f"memory://bucket/{name}")
    copies = {name: local_copy(f"memory://bucket/{name}") for name in names[:3]}
    for age, name in enumerate(("b", "c", "a")):  # b was used last
        os.utime(copies[name] / ".remote.json", (1_000 - age, 1_000 - age))
    local_copy("memory://bucket/a")  # which makes it the newest
    copies["d"] = local_copy("memory://bucket/d", limit=3 * size_of(copies["a"]))
    assert [name for name in names if copies[name].exists()] == ["a", "b", "d"]
    local_copy("memory://bucket/c", limit=2 * size_of(copies["a"]))
    assert [name for name in names if copies[name].exists()] == ["c", "d"]


def test_a_copy_that_is_being_fetched_stays(data, fetched, monkeypatch):
    upload(data, "memory://bucket/other")
    limit = int(1.5 * size_of(data))
    seen = {}
    get_file = MemoryFileSystem.get_file

    def meanwhile(self, rpath, lpath=None, **kwargs):
        if "data/shard-2" in rpath:  # while the first is under way, another one is fetched
            seen["other"] = local_copy("memory://bucket/other", limit=limit)
        return get_file(self, rpath, lpath, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "get_file", meanwhile)
    copy = local_copy(URL, limit=limit)
    assert contents(copy) == contents(seen["other"]) == contents(data)


SECRETS = [
    ("s3://KEY:sec/ret@bucket/data", "s3://bucket/data"),
    ("https://token@example.org/data?sig=abcd1234#part", "https://example.org/data"),
    ("ftp://user:pa@ss@host:21/data/", "ftp://host:21/data"),
    ("sftp://host:22/a@b", "sftp://host:22/a@b"),
    ("abfs://container@account.dfs.core.windows.net/data", "abfs://container@account.dfs.core.windows.net/data"),
    ("hf://datasets/user/name@main/data", "hf://datasets/user/name@main/data"),
    ("simplecache::https://me:pass@host/x?y=z", "simplecache::https://host/x"),
    ("/data/a@b?c", "/data/a@b?c"),
]


@pytest.mark.parametrize(("address", "shown"), SECRETS)
def test_what_is_confidential_in_an_address_is_not_shown(address, shown):
    assert redacted(address) == shown


def test_no_error_shows_what_is_confidential(data, monkeypatch, fetched):
    url = "memory://user:password@bucket/data?sig=signature&token=abc-def#anchor"

    def refusing(self, path, **_):
        raise PermissionError(f"403 at {url} for {path}, Credential=password, sig=signature, abc-def")

    monkeypatch.setattr(MemoryFileSystem, "ls", refusing)
    with pytest.raises(
        DatasetError, match=r"^memory://bucket/data: cannot be reached or read \(PermissionError: 403 at"
    ) as caught:
        local_copy(url)
    for secret in ("user:", "password", "signature", "abc-def", "anchor"):
        assert secret not in str(caught.value)
    assert caught.value.__suppress_context__


def test_no_record_in_the_cache_shows_what_is_confidential(data, cache):
    upload(data, "memory://user:password@bucket/data")
    copy = local_copy("memory://user:password@bucket/data")
    assert json.loads((copy / ".remote.json").read_text())["source"] == "memory://bucket/data"
    assert not [path for path in cache.rglob("*") if "password" in str(path)]
