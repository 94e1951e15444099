import os
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offrl.errors import DatasetError
from offrl.shards import _npz as npz_module
from offrl.shards._npz import open_npz

MEMBERS = {"a": np.arange(300, dtype=np.float32), "b": np.asfortranarray(np.arange(6).reshape(2, 3))}


def read_all(path):
    with open_npz(path) as shard:
        return {name: shard.read(name) for name in shard.names}


@pytest.fixture
def path(tmp_path):
    np.savez_compressed(tmp_path / "file.npz", **MEMBERS)
    return tmp_path / "file.npz"


def test_members_come_back(path):
    found = read_all(path)
    assert found.keys() == MEMBERS.keys()
    for name, array in MEMBERS.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_empty_arrays_and_scalars_come_back(tmp_path):
    np.savez(tmp_path / "file.npz", empty=np.zeros((0, 3)), scalar=np.array(4))
    found = read_all(tmp_path / "file.npz")
    assert found["empty"].shape == (0, 3)
    assert found["scalar"] == 4


def test_members_and_their_copies_that_take_more_than_the_memory_free_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "file.npz"
    np.savez_compressed(path, zeros=np.zeros(2**20, np.uint8), ones=np.ones(2**20, np.uint8))
    assert path.stat().st_size < 2**13
    both_twice = 2 * 2 * (2**20 + 128)  # each with the header of a .npy file
    monkeypatch.setattr(npz_module, "available_memory", lambda: both_twice)
    assert read_all(path)["ones"].sum() == 2**20
    monkeypatch.setattr(npz_module, "available_memory", lambda: both_twice - 1)
    with pytest.raises(DatasetError, match=r"takes 0\.0 GiB to read; expected at most the 0\.0 GiB"):
        read_all(path)


def test_reading_takes_the_size_of_a_member_and_no_more(tmp_path):
    path = tmp_path / "file.npz"
    np.savez_compressed(path, zeros=np.zeros(2**24, np.uint8))
    tracemalloc.start()
    try:
        read_all(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24 + 2**22
    finally:
        tracemalloc.stop()


def test_a_member_that_says_more_than_deflate_can_pack_is_refused_unread(tmp_path):
    path = tmp_path / "file.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.npy", "w") as member:
            np.lib.format.write_array(member, np.zeros(100))
        archive.filelist[0].file_size = 2**31
    with pytest.raises(DatasetError, match=r"member 'a' says that it has 2,147,483,648 bytes in \d+; expected no more"):
        read_all(path)


def test_each_row_takes_memory_besides(path, monkeypatch):
    monkeypatch.setattr(npz_module, "available_memory", lambda: 2**20)
    with open_npz(path) as shard:
        shard.require_rows(2**12)
        with pytest.raises(DatasetError, match="GiB to read"):
            shard.require_rows(2**12 + 1)


@pytest.mark.parametrize("kind", ["directory", "pipe", "device"])
def test_only_regular_files_are_opened(tmp_path, kind):
    path = tmp_path / "file.npz"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(DatasetError, match=r"file\.npz: cannot be opened .*is a (directory|pipe or device)"):
        read_all(path)


def test_a_missing_file_and_a_missing_member_are_named(path):
    with pytest.raises(DatasetError, match=r"none\.npz: no such file"), open_npz(path.with_name("none.npz")):
        pass
    with open_npz(path) as shard, pytest.raises(DatasetError, match=r"file\.npz: has no member 'c'.*\['a', 'b'\]"):
        shard.read("c")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06"])
def test_what_is_no_zip_is_named(path, content):
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"file\.npz: cannot be opened .*; expected an \.npz file"):
        read_all(path)


def test_pickled_objects_are_refused(path):
    np.savez(path, ragged=np.array([[1], [2, 3]], dtype=object))
    with pytest.raises(DatasetError, match="member 'ragged' holds pickled Python objects"):
        read_all(path)


