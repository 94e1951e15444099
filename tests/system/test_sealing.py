import pytest

from offrl.system.sealing import SEAL_NAME, read_seal, read_sealed, write_sealed


def test_a_sealed_file_is_read_and_a_changed_one_refused(tmp_path):
    write_sealed(tmp_path, {"b": b"", "a": b"abc"}, step=3)
    found = read_seal(tmp_path)
    assert found["step"] == 3
    assert found["files"]["a"] == {
        "size": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",  # FIPS 180-2, appendix B.1
    }
    assert read_sealed(tmp_path, "a", found) == b"abc"
    (tmp_path / "a").write_bytes(b"abd")
    with pytest.raises(ValueError, match="was changed"):
        read_sealed(tmp_path, "a", found)
    (tmp_path / "c").write_bytes(b"new")
    with pytest.raises(ValueError, match="does not name it"):
        read_sealed(tmp_path, "c", found)


def test_a_directory_without_a_seal_is_read_as_it_is(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert read_seal(tmp_path) is None
    assert read_sealed(tmp_path, "a", None) == b"abc"


def test_a_changed_seal_is_refused(tmp_path):
    write_sealed(tmp_path, {"a": b"abc"})
    path = tmp_path / SEAL_NAME
    path.write_text(path.read_text().replace('"size": 3', '"size": 4'))
    with pytest.raises(ValueError, match="changed since"):
        read_seal(tmp_path)
