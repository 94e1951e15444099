import json
import shutil

import numpy as np
import onnx
import pytest
from run_offrl import offrl, offrl_json

import offrl as library
from offrl.datasets import convert
from offrl.errors import DatasetError, RunError
from offrl.hub import Checked, verify
from offrl.shards import fetch
from offrl.system.json_files import read_json, write_sealed_json


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset with its store, and a run with its ONNX files."""
    root = tmp_path_factory.mktemp("made")
    offrl("collect", "CartPole-v1", root / "data", "--transitions", 200, "--workers", 1, "--quiet")
    offrl("train", root / "data", "--updates", 4, "--run", root / "run", "--set", "batch_size=8", "--quiet")
    offrl("export", root / "run", root / "run", "--quiet")
    return root


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def flip(path, at=-5):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def outcomes(path):
    return {checked.path.name: checked.outcome for checked in verify(path)}


def test_what_offrl_writes_is_whole(made):
    checked = verify(made / "data")
    (store,) = (made / "data" / ".store").glob("*/store.json")
    names = ["manifest.json", "shard-00000.npz", store.parent.name]
    assert [(each.path.name, each.outcome) for each in checked] == [(name, "whole") for name in names]
    assert checked[1] == Checked(made / "data" / "shard-00000.npz", "whole", "sha256 of manifest.json")
    found = outcomes(made / "run")
    assert {*found.values()} == {"whole"}
    sealed = {"config.json", "learner.safetensors", "policy.safetensors", "state.json", "model.onnx"}
    assert sealed <= {name for name, outcome in found.items() if outcome == "whole"}


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("data", "shard-00000.npz"),
        ("data", "manifest.json"),
        ("data", "frames.npy"),
        ("data", "rewards.npy"),
        ("run", "config.json"),
        ("run", "environment.json"),
        ("run", "metrics.csv"),
        ("run", "timings.csv"),
        ("run", "logs.json"),
        ("run", "policy.safetensors"),
        ("run", "learner.safetensors"),
        ("run", "state.json"),
        ("run", "model.onnx"),
        ("run", "model-uint8.onnx"),
    ],
)
def test_one_bit_is_noticed(copy, where, name):
    path = sorted((copy / where).rglob(name))[-1]  # of the checkpoints the last
    flip(path, at=path.stat().st_size // 2)
    damaged = [checked for checked in verify(copy / where) if checked.outcome == "damaged"]
    assert [checked.path.name for checked in damaged] == [path.parent.name if path.suffix == ".npy" else name]
    assert "\n" not in damaged[0].about


@pytest.mark.parametrize("name", ["evaluation.json", "ope.json", "ended.json"])
def test_what_was_said_of_a_run_is_checked_too(copy, name):
    write_sealed_json(copy / "run" / name, {"number": 11111111})
    assert outcomes(copy / "run")[name] == "whole"
    path = copy / "run" / name
    path.write_text(path.read_text().replace("11111111", "22222222"))
    assert outcomes(copy / "run")[name] == "damaged"


def test_an_onnx_file_of_something_else_is_not_called_damaged(made, tmp_path):
    model = onnx.load(made / "run" / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    assert verify(tmp_path / "other.onnx") == [
        Checked(tmp_path / "other.onnx", "no checksum", "an ONNX file, but none of offrl's")
    ]
    (tmp_path / "empty.onnx").touch()  # as a full disk leaves it
    assert outcomes(tmp_path / "empty.onnx") == {"empty.onnx": "damaged"}


def test_what_is_missing_is_damage(copy):
    (copy / "data" / "shard-00000.npz").unlink()
    assert outcomes(copy / "data")["shard-00000.npz"] == "damaged"
    path = sorted((copy / "run").rglob("policy.safetensors"))[-1]
    path.unlink()
    assert outcomes(path.parent)["policy.safetensors"] == "damaged"


def test_what_has_no_checksum_is_said(tmp_path, made):
    np.savez(tmp_path / "mine.npz", actions=np.zeros(3))
    assert outcomes(tmp_path) == {"mine.npz": "no checksum"}
    model = onnx.load(made / "run" / "model.onnx")
    kept = [entry for entry in model.metadata_props if entry.key not in ("sealed", "content_sha256")]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "old.onnx")
    assert library.OnnxPolicy(tmp_path / "old.onnx").spec.num_actions == 2
    assert outcomes(tmp_path / "old.onnx") == {"old.onnx": "no checksum"}
    assert outcomes("carracing-bcq") == {"carracing-bcq.onnx": "whole"}


def test_the_command_exits_with_2_where_anything_is_damaged(copy):
    found = offrl_json("verify", copy / "data", copy / "run" / "model.onnx")
    assert (found["whole"], found["damaged"]) == (4, 0)
    flip(copy / "run" / "model.onnx")
    result = offrl("verify", copy / "data", copy / "run" / "model.onnx", "--json", code=2)
    assert json.loads(result.stdout)["damaged"] == 1
    lines = offrl("verify", copy / "run" / "model.onnx", code=2).stdout.splitlines()
    assert lines[0].startswith(f"damaged      {copy / 'run' / 'model.onnx'}: it was changed since it was written")
    assert lines[1] == "0 whole, 1 damaged, 0 no checksum"


def test_nothing_to_verify_is_refused(tmp_path):
    with pytest.raises(RunError, match="no policy here"):
        verify(tmp_path)


def test_rows_after_the_last_checkpoint_have_no_checksum_yet(copy):
    with (copy / "run" / "metrics.csv").open("a") as file:
        file.write("5,1.0,1.0\n")
    (found,) = (checked for checked in verify(copy / "run") if checked.path.name == "metrics.csv")
    assert (found.outcome, found.about) == ("no checksum", "its last 10 bytes came after the last checkpoint")
    (copy / "run" / "metrics.csv").unlink()
    assert outcomes(copy / "run")["metrics.csv"] == "damaged"


def test_a_checkpoint_of_another_run_is_damage(copy):
    seal = copy / "run" / "checkpoints" / "step-000000004" / "seal.json"
    write_sealed_json(seal, {**read_json(seal), "run": "0" * 64})
    (found,) = (checked for checked in verify(copy / "run") if checked.outcome == "damaged")
    assert found.path == seal.parent
    assert "is not the one that step-000000004 was made with" in found.about


def test_fetched_files_are_compared_with_those_that_came(copy, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(copy / "data" / "shard-00000.npz", source)
    (source / "notes.txt").write_text("logged in spring")
    fetched = fetch(source, tmp_path / "fetched", progress=False)
    names = [".fetch.json", "notes.txt", "shard-00000.npz"]
    assert [(each.path.name, each.outcome) for each in verify(fetched)] == [(name, "whole") for name in names]
    flip(fetched / "notes.txt")
    assert outcomes(fetched)["notes.txt"] == "damaged"


def test_a_fetched_shard_that_was_exchanged_is_refused(copy, tmp_path):
    source = tmp_path / "source"
    convert(copy / "data", source, "stacked", progress=False)
    (source / "manifest.json").unlink()
    fetched = fetch(source, tmp_path / "fetched", progress=False)
    library.open_replay(fetched, progress=False)
    with np.load(fetched / "shard-00000.npz") as shard:
        members = dict(shard)
    np.savez(fetched / "shard-00000.npz", **{**members, "rewards": members["rewards"] + 1})
    with pytest.raises(DatasetError, match=r"as \.fetch\.json says; .*fetch it again"):
        library.open_replay(fetched, progress=False)
    (fetched / ".fetch.json").unlink()
    library.open_replay(fetched, progress=False)
