import io
import os
import shutil
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from archives import names_in, tar_entry, tar_of, written, zip_entry, zip_of
from tqdm import tqdm

from offrl.errors import DatasetError
from offrl.shards import _unpack as unpack
from offrl.shards._unpack import Limits, archive_members, folder_members, write_members

FILES = {"data/a.npz": b"first" * 300, "data/b.npz": bytes(1024), "data/deeper/c.npz": b"third"}
PACKED = {
    "zip": zip_of(FILES.items()),
    "deflated zip": zip_of(FILES.items(), zipfile.ZIP_DEFLATED),
    "tar": tar_of(FILES.items()),
    **{f"tar.{kind}": tar_of(FILES.items(), kind) for kind in ("gz", "bz2", "xz")},
}


@pytest.fixture
def unpacked(tmp_path):
    """Unpacks bytes into an empty folder, and returns what is there then."""
    outer = tmp_path / "outer"

    def make(packed, num_bytes=10**6, num_members=20, ratio=10.0, where="x/log.zip?v=1"):
        (tmp_path / "packed").write_bytes(packed)
        shutil.rmtree(outer, ignore_errors=True)
        folder = outer / "folder"
        folder.mkdir(parents=True)
        with tqdm(disable=True) as bar:
            size = write_members(
                archive_members(tmp_path / "packed", where),
                folder,
                packed_size=len(packed),
                limits=Limits(num_bytes, num_members, ratio),
                where=where,
                bar=bar,
            )
        found = written(folder)
        assert size == sum(map(len, found.values()))
        return found

    yield make
    assert names_in(tmp_path) == ["outer", "packed"]
    assert names_in(outer) == ["folder"]


@pytest.mark.parametrize("packed", PACKED.values(), ids=PACKED.keys())
def test_every_kind_of_archive_is_unpacked_by_its_content(unpacked, packed):
    assert unpacked(packed) == FILES


@pytest.mark.parametrize("pack", [zip_of, tar_of])
@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/tmp/offrl-out", "\\out", "a\\..\\..\\out", "C:out", "c:/out", "x/" * 17 + "y"]
)
def test_a_path_outside_is_refused(unpacked, pack, name):
    with pytest.raises(DatasetError, match="which is outside of the directory or too deep in it; expected plain files"):
        unpacked(pack([(name, b"harm")]))


@pytest.mark.parametrize(
    "packed",
    [
        zip_of([(zip_entry("evil", stat.S_IFLNK | 0o777), b"/etc")]),
        zip_of([(zip_entry("evil", stat.S_IFIFO | 0o600), b"")]),
        tar_of([(tar_entry("evil", tarfile.SYMTYPE, "/etc"), b""), ("evil/passwd", b"harm")]),
        tar_of([("a", b"x"), (tar_entry("evil", tarfile.LNKTYPE, "a"), b"")]),
        tar_of([(tar_entry("evil", tarfile.CHRTYPE), b"")]),
        tar_of([(tar_entry("evil", tarfile.FIFOTYPE), b"")]),
    ],
    ids=["zip link", "zip fifo", "tar link", "tar hard link", "tar device", "tar fifo"],
)
def test_links_and_devices_are_refused(unpacked, packed):
    with pytest.raises(DatasetError, match=r"log\.zip\?v=1: holds 'evil', a link or a device"):
        unpacked(packed)


@pytest.mark.parametrize("pack", [zip_of, tar_of])
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["a", "./a", "a/b"])
def test_nothing_is_written_twice(unpacked, pack, second):
    with pytest.raises(DatasetError, match=f"holds '{second}', whose place is taken by another member"):
        unpacked(pack([("a", b"1"), (second, b"2")]))


@pytest.mark.parametrize("packed", PACKED.values(), ids=PACKED.keys())
def test_the_number_of_members_is_limited(unpacked, packed):
    with pytest.raises(DatasetError, match=r"holds more than 2 files and folders; raise max_members"):
        unpacked(packed, num_members=2)


@pytest.mark.parametrize("packed", PACKED.values(), ids=PACKED.keys())
def test_the_bytes_written_are_limited(unpacked, packed):
    with pytest.raises(DatasetError, match=r"unpacks to more than 2\.00kB; raise max_unpacked_bytes"):
        unpacked(packed, num_bytes=2000)


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz", "zip"])
def test_a_bomb_goes_off_at_the_ratio(unpacked, monkeypatch, compression):
    monkeypatch.setattr(unpack, "_RATIO_ALLOWANCE", 1000)
    bomb = [("zeros", bytes(10**6))]
    packed = zip_of(bomb, zipfile.ZIP_DEFLATED) if compression == "zip" else tar_of(bomb, compression)
    with pytest.raises(DatasetError, match="unpacks to more than .*kB; .*max_ratio"):
        unpacked(packed, num_bytes=10**9, ratio=5.0)


