import json
import os
import subprocess
import sys

import pytest

from offrl.system.files import (
    cache_home,
    new_directory,
    open_regular,
    parse_size,
    replacing,
    replacing_directory,
    require_writable,
)
from offrl.system.json_files import write_json


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write_half():
        with replacing(path) as partial:
            partial.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_write_json_makes_the_folder_and_replaces(tmp_path):
    path = tmp_path / "new" / "file.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_a_place_that_cannot_be_written_is_found_out_before_the_work(tmp_path):
    require_writable(tmp_path / "new" / "file.json")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        require_writable(tmp_path / "file" / "inside.json")


def test_a_new_directory_is_whole_or_not_there(tmp_path):
    def fill(stop):
        with new_directory(tmp_path / "sub" / "new") as partial:
            (partial / "a").write_text("1")
            if stop:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(stop=True)
    assert list((tmp_path / "sub").iterdir()) == []
    fill(stop=False)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["new"]
    assert (tmp_path / "sub" / "new" / "a").read_text() == "1"


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("OFFRL_CACHE", str(tmp_path))
    assert cache_home() == tmp_path
    monkeypatch.delenv("OFFRL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_home() == tmp_path / ".cache" / "offrl"


@pytest.mark.parametrize(("text", "size"), [("700", 700), ("2KB", 2000), ("1.5m", 1_500_000), ("10G", 10 * 10**9)])
def test_sizes_have_decimal_units(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "10X", "-1G", "1e9"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match=f"'{text}' is not a size such as 500M or 1.5G"):
        parse_size(text)


def test_a_directory_is_replaced_whole(tmp_path):
    for text in ("1", "2"):
        with replacing_directory(tmp_path / "made") as partial:
            (partial / "a").write_text(text)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert (tmp_path / "made" / "a").read_text() == "2"


_KILLED = """
import os, sys
from pathlib import Path
from offrl.system.files import new_directory, replacing
with {what}(Path(sys.argv[1])) as partial:
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("what", ["replacing", "new_directory"])
def test_what_a_killed_process_left_is_removed_by_the_next_who_writes(tmp_path, what):
    subprocess.run([sys.executable, "-c", _KILLED.format(what=what), str(tmp_path / "a")], check=False)
    assert [path.name[:3] for path in tmp_path.iterdir()] == [".a."]
    with replacing(tmp_path / "another"):  # another target: not its litter
        assert len(list(tmp_path.iterdir())) == 2
    with replacing(tmp_path / "a") as partial:
        partial.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "another"}


def test_what_was_left_of_writing_a_file_in_two_steps_is_removed(tmp_path):
    (tmp_path / "..a.0123456789ab.partial.ba9876543210.partial").touch()
    (tmp_path / ".b.0123456789ab.partial").touch()
    with replacing(tmp_path / "a") as partial:
        partial.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".b.0123456789ab.partial"}


def test_two_who_write_the_same_target_at_once_do_not_touch_each_others_files(tmp_path):
    with replacing(tmp_path / "a") as first:
        first.write_text("first")
        with replacing(tmp_path / "a") as second:
            second.write_text("second")
        assert (tmp_path / "a").read_text() == "second"
    assert (tmp_path / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_only_regular_files_are_opened(tmp_path):
    (tmp_path / "file").write_text("text")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"text"
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(OSError, match=r"is a (directory|pipe or device)"):
            open_regular(path)
