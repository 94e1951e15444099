"""Hostile files at every door: each is refused in one line, and nothing is written outside of its directory."""

import io
import json
import math
import os
import shutil
import stat
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from archives import tar_entry, tar_of, written, zip_entry, zip_of
from click.testing import CliRunner
from hostile_onnx import FILES as ONNX_FILES
from run_offrl import offrl
from web_server import web_server

from offrl.cli import main
from offrl.shards import Manifest
from offrl.system.json_files import sealed
from offrl.system.sealing import read_seal, write_sealed

SECRET = b"nobody's business"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    root = tmp_path_factory.mktemp("good")
    offrl("collect", "CartPole-v1", root / "data", "--transitions", 60, "--workers", 1, "--quiet")
    offrl("train", root / "data", "--updates", 2, "--run", root / "run", "--set", "batch_size=4", "--quiet")
    shutil.rmtree(root / "data" / ".store")
    return root


@pytest.fixture
def outer(tmp_path):
    """A directory with a file that nobody may read into an output; hostile files go into `outer/in`."""
    (tmp_path / "secret.txt").write_bytes(SECRET)
    (tmp_path / "in").mkdir()
    return tmp_path


def refused(outer, *command):
    """Runs a command and requires one line of an error, and nothing new but in `outer/in`."""
    before = {name: content for name, content in written(outer).items() if not name.startswith("in/")}
    result = CliRunner().invoke(main, [str(word) for word in command])
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert lines[0].isprintable()
    assert len(lines[0]) < 3_000
    assert {name: content for name, content in written(outer).items() if not name.startswith("in/")} == before
    return lines[0]


# ---- npz


def npz(members, **edits):
    """A shard of stacked vectors in which some members are replaced; None leaves one out."""
    arrays = {
        "states": np.zeros((4, 2), np.float32),
        "actions": np.zeros(4, np.int64),
        "next_states": np.zeros((4, 2), np.float32),
        "rewards": np.zeros(4, np.float32),
        "dones": np.zeros(4, np.bool_),
        **members,
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: array for name, array in arrays.items() if array is not None})
    return buffer.getvalue()