def test_a_size_that_is_a_lie_changes_nothing(unpacked):
    packed = bytearray(zip_of([("a", b"z" * 5000)], zipfile.ZIP_DEFLATED))
    at = packed.index(b"PK\1\2") + 24  # the unpacked size, in the directory
    packed[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(DatasetError, match=r"cannot be unpacked \(BadZipFile: Bad CRC-32"):
        unpacked(bytes(packed))


def test_headers_are_not_read_into_memory_without_limit(unpacked, monkeypatch):
    monkeypatch.setattr(unpack, "_TAR_HEADER_LIMIT", 2**16)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"comment": "x" * 2**20}
        archive.addfile(info)
    with pytest.raises(DatasetError, match="too many bytes between two files"):
        unpacked(buffer.getvalue())
    monkeypatch.setattr(unpack, "_ZIP_DIRECTORY_LIMIT", 60)
    with pytest.raises(DatasetError, match="bytes of names"):
        unpacked(zip_of([("n" * 100, b"")]))


def test_files_larger_than_the_header_limit_are_read(unpacked, monkeypatch):
    monkeypatch.setattr(unpack, "_TAR_HEADER_LIMIT", 2**17)
    files = {"a": b"1" * 2**18, "b": b"2" * 2**18}
    assert unpacked(tar_of(files.items())) == files


def test_what_zipfile_cannot_bound_is_refused(unpacked):
    with pytest.raises(DatasetError, match="holds 'a', packed neither plainly nor with deflate"):
        unpacked(zip_of([("a", b"1")], zipfile.ZIP_LZMA))


@pytest.mark.parametrize("kind", PACKED)
def test_a_truncated_archive_is_refused(unpacked, kind):
    with pytest.raises(DatasetError, match="cannot be unpacked"):
        unpacked(PACKED[kind][: len(PACKED[kind]) * 2 // 5])


def test_a_tar_cut_between_two_members_is_refused(unpacked):
    with pytest.raises(DatasetError, match="ReadError: empty header"):
        unpacked(PACKED["tar"][: 512 + 1536])


@pytest.mark.parametrize("kind", sorted(PACKED.keys() - {"tar"}))
def test_a_flipped_byte_is_found_or_harmless(unpacked, monkeypatch, kind):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    num_found = 0
    for at in range(0, len(PACKED[kind]), len(PACKED[kind]) // 40):
        packed = bytearray(PACKED[kind])
        packed[at] ^= 0xFF
        try:
            assert unpacked(bytes(packed)) == FILES, at  # a time stamp, say
        except DatasetError:
            num_found += 1
    assert num_found > 20


def test_an_entry_of_a_zip_that_swallows_the_next_one_is_found(unpacked):
    packed = bytearray(PACKED["zip"])
    packed[packed.index(b"PK\1\2") + 32] ^= 0xFF  # the length of its comment
    with pytest.raises(DatasetError, match="1 entries where the end says 3"):
        unpacked(bytes(packed))


def test_a_flipped_byte_in_a_tar_header_is_found(unpacked):
    packed = bytearray(PACKED["tar"])
    packed[2048 + 3] ^= 0xFF  # in the second member's name
    with pytest.raises(DatasetError, match="bad checksum"):
        unpacked(bytes(packed))


@pytest.mark.parametrize("packed", [b"", b"<html>log in first</html>", b"PK but no zip", b"\x1f\x8b but no gzip" * 99])
def test_something_else_is_refused(unpacked, packed):
    with pytest.raises(DatasetError, match=r"cannot be unpacked .*; expected a zip or tar archive, or an \.npz file"):
        unpacked(packed)


def test_an_npz_file_is_its_own_member(unpacked):
    buffer = io.BytesIO()
    np.savez(buffer, actions=np.arange(3))
    assert unpacked(buffer.getvalue()) == {"log.npz": buffer.getvalue()}
    assert unpacked(buffer.getvalue(), where="http://x/.hid%00den")["hid_00den.npz"] == buffer.getvalue()


def test_a_folder_holds_what_is_not_hidden(tmp_path):
    for name in ("a.npz", "deeper/b.npz", ".store/key/frames.bin", "deeper/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link.npz").symlink_to(tmp_path / "a.npz")  # a shard kept elsewhere
    found = {name: chunks and b"".join(chunks) for name, chunks in folder_members(tmp_path)}
    assert found == {"a.npz": b"a.npz", "deeper": None, "deeper/b.npz": b"deeper/b.npz", "link.npz": b"a.npz"}


@pytest.mark.parametrize("target", [".", "nowhere"])
def test_a_link_to_a_folder_is_not_passed_over_in_silence(tmp_path, target):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / target)
    with pytest.raises(DatasetError, match="holds 'link', a link to a folder, or a device"):
        list(folder_members(tmp_path / "folder"))
