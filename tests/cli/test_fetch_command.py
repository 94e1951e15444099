import shutil

import pytest
from run_offrl import offrl, offrl_json

from offrl.cli import main
from offrl.shards.manifest import file_sha256


def test_what_is_fetched_can_be_inspected(data, tmp_path):
    packed = tmp_path / "log.zip"
    shutil.make_archive(str(tmp_path / "log"), "zip", data.parent, data.name)
    found = offrl_json("fetch", packed, tmp_path / "fetched", "--sha256", file_sha256(packed), "--quiet")
    assert found == {
        "directory": str(tmp_path / "fetched"),
        "source": str(packed),
        "sha256": file_sha256(packed),
        "size": packed.stat().st_size,
    }
    inspected = offrl_json("inspect", tmp_path / "fetched", "--quiet")
    assert inspected == offrl_json("inspect", data, "--quiet")


@pytest.mark.parametrize(
    ("text", "size"), [("10G", 10 * 10**9), ("1.5m", 1_500_000), ("2KB", 2000), ("700", 700), ("1T", 10**12)]
)
def test_sizes_have_units(text, size):
    arguments = ["log.zip", "data", "--max-size", text]
    assert main.commands["fetch"].make_context("fetch", arguments).params["max_size"] == size


@pytest.mark.parametrize("text", ["10X", "G", "-1G", "1e9"])
def test_other_sizes_are_refused(text):
    assert f"{text!r} is not a size such as 500M" in offrl("fetch", "a", "b", f"--max-size={text}", code=2).stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--max-size", "10"), "is larger than 10.0B"),
        (("--max-unpacked", "10"), "unpacks to more than 10.0B"),
        (("--max-members", "1"), "holds more than 1 files and folders"),
        (("--sha256", "0" * 64), "sha256 is"),
    ],
)
def test_limits_are_passed_on(data, tmp_path, option, message):
    shutil.make_archive(str(tmp_path / "log"), "zip", data)
    refused = offrl("fetch", tmp_path / "log.zip", tmp_path / "fetched", *option, "--quiet", code=2).stderr
    assert refused.startswith(f"error: {tmp_path / 'log.zip'}: {message}")
    assert refused.count("\n") == 1
    assert not (tmp_path / "fetched").exists()