def header(shape, descr="<f4"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def raw(content):
    return zip_of([("actions.npy", content), ("states.npy", header((0, 2)))])


def claims(size):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("states.npy", header((1, 1)) + bytes(4))
        archive.filelist[0].file_size = size
    return buffer.getvalue()


def bzip():
    return zip_of([("states.npy", header((1, 1)) + bytes(4))], zipfile.ZIP_BZIP2)


NPZ = {
    "pickle": lambda: npz({"actions": np.array([[1], [2, 3]], object)}),
    "a terabyte": lambda: raw(header((2**38,)) + bytes(8)),
    "more than deflate can": lambda: claims(2**31),
    "negative": lambda: raw(header((-1,)) + bytes(8)),
    "no rows but 2 ** 60 of nothing": lambda: npz({"actions": np.zeros((2, 0), np.int64)}),
    "texts": lambda: npz({"actions": np.array(["left"] * 4)}),
    "void": lambda: raw(header((10**9,), "|V0")),
    "a deep header": lambda: raw(np.lib.format.magic(1, 0) + struct.pack("<H", 9_000) + b"(" * 9_000),
    "version 9": lambda: raw(b"\x93NUMPY\x09\x00" + bytes(20)),
    "bzip2": bzip,
    "twice": lambda: zip_of([("states.npy", b"1"), ("states.npy", b"2")]),
    "25,000 members": lambda: zip_of([(f"{index}.npy", b"") for index in range(25_000)]),
    "bytes in front": lambda: b"MZ" + bytes(100) + npz({}),
    "NaN": lambda: npz({"rewards": np.full(4, math.nan, np.float32)}),
    "an action of 2 ** 40": lambda: npz({"actions": np.full(4, 2**40)}),
    "a name with an escape": lambda: zip_of([("\x1b[2J.npy", b"1")]),
    "a path": lambda: zip_of([("../../evil.npy", header((1, 1)) + bytes(4))]),
}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("case", NPZ)
def test_npz(outer, case):
    (outer / "in" / "shard.npz").write_bytes(NPZ[case]())
    refused(outer, "inspect", outer / "in")


# ---- what is no regular file


@pytest.mark.parametrize("kind", ["pipe", "device", "directory"])
@pytest.mark.parametrize("name", ["manifest.json", "shard-00000.npz", "config.json", "model.onnx", "log.h5", "log.csv"])
def test_only_regular_files_are_read(outer, good, kind, name):
    shutil.copytree(good / "data", outer / "in" / "data")
    shutil.copytree(good / "run", outer / "in" / "run")
    folder = {"manifest.json": "data", "shard-00000.npz": "data", "config.json": "run"}.get(name, "")
    path = outer / "in" / folder / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    command = {"data": ["inspect", path.parent], "run": ["export", path.parent, outer / "in" / "out"]}.get(folder)
    if name == "model.onnx":
        command = ["evaluate", path, "--env", "CartPole-v1", "--episodes", 1]
    refused(outer, *(command or ["convert", path, outer / "in" / "out"]))


# ---- JSON: manifests, configs, states


def text(value):
    return lambda found: json.dumps(value(found))


MANIFESTS = {
    "infinity": lambda found: json.dumps(found).replace('"num_transitions": ', '"num_transitions": 1e999, "x": '),
    "NaN": lambda found: json.dumps({**found, "complete": math.nan}),
    "deep": lambda found: "[" * 200_000,
    "a list": lambda found: "[]",
    "twice": lambda found: json.dumps(found)[:-1] + ', "complete": true}',
    "complete: no": lambda found: json.dumps({**found, "complete": "no"}),
    "a shard elsewhere": lambda found: json.dumps(found).replace("shard-00000.npz", "../secret.txt"),
    "an absolute shard": lambda found: json.dumps(found).replace("shard-00000.npz", "/etc/passwd"),
    "NUL": lambda found: json.dumps(found).replace("shard-00000.npz", "a\\u0000.npz"),
    "half a character": lambda found: json.dumps(found).replace("shard-00000.npz", "\\ud800.npz"),
    "4.9 transitions": lambda found: json.dumps(found).replace('"num_episodes": ', '"num_episodes": 4.9, "x": '),
    "many names": lambda found: json.dumps({**found, "spec": {**found["spec"], "action_names": ["a"] * 40_000}}),
    "a name of a megabyte": lambda found: json.dumps(
        {**found, "spec": {**found["spec"], "action_names": ["a" * 2**20]}}
    ),
    "a number of 10,000 digits": lambda found: '{"format_version": ' + "9" * 10_000 + "}",
    "a changed number": lambda found: json.dumps({**sealed(found), "generator": {}}),
    "not UTF-8": lambda found: b"\xff\xfe{}",
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests(outer, good, case):
    shutil.copytree(good / "data", outer / "in" / "data")
    path = outer / "in" / "data" / "manifest.json"
    found = json.loads(path.read_text())
    for name in ("sealed", "content_sha256"):
        found.pop(name, None)
    content = MANIFESTS[case](found)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(outer, "inspect", outer / "in" / "data")


CONFIGS = {
    "deep": lambda found: "[" * 200_000,
    "infinity": lambda found: json.dumps({**found, "learner": {"learning_rate": math.inf}}),
    "a module": lambda found: json.dumps({**found, "algorithm": "os:system", "notes": {}}),
    "an encoder": lambda found: json.dumps({**found, "encoder": "os:system", "notes": {}}),
    "threads": lambda found: json.dumps({**found, "notes": {**found["notes"], "threads": 10**9}}),
    "a spec of another kind": lambda found: json.dumps({**found, "spec": "x"}),
    "a huge observation": lambda found: json.dumps({**found, "spec": {**found["spec"], "observation_shape": [10**12]}}),
    "a list of settings": lambda found: json.dumps({**found, "learner": [1]}),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs(outer, good, case):
    shutil.copytree(good / "run", outer / "in" / "run")
    path = outer / "in" / "run" / "config.json"
    found = json.loads(path.read_text())
    for name in ("sealed", "content_sha256"):
        found.pop(name, None)
    path.write_text(CONFIGS[case](found))
    refused(outer, "export", outer / "in" / "run", outer / "in" / "out")


def tensors(header, data=b""):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + data


CHECKPOINTS = {
    "a header of 2 ** 60": ("policy.safetensors", struct.pack("<Q", 2**60)),
    "deep": ("policy.safetensors", tensors(b"[" * 100_000)),
    "a terabyte": (
        "policy.safetensors",
        tensors({"w": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}),
    ),
    "overlapping": (
        "policy.safetensors",
        tensors({n: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)),
    ),
    "other tensors": (
        "policy.safetensors",
        tensors({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)),
    ),
    "many tensors": (
        "policy.safetensors",
        tensors({f"w{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(50_000)}),
    ),
    "a pickle": ("policy.safetensors", b"\x80\x04cos\nsystem\n(S'true'\ntR."),
    "no number": ("state.json", json.dumps({"step": "two"}).encode()),
    "deep state": ("state.json", b"[" * 100_000),
    "a list for a state": ("state.json", b"[1]"),
    "an infinite state": ("state.json", b'{"step": 1e999}'),
}


@pytest.mark.filterwarnings("ignore:.*the run goes on from update 0:UserWarning")
@pytest.mark.parametrize("case", CHECKPOINTS)
def test_checkpoints(outer, good, case):
    run = shutil.copytree(good / "run", outer / "in" / "run")
    shutil.copytree(good / "data", outer / "in" / "data")
    name, content = CHECKPOINTS[case]
    for checkpoint in (run / "checkpoints").glob("step-*"):
        seal = read_seal(checkpoint)
        contents = {each: (checkpoint / each).read_bytes() for each in seal["files"] if (checkpoint / each).exists()}
        write_sealed(checkpoint, {**contents, name: content}, step=seal["step"])  # as if it had been written so
    if name == "policy.safetensors":
        refused(outer, "export", run, outer / "in" / "out")
    else:
        # No checkpoint is whole: the run begins again, and says so; or it is refused.
        result = CliRunner().invoke(main, ["train", "--resume", str(run), "--updates", "2", "--quiet"])
        assert result.exit_code in (0, 2), repr(result.exception)
        assert "Traceback" not in result.output


# ---- archives, and servers


ARCHIVES = {
    "zip: outside": lambda: zip_of([("../evil.npz", b"1")]),
    "zip: absolute": lambda: zip_of([("/tmp/evil.npz", b"1")]),
    "zip: a drive": lambda: zip_of([("C:evil.npz", b"1")]),
    "zip: a backslash": lambda: zip_of([("a\\..\\evil.npz", b"1")]),
    "zip: deep": lambda: zip_of([("a/" * 17 + "evil.npz", b"1")]),
    "zip: a link": lambda: zip_of([(zip_entry("link", stat.S_IFLNK | 0o777), b"/etc/passwd")]),
    "zip: a device": lambda: zip_of([(zip_entry("device", stat.S_IFCHR | 0o777), b"")]),
    "zip: twice": lambda: zip_of([("a.npz", b"1"), ("a.npz", b"2")]),
    "zip: a bomb": lambda: zip_of([("a.npz", bytes(2**25))], zipfile.ZIP_DEFLATED),
    "zip: lzma": lambda: zip_of([("a.npz", b"1")], zipfile.ZIP_LZMA),
    "zip: a file as a folder": lambda: zip_of([("a", b"1"), ("a/b.npz", b"2")]),
    "zip: an escape": lambda: zip_of([("../\x1b[2J", b"1")]),
    "tar: outside": lambda: tar_of([("../evil.npz", b"1")]),
    "tar: a link": lambda: tar_of([(tar_entry("link", b"2", "/etc/passwd"), b"")]),
    "tar: a hard link": lambda: tar_of([(tar_entry("link", b"1", "../secret.txt"), b"")]),
    "tar: a pipe": lambda: tar_of([(tar_entry("pipe", b"6"), b"")]),
    "tar: a long header": lambda: tar_of([("a" * 2**21, b"1")]),
    "tar: a bomb": lambda: tar_of([("a.npz", bytes(2**25))], "gz"),
    "tar: cut short": lambda: tar_of([("a.npz", bytes(2**12))])[:2_000],
    "a web page": lambda: b"<html>",
    "nothing": lambda: b"",
}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("case", ARCHIVES)
def test_archives(outer, case):
    (outer / "in" / "archive").write_bytes(ARCHIVES[case]())
    refused(outer, "fetch", outer / "in" / "archive", outer / "in" / "out", "--max-ratio", 1.2)
    assert not (outer / "in" / "out").exists()


@pytest.mark.parametrize("case", ["redirect to a file", "redirect without end", "too large", "cut short", "a page"])
def test_servers(outer, case):
    with web_server() as site:
        site.files = {"/data.zip": zip_of([("a.npz", bytes(2**12))]), "/page": b"<html>"}
        site.redirects = {"/file": f"file://{outer}/secret.txt", "/loop": "/loop"}
        path = {"redirect to a file": "/file", "redirect without end": "/loop", "a page": "/page"}.get(
            case, "/data.zip"
        )
        if case == "cut short":
            site.break_after = 100
        most = 1_000 if case == "too large" else 10**6
        refused(outer, "fetch", f"{site.url}{path}", outer / "in" / "out", "--max-size", most)
    assert not (outer / "in" / "out").exists()


# ---- tables and other formats


CSV = {
    "a line of 20 MB": b"episode,action\n" + b"1" * 2**25,
    "a cell of 1 MB": b"episode,action\n" + b"1" * 2**20 + b",1\n",
    "NUL": b"episode,action\n\0,1\n",
    "infinite": b"episode,action,observation_0,reward\n1,0,inf,1\n1,0,1,1\n",
    "not UTF-8": b"\xff\xfe\n",
    "an escape": b"\x1b[2J,\x1b[2J\n1,1\n",
}


@pytest.mark.parametrize("case", CSV)
def test_tables(outer, case):
    (outer / "in" / "log.csv").write_bytes(CSV[case])
    refused(outer, "convert", outer / "in" / "log.csv", outer / "in" / "out")


def test_a_parquet_file_that_is_none(outer):
    pytest.importorskip("pyarrow")
    (outer / "in" / "log.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    refused(outer, "convert", outer / "in" / "log.parquet", outer / "in" / "out")


@pytest.mark.parametrize("case", ["a terabyte", "external", "soft link", "external link", "cut short", "no file"])
@pytest.mark.parametrize("door", ["d3rlpy", "minari"])
def test_hdf5(outer, case, door):
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("minari")
    folder = outer / "in" / "set" / "data"
    folder.mkdir(parents=True)
    path = folder / "main_data.hdf5"
    with h5py.File(path, "w") as file:
        file["columns"], file["num_episodes"] = [b"observations", b"actions", b"rewards", b"terminated"], 1
        if case == "a terabyte":
            file.create_dataset("observations_0", (2**38,), np.float32, chunks=(2**10,))
        elif case == "external":
            file.create_dataset("observations_0", (17,), np.uint8, external=[(str(outer / "secret.txt"), 0, 17)])
        elif case == "soft link":
            file["observations_0"] = h5py.SoftLink("/columns")
        elif case == "external link":
            file["observations_0"] = h5py.ExternalLink(str(outer / "secret.txt"), "/")
    if case == "cut short":
        path.write_bytes(path.read_bytes()[:1_000])
    elif case == "no file":
        path.write_bytes(b"<html>")
    (folder / "metadata.json").write_text(json.dumps({"observation_space": "{}", "action_space": "{}"}))
    source = path if door == "d3rlpy" else outer / "in" / "set"
    line = refused(outer, "convert", source, outer / "in" / "out")
    assert SECRET.decode() not in line


# ---- ONNX


@pytest.mark.parametrize("case", ONNX_FILES)
def test_onnx(outer, case):
    path = outer / "in" / "model.onnx"
    path.write_bytes(ONNX_FILES[case](outer))
    refused(outer, "evaluate", path, "--env", "CartPole-v1", "--episodes", 1, "--workers", 0, "--quiet")


# ---- what a terminal would obey, and datasets that a run names


def test_escapes_in_names_are_shown_and_not_obeyed(outer, good):
    data = shutil.copytree(good / "data", outer / "in" / "data")
    manifest = Manifest.load(data)
    replace(manifest, spec=replace(manifest.spec, action_names=("\x1b[2Jleft", "ri\u202eght"))).save(data)
    shown = offrl("inspect", data).stdout
    assert all(line.isprintable() for line in shown.splitlines())
    assert r"\x1b[2Jleft" in shown
    assert r"ri\u202eght" in shown


def test_a_dataset_that_only_a_run_names_is_not_written_to(outer, good):
    shutil.rmtree(good / "data" / ".store", ignore_errors=True)  # of a run that was resumed
    before = written(good / "data")
    result = offrl("export", good / "run", outer / "in" / "out")
    assert written(good / "data") == before
    assert "warning: verified on random observations only" in result.stderr
    assert "0 of them real" in result.stdout
    data = shutil.copytree(good / "data", outer / "in" / "data")
    named = offrl("export", good / "run", outer / "in" / "named", "--data", data)
    assert named.stderr == ""
    assert " 0 of them real" not in named.stdout


def test_there_are_sixty_of_them():
    tables = (NPZ, MANIFESTS, CONFIGS, CHECKPOINTS, ARCHIVES, CSV, ONNX_FILES)
    assert sum(map(len, tables)) >= 60
