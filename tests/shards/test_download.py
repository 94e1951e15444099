import errno
import hashlib
import json
import os
import socket
import subprocess
import sys

import pytest
from archives import names_in, tar_of, written, zip_of
from web_server import web_server

from offrl.errors import ConfigError, DatasetError, InUseError
from offrl.shards import download as module
from offrl.shards import fetch
from offrl.system.json_files import read_json, write_json
from offrl.system.locks import locked

FILES = {"a.npz": os.urandom(150_000), "b.npz": b"second"}
LOG = zip_of((f"log/{name}", data) for name, data in FILES.items())
SHA256 = hashlib.sha256(LOG).hexdigest()


@pytest.fixture
def site(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with web_server() as site:
        site.files["/log.zip"] = LOG
        yield site


def fetched(directory):
    """What is in a directory that was fetched, and nothing beside it."""
    assert names_in(directory.parent) == [directory.name]
    found = written(directory)
    found.pop(".fetch.json")
    return found


@pytest.fixture
def target(tmp_path):
    (tmp_path / "there").mkdir()
    return tmp_path / "there" / "data"


def test_an_address_is_fetched_once(site, target):
    assert fetch(f"{site.url}/log.zip", target, progress=False) == target
    assert fetched(target) == FILES
    marker = read_json(target / ".fetch.json")
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    assert marker == {"source": f"{site.url}/log.zip", "sha256": SHA256, "size": len(LOG), "files": hashes}
    fetch(f"{site.url}/log.zip", target, progress=False)
    fetch("http://127.0.0.1:9/mirror.zip", target, sha256=SHA256.upper(), progress=False)
    assert site.requests == [("/log.zip", None)]


def test_what_a_killed_call_left_goes_also_where_all_is_there(site, target):
    fetch(f"{site.url}/log.zip", target, progress=False)
    for name in (".data.lock", "data.part", "data.part.json", ".data.0123456789ab.partial"):
        (target.parent / name).touch()
    fetch(f"{site.url}/log.zip", target, progress=False)
    assert fetched(target) == FILES
    assert site.requests == [("/log.zip", None)]


def test_other_content_is_not_replaced(site, target):
    target.mkdir()
    (target / "own.npz").write_text("precious")
    with pytest.raises(DatasetError, match=r"data: holds something else \(files that were not fetched\)"):
        fetch(f"{site.url}/log.zip", target)
    assert written(target) == {"own.npz": b"precious"}
    (target / "own.npz").unlink()
    fetch(f"{site.url}/log.zip", target, progress=False)  # empty will do
    with pytest.raises(DatasetError, match=r"log\.zip\); expected .*/other\.zip"):
        fetch(f"{site.url}/other.zip", target)
    with pytest.raises(DatasetError, match=f"{SHA256}.*; expected {'0' * 64}"):
        fetch(f"{site.url}/log.zip", target, sha256="0" * 64)
    assert fetched(target) == FILES


def test_the_current_directory_is_left_alone(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="is a file, the current directory or a mount point"):
        fetch(f"{site.url}/log.zip", ".")


def test_a_broken_download_goes_on(site, target):
    site.break_after = 100_000
    with pytest.raises(
        DatasetError, match=r"broke after 100000 bytes \(closed by the server\); the same command goes on"
    ):
        fetch(f"{site.url}/log.zip", target, progress=False)
    assert names_in(target.parent) == ["data.part", "data.part.json"]
    fetch(f"{site.url}/log.zip", target, sha256=SHA256, progress=False)
    assert site.requests == [("/log.zip", None), ("/log.zip", "bytes=100000-")]
    assert fetched(target) == FILES


@pytest.mark.parametrize("change", ["no ranges", "another version", "no version", "another address"])
def test_what_cannot_go_on_starts_over(site, target, change):
    site.files["/log.zip"] = bytes(len(LOG))
    site.break_after = 100_000
    site.etag = None if change == "no version" else '"v1"'
    address = "/old.zip" if change == "another address" else "/log.zip"
    site.files["/old.zip"] = bytes(len(LOG))
    with pytest.raises(DatasetError, match="broke after 100000"):
        fetch(f"{site.url}{address}", target, progress=False)
    site.files["/log.zip"] = LOG
    site.has_ranges = change != "no ranges"
    if change == "another version":
        site.etag = '"v2"'
    fetch(f"{site.url}/log.zip", target, progress=False)
    assert fetched(target) == FILES


def test_a_server_that_ignores_the_version_is_found_out(site, target):
    site.break_after = 100_000
    with pytest.raises(DatasetError, match="broke"):
        fetch(f"{site.url}/log.zip", target, progress=False)
    state = target.parent / "data.part.json"
    write_json(state, {**read_json(state), "version": read_json(state)["version"].replace("v1", "v0")})
    (target.parent / "data.part").write_bytes(bytes(100_000))
    site.heeds_if_range = False
    fetch(f"{site.url}/log.zip", target, progress=False)
    assert site.requests[1:] == [("/log.zip", "bytes=100000-"), ("/log.zip", None)]
    assert fetched(target) == FILES


def test_a_part_beyond_the_end_starts_over(site, target):
    site.break_after, site.has_length = 100_000, False
    with pytest.raises(DatasetError, match="cannot be unpacked"):  # nothing said that it was cut
        fetch(f"{site.url}/log.zip", target, progress=False)
    assert names_in(target.parent) == []
    (target.parent / "data.part").write_bytes(bytes(len(LOG) + 9))
    state = {"source": f"{site.url}/log.zip", "size": None, "version": '"v1"'}
    (target.parent / "data.part.json").write_text(json.dumps(state))
    fetch(f"{site.url}/log.zip", target, progress=False)
    assert [wanted for _, wanted in site.requests] == [None, f"bytes={len(LOG) + 9}-", None]
    assert fetched(target) == FILES


def test_ctrl_c_leaves_the_part(site, target, monkeypatch):
    class Bar(module.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "tqdm", Bar)
    with pytest.raises(KeyboardInterrupt):
        fetch(f"{site.url}/log.zip", target, progress=False)
    monkeypatch.undo()
    size = (target.parent / "data.part").stat().st_size
    assert size > 0
    fetch(f"{site.url}/log.zip", target, progress=False)
    assert site.requests[1] == ("/log.zip", f"bytes={size}-")
    assert fetched(target) == FILES


def test_a_full_disk_is_said_and_the_download_kept(site, target, monkeypatch):
    def fail(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("offrl.shards._unpack.os.fsync", fail)
        patch.setattr("offrl.system.files.sync", lambda path: None)  # of the small file beside the part
        with pytest.raises(DatasetError, match=r"data: cannot be fetched into \(.*No space left.*free some space"):
            fetch(f"{site.url}/log.zip", target, progress=False)
    assert names_in(target.parent) == ["data.part", "data.part.json"]
    fetch(f"{site.url}/log.zip", target, progress=False)
    assert len(site.requests) == 1
    assert fetched(target) == FILES


def test_the_second_of_two_is_told_who_has_it_and_touches_nothing(site, target):
    (target.parent / ".data.0123456789ab.partial").mkdir()  # as if the first unpacked into it, under any process number
    with locked(target.parent / ".data.lock", target=target):
        before = names_in(target.parent)
        with pytest.raises(InUseError, match=rf"data: is in use by process {os.getpid()} of .* since 2"):
            fetch(f"{site.url}/log.zip", target)
        assert names_in(target.parent) == before
    assert site.requests == []


def test_one_that_was_fetched_while_this_call_began_is_kept(site, target, monkeypatch):
    is_there, answers = module._is_there, []

    def fetched_between(*args):
        answers.append(is_there(*args))
        if len(answers) == 1:
            fetch(f"{site.url}/log.zip", target, progress=False)
        return answers[-1]

    monkeypatch.setattr(module, "_is_there", fetched_between)
    fetch(f"{site.url}/log.zip", target, progress=False)
    assert answers == [False, False, False, True]
    assert len(site.requests) == 1
    assert fetched(target) == FILES


_KILLED = """
import os, sys
from offrl.shards import download, fetch
def kill(*args, **options):
    os.kill(os.getpid(), 9)
setattr(download, sys.argv[3], kill)
fetch(sys.argv[1], sys.argv[2], progress=False)
"""


@pytest.mark.parametrize("where", ["_remove_hidden", "write_sealed_json"])
def test_what_a_killed_fetch_left_is_removed_by_the_next(tmp_path, target, where):
    (tmp_path / "log.zip").write_bytes(LOG)
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "log.zip"), str(target), where], check=False)
    assert ended.returncode == -9
    assert len(names_in(target.parent)) == 2  # the lock and what was unpacked
    fetch(tmp_path / "log.zip", target, progress=False)
    assert fetched(target) == FILES


