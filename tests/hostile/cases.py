"""Hostile files at every door, each with the command that reads it; for the tests and `python -m benchmarks faults`."""

from __future__ import annotations

import atexit
import json
import math
import os
import shutil
import stat
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from archives import tar_entry, tar_of, zip_entry, zip_of
from hostile_npz import FILES as NPZ
from hostile_onnx import FILES as ONNX
from run_offrl import offrl
from web_server import web_server

from offrl.system.json_files import sealed
from offrl.system.sealing import read_seal, write_sealed

SECRET = b"nobody's business"
"""In `secret.txt`, which no output and no message may hold."""

INSIDE = "in"
"""The directory that a case writes its files into and names for outputs: nothing may change beside it."""

Case = Callable[[Path], AbstractContextManager["list[str]"]]
CASES: dict[str, Case] = {}
"""By `door: what`. Each makes its files in an empty directory, and gives the arguments of `offrl` that read them."""


def add(name: str, make: Callable[[Path], Any]) -> None:
    """Adds a case whose `make` gets the directory `in` and returns the arguments, or a context manager with them."""

    @contextmanager
    def case(outer: Path) -> Iterator[list[str]]:
        (outer / "secret.txt").write_bytes(SECRET)
        inside = outer / INSIDE
        inside.mkdir()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Duplicate name", UserWarning)
            made = make(inside)
        if isinstance(made, AbstractContextManager):
            with made as arguments:
                yield [*map(str, arguments)]
        else:
            yield [*map(str, made)]

    CASES[name] = case