def test_a_wrong_checksum_is_found(path):
    np.savez(path, **MEMBERS)  # not compressed, so that the flipped bit is one of the data
    content = bytearray(path.read_bytes())
    content[content.index(MEMBERS["a"].tobytes()) + 700] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"member 'a' cannot be read .*CRC"):
        read_all(path)


def test_a_header_that_promises_more_than_there_is_allocates_nothing(path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little") + header + b"12345678")
    with pytest.raises(DatasetError, match=r"member 'a' holds 8 bytes; expected 8000000000000 for float64"):
        read_all(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_either_read_or_refused(path, data):
    np.savez_compressed(path, **MEMBERS)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = read_all(path)
    except DatasetError:
        return
    for name in found.keys() & MEMBERS.keys():
        assert found[name].nbytes <= len(content) * 1100  # deflate's best: nothing is made up


def test_a_damaged_header_is_not_interpreted_before_its_checksum(path):
    np.savez(path, **MEMBERS)
    path.write_bytes(path.read_bytes().replace(b"'<f4'", b"'|O8'"))
    with pytest.raises(DatasetError, match=r"member 'a' cannot be read .*CRC"):
        read_all(path)


def test_a_file_written_without_going_back_is_read(tmp_path):
    """Sizes and checksums then stand after the data."""
    with (tmp_path / "file.npz").open("wb") as file:
        np.savez_compressed(OneWay(file), **MEMBERS)
    assert read_all(tmp_path / "file.npz").keys() == MEMBERS.keys()


class OneWay:
    def __init__(self, file):
        self.write, self.flush = file.write, file.flush

    def read(self):  # numpy takes it for a file because of this
        raise AssertionError


@pytest.mark.parametrize("garbage", [b"noise", bytes(60_000)])
def test_what_follows_the_directory_has_no_meaning(path, garbage):
    path.write_bytes(path.read_bytes() + garbage)
    assert read_all(path).keys() == MEMBERS.keys()


def test_bytes_that_belong_to_no_member_are_refused(path):
    content = path.read_bytes()
    path.write_bytes(b"#" + content)
    with pytest.raises(DatasetError, match="BadZipFile: 1 bytes before the first member"):
        read_all(path)
    path.write_bytes(content + content)  # zipfile would read the second one, and never mention the first
    with pytest.raises(DatasetError, match=f"BadZipFile: {len(content)} bytes before the first member"):
        read_all(path)


def test_a_directory_entry_that_swallows_the_next_one_is_found(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 32] ^= 46 + len("b.npy")  # the length of its comment
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["a.npy"]
    with pytest.raises(DatasetError, match=r"BadZipFile: \d+ bytes between 'a\.npy' and what follows it"):
        read_all(path)


def test_a_name_that_is_damaged_in_one_place_is_found_though_nobody_asks_for_it(path):
    content = path.read_bytes()
    for at in (content.index(b"b.npy"), content.rindex(b"b.npy")):
        path.write_bytes(content[:at] + b"c" + content[at + 1 :])
        with pytest.raises(DatasetError, match="BadZipFile: File name in directory .* differ"), open_npz(path):
            pass


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["a.npy", "a"])
def test_two_members_of_one_name_are_refused(path, second):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"one")
        archive.writestr(second, b"other")
    with pytest.raises(DatasetError, match="BadZipFile: two members of one name"), open_npz(path):
        pass


def test_packing_that_zipfile_cannot_bound_is_refused(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", bytes(200))
    with pytest.raises(DatasetError, match=r"'a\.npy' is packed neither plainly nor with deflate"), open_npz(path):
        pass


def test_a_directory_that_promises_more_than_there_is_allocates_nothing(path):
    np.savez(path, **MEMBERS)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\1\2") + 20
    content[at : at + 8] = (2**31 - 1).to_bytes(4, "little") * 2  # packed and unpacked size
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=r"BadZipFile: -\d+ bytes between 'a\.npy'"), open_npz(path):
            pass
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