def test_the_checksum_is_verified_before_unpacking(site, target, monkeypatch):
    monkeypatch.setattr(module, "archive_members", None)
    with pytest.raises(DatasetError, match=rf"log\.zip: sha256 is {SHA256}; expected {'0' * 64}"):
        fetch(f"{site.url}/log.zip", target, sha256="0" * 64, progress=False)
    assert names_in(target.parent) == []


@pytest.mark.parametrize("has_length", [True, False])
def test_the_size_is_limited_while_it_streams(site, target, has_length):
    site.has_length = has_length
    with pytest.raises(DatasetError, match=r"log\.zip: is larger than 70\.0kB; raise max_bytes"):
        fetch(f"{site.url}/log.zip", target, max_bytes=70_000, progress=False)
    assert names_in(target.parent) == []
    fetch(f"{site.url}/log.zip", target, max_bytes=len(LOG), progress=False)
    assert fetched(target) == FILES


def test_what_a_server_refuses_is_said(site, target):
    with pytest.raises(
        DatasetError, match=rf"^{site.url}/no\.zip: the server answers 404 Not Found; expected the file"
    ):
        fetch(f"{site.url}/no.zip", target)
    with pytest.raises(DatasetError, match=r"cannot be reached \(.*refused\)"):
        fetch("http://127.0.0.1:9/log.zip", target)
    with pytest.raises(DatasetError, match=r"cannot be reached \(.*nonnumeric port"):
        fetch("http://127.0.0.1:port/log.zip", target)
    assert names_in(target.parent) == []


