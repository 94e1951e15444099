import json
import shutil

import numpy as np
import onnx
import pytest
from run_offrl import offrl, offrl_json

import offrl as library
from offrl.errors import RunError
from offrl.hub import Checked, verify


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
    unsealed = {name for name, outcome in found.items() if outcome == "no checksum"}
    assert unsealed <= {"metrics.csv", "timings.csv", "environment.json"}
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