@cache
def good() -> Path:
    """A directory with a small dataset, `data`, and a run, `run`; made once a process, in a process of its own."""
    root = Path(tempfile.mkdtemp(prefix="offrl-hostile-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks beside threads
        child = os.fork()
    if not child:
        try:
            _make_good(root)
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("no good dataset and run to begin with")
    return root


def _make_good(root: Path) -> None:
    data, run = root / "data", root / "run"
    offrl("collect", "CartPole-v1", data, "--transitions", 60, "--workers", 1, "--quiet")
    offrl("train", data, "--updates", 2, "--run", run, "--set", "batch_size=4", "--threads", 1, "--quiet")
    shutil.rmtree(data / ".store")


def copied(name: str, inside: Path) -> Path:
    """A copy of the good dataset or run."""
    return shutil.copytree(good() / name, inside / name)


# ---- npz


def shard(content: Callable[[], bytes], inside: Path) -> list[Any]:
    (inside / "shard.npz").write_bytes(content())
    return ["inspect", inside]


for what, content in NPZ.items():
    add(f"npz: {what}", partial(shard, content))


# ---- what is no regular file


def irregular(kind: str, name: str, inside: Path) -> list[Any]:
    folder = {"manifest.json": "data", "shard-00000.npz": "data", "config.json": "run"}.get(name, "")
    path = inside / folder / name
    if folder:
        copied(folder, inside)
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    if folder:
        return ["inspect", path.parent] if folder == "data" else ["export", path.parent, inside / "out"]
    if name == "model.onnx":
        return ["evaluate", path, "--env", "CartPole-v1", "--episodes", 1]
    return ["convert", path, inside / "out"]


for kind in ("pipe", "device", "directory"):
    for name in ("manifest.json", "shard-00000.npz", "config.json", "model.onnx", "log.h5", "log.csv"):
        add(f"no file: {name}, a {kind}", partial(irregular, kind, name))


# ---- JSON: manifests and configs


def unsealed(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return {name: value for name, value in found.items() if name not in ("sealed", "content_sha256")}


MANIFESTS: Mapping[str, Callable[[dict[str, Any]], str | bytes]] = {
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

CONFIGS: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "deep": lambda found: "[" * 200_000,
    "infinity": lambda found: json.dumps({**found, "learner": {"learning_rate": math.inf}}),
    "a module": lambda found: json.dumps({**found, "algorithm": "os:system", "notes": {}}),
    "an encoder": lambda found: json.dumps({**found, "encoder": "os:system", "notes": {}}),
    "threads": lambda found: json.dumps({**found, "notes": {**found["notes"], "threads": 10**9}}),
    "a spec of another kind": lambda found: json.dumps({**found, "spec": "x"}),
    "a huge observation": lambda found: json.dumps({**found, "spec": {**found["spec"], "observation_shape": [10**12]}}),
    "a list of settings": lambda found: json.dumps({**found, "learner": [1]}),
}


def manifest(change: Callable[[dict[str, Any]], str | bytes], inside: Path) -> list[Any]:
    path = copied("data", inside) / "manifest.json"
    content = change(unsealed(path))
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return ["inspect", path.parent]


def config(change: Callable[[dict[str, Any]], str], inside: Path) -> list[Any]:
    path = copied("run", inside) / "config.json"
    path.write_text(change(unsealed(path)))
    return ["export", path.parent, inside / "out"]


for what, change in MANIFESTS.items():
    add(f"manifest: {what}", partial(manifest, change))
for what, change in CONFIGS.items():
    add(f"config: {what}", partial(config, change))


# ---- safetensors


def tensors(header: Any, data: bytes = b"") -> bytes:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + data


SAFETENSORS = {
    "a header of 2 ** 60": struct.pack("<Q", 2**60),
    "deep": tensors(b"[" * 100_000),
    "a terabyte": tensors({"w": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}),
    "overlapping": tensors({n: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)),
    "other tensors": tensors({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)),
    "many tensors": tensors({f"w{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(50_000)}),
    "a pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
}


def checkpoint(name: str, content: bytes, inside: Path) -> list[Any]:
    """One file of each checkpoint replaced, and sealed as if it had been written so."""
    run = copied("run", inside)
    for folder in (run / "checkpoints").glob("step-*"):
        seal = read_seal(folder)
        contents = {each: (folder / each).read_bytes() for each in seal["files"] if (folder / each).exists()}
        write_sealed(folder, {**contents, name: content}, step=seal["step"])
    return ["export", run, inside / "out"]


for what, bad in SAFETENSORS.items():
    add(f"safetensors: {what}", partial(checkpoint, "policy.safetensors", bad))


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
    "archive: a web page": lambda: b"<html>",
    "archive: nothing": lambda: b"",
}


def archive(content: Callable[[], bytes], inside: Path) -> list[Any]:
    (inside / "archive").write_bytes(content())
    return ["fetch", inside / "archive", inside / "out", "--max-ratio", 1.2]


@contextmanager
def server(path: str, settings: Mapping[str, int], most: int, inside: Path) -> Iterator[list[Any]]:
    with web_server() as site:
        site.files = {"/data.zip": zip_of([("a.npz", bytes(2**12))]), "/page": b"<html>"}
        site.redirects = {"/file": f"file://{inside.parent}/secret.txt", "/loop": "/loop"}
        vars(site).update(settings)
        yield ["fetch", f"{site.url}{path}", inside / "out", "--max-size", most]


for what, content in ARCHIVES.items():
    add(what, partial(archive, content))
add("HTTP: redirect to a file", partial(server, "/file", {}, 10**6))
add("HTTP: redirect without end", partial(server, "/loop", {}, 10**6))
add("HTTP: too large", partial(server, "/data.zip", {}, 1_000))
add("HTTP: cut short", partial(server, "/data.zip", {"break_after": 100}, 10**6))
add("HTTP: a page", partial(server, "/page", {}, 10**6))


# ---- tables and other formats


TABLES = {
    "a line of 20 MB": b"episode,action\n" + b"1" * 2**25,
    "a cell of 1 MB": b"episode,action\n" + b"1" * 2**20 + b",1\n",
    "NUL": b"episode,action\n\0,1\n",
    "infinite": b"episode,action,observation_0,reward\n1,0,inf,1\n1,0,1,1\n",
    "not UTF-8": b"\xff\xfe\n",
    "an escape": b"\x1b[2J,\x1b[2J\n1,1\n",
}


def table(name: str, content: bytes, inside: Path) -> list[Any]:
    (inside / name).write_bytes(content)
    return ["convert", inside / name, inside / "out"]


def hdf5(case: str, door: str, inside: Path) -> list[Any]:
    import h5py

    folder = inside / "set" / "data"
    folder.mkdir(parents=True)
    path, secret = folder / "main_data.hdf5", str(inside.parent / "secret.txt")
    with h5py.File(path, "w") as file:
        file["columns"], file["num_episodes"] = [b"observations", b"actions", b"rewards", b"terminated"], 1
        if case == "a terabyte":
            file.create_dataset("observations_0", (2**38,), np.float32, chunks=(2**10,))
        elif case == "external":
            file.create_dataset("observations_0", (17,), np.uint8, external=[(secret, 0, 17)])
        elif case == "soft link":
            file["observations_0"] = h5py.SoftLink("/columns")
        elif case == "external link":
            file["observations_0"] = h5py.ExternalLink(secret, "/")
    if case == "cut short":
        path.write_bytes(path.read_bytes()[:1_000])
    elif case == "no file":
        path.write_bytes(b"<html>")
    (folder / "metadata.json").write_text(json.dumps({"observation_space": "{}", "action_space": "{}"}))
    return ["convert", path if door == "HDF5" else inside / "set", inside / "out"]


for what, bad in TABLES.items():
    add(f"CSV: {what}", partial(table, "log.csv", bad))
if find_spec("pyarrow"):
    add("Parquet: nothing in it", partial(table, "log.parquet", b"PAR1" + bytes(100) + b"PAR1"))
if find_spec("h5py") and find_spec("minari"):
    for door in ("HDF5", "Minari"):
        for what in ("a terabyte", "external", "soft link", "external link", "cut short", "no file"):
            add(f"{door}: {what}", partial(hdf5, what, door))


# ---- ONNX


def onnx_file(content: Callable[[Path], bytes], inside: Path) -> list[Any]:
    path = inside / "model.onnx"
    path.write_bytes(content(inside.parent))
    return ["evaluate", path, "--env", "CartPole-v1", "--episodes", 1, "--workers", 0, "--quiet"]


for what, make in ONNX.items():
    add(f"ONNX: {what}", partial(onnx_file, make))