def test_an_unknown_host_is_said(site, target, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DatasetError, match=r"cannot be reached \(.*Name or service not known"):
        fetch("http://data.invalid/log.zip", target)


def test_redirects_lead_to_the_web_only(site, target, tmp_path):
    site.redirects = {"/moved": "/log.zip", "/file": f"file://{tmp_path}", "/ftp": "ftp://127.0.0.1:9/log.zip"}
    for name in ("file", "ftp"):
        with pytest.raises(DatasetError, match="the server answers 302"):
            fetch(f"{site.url}/{name}", target)
    request = module.Request("https://127.0.0.1/log.zip")
    with pytest.raises(module.HTTPError, match=r"to http://127\.0\.0\.1/log\.zip, which is not followed"):
        module._Redirects().redirect_request(request, None, 302, "", {}, "http://127.0.0.1/log.zip")
    fetch(f"{site.url}/moved", target, progress=False)
    assert written(target).keys() == {*FILES, ".fetch.json"}


@pytest.mark.parametrize("as_address", [False, True])
def test_a_path_is_unpacked_where_it_lies(tmp_path, target, as_address):
    packed = tmp_path / "my log.tar.gz"
    packed.write_bytes(tar_of(FILES.items(), "gz"))
    fetch(packed.as_uri() if as_address else packed, target, progress=False)
    assert fetched(target) == FILES
    assert packed.exists()
    with pytest.raises(DatasetError, match="is larger than 10"):
        fetch(packed, tmp_path / "other", max_bytes=10)


def test_a_directory_is_copied(tmp_path, target):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "a.npz").write_text("first")
    with pytest.raises(ConfigError, match="sha256: given for a directory"):
        fetch(tmp_path / "log", target, sha256=SHA256)
    fetch(tmp_path / "log", target, progress=False)
    assert fetched(target) == {"a.npz": b"first"}
    with pytest.raises(DatasetError, match=r"unpacks to more than 4\.00B"):
        fetch(tmp_path / "log", tmp_path / "other", max_unpacked_bytes=4)


def test_one_folder_around_the_data_is_removed(tmp_path, target):
    packed = tmp_path / "log.zip"
    packed.write_bytes(
        zip_of(
            [
                ("outer/inner/a.npz", b"1"),
                ("outer/inner/b.npz", b"2"),
                ("__MACOSX/outer/._a", b"x"),
                (".DS_Store", b"x"),
            ]
        )
    )
    fetch(packed, target, progress=False)
    assert fetched(target) == {"a.npz": b"1", "b.npz": b"2"}


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_what_is_hidden_stays_behind(tmp_path, target, pack):
    hidden = [".store/0123/store.json", ".store/.lock", "log/.store/0123/frames.npy", "log/.fetch.json", "log/._a.npz"]
    (tmp_path / "log").write_bytes(pack([("log/a.npz", b"1"), *((name, b"x") for name in hidden), ("log/b", b"2")]))
    fetch(tmp_path / "log", target, progress=False)
    assert fetched(target) == {"a.npz": b"1", "b": b"2"}
    (tmp_path / "empty").write_bytes(pack([(name, b"x") for name in hidden]))
    with pytest.raises(DatasetError, match="holds no data"):
        fetch(tmp_path / "empty", tmp_path / "other", progress=False)


def test_folders_side_by_side_stay(tmp_path, target):
    packed = tmp_path / "log.zip"
    packed.write_bytes(zip_of([("train/a.npz", b"1"), ("test/a.npz", b"2")]))
    fetch(packed, target, progress=False)
    assert fetched(target) == {"train/a.npz": b"1", "test/a.npz": b"2"}


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (zip_of([("a", b"1"), ("../../out", b"2")]), "which is outside of the directory"),
        (zip_of([("a/", b"")]), "holds no data"),
        (LOG[:-30], "cannot be unpacked"),
    ],
)
def test_a_failure_leaves_nothing(site, target, packed, message):
    site.files["/log.zip"] = packed
    with pytest.raises(DatasetError, match=message):
        fetch(f"{site.url}/log.zip", target, progress=False)
    assert names_in(target.parent) == []


@pytest.mark.parametrize(
    ("source", "sha256", "error", "message"),
    [
        ("ftp://127.0.0.1/log.zip", None, ConfigError, "log.zip: ftp addresses; expected http://"),
        ("nowhere.zip", None, DatasetError, r"nowhere\.zip: no such file or directory"),
        ("", None, DatasetError, "no such file or directory"),
        (__file__, "123", ConfigError, "sha256: '123'; expected 64 hexadecimal digits"),
    ],
)
def test_what_makes_no_sense_is_refused(target, source, sha256, error, message):
    with pytest.raises(error, match=message):
        fetch(source, target, sha256=sha256)
    assert names_in(target.parent) == []
