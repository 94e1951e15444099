"""Whether files are as they were written: datasets, frame stores, runs, checkpoints, ONNX files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from offrl.errors import OfflineRLError, RunError
from offrl.hub.loading import find_policy
from offrl.policies._onnx_file import OnnxFile
from offrl.replay.store import FrameStore
from offrl.shards._npz import open_npz
from offrl.shards.manifest import MANIFEST_NAME, Manifest, file_sha256
from offrl.system.files import read_at_most
from offrl.system.json_files import MAX_BYTES, parse_json, read_json
from offrl.system.sealing import SEAL_NAME, read_seal, read_sealed
from offrl.training.checkpoint import checkpoints, step_of

Outcome = Literal["whole", "damaged", "no checksum"]

_STORE, _CONFIG, _POLICY, _STATE = "store.json", "config.json", "policy.safetensors", "state.json"
_UNSEALED_LOGS = ("metrics.csv", "timings.csv", "evaluations.csv", "environment.json", "evaluation.json")


@dataclass(frozen=True)
class Checked:
    """One file, or one directory as a whole, and what became of its check.

    Attributes:
        path: Of it.
        outcome: "whole": as it was written; "damaged": not so, or missing; "no checksum": readable, and nothing says
            whether it is as it was written.
        about: What was checked, or what is wrong.
    """

    path: Path
    outcome: Outcome
    about: str


def verify(path: str | Path) -> list[Checked]:
    """Checks everything at `path` against the hashes that were written with it, and changes nothing.

    Args:
        path: A dataset's directory, its frame store's, one shard, a run's directory, a checkpoint's, a published
            policy's, an ONNX file, or whatever else `offrl.load` takes.

    Returns:
        What was checked, in order; damage is no error here, but a `Checked`.

    Raises:
        RunError: There is nothing of offrl's.
    """
    path = Path(path)
    if path.suffix == ".npz" and path.exists():
        return [_shard(path, None)]
    if (path / MANIFEST_NAME).exists() or any(path.glob("*.npz")):
        return [*_dataset(path)]
    if (path / _STORE).exists():
        return [_store(path)]
    if (path / _CONFIG).exists() or (path / "checkpoints").is_dir():
        return [*_run(path)]
    if (path / SEAL_NAME).exists() or (path / _POLICY).exists():
        return [*_checkpoint(path)]
    found = find_policy(path)
    if found.is_file() and found.parent == path:
        return [_onnx(file) for file in sorted(path.glob("*.onnx"))]
    if found.is_file():
        return [_onnx(found)]
    raise RunError("nothing here that can be verified", where=path, expected="a dataset, a run or an ONNX file")


def _dataset(directory: Path) -> Iterator[Checked]:
    hashes: dict[str, str] = {}
    if (manifest_path := directory / MANIFEST_NAME).exists():
        try:
            hashes = {shard.name: shard.sha256 for shard in Manifest.load(directory).shards}
            yield _json(manifest_path)
        except OfflineRLError as error:
            yield _damaged(manifest_path, error)
            return
    for name, sha256 in hashes.items():
        yield _shard(directory / name, sha256)
    for path in sorted(directory.glob("*.npz")):
        if path.name not in hashes:
            yield _shard(path, None)
    for path in sorted((directory / ".store").glob(f"*/{_STORE}")):
        yield _store(path.parent)


def _shard(path: Path, sha256: str | None) -> Checked:
    try:
        if sha256 is not None:
            found = file_sha256(path)
            if found != sha256:
                return Checked(path, "damaged", f"sha256 is {found}; {MANIFEST_NAME} says {sha256}")
            return Checked(path, "whole", f"sha256 of {MANIFEST_NAME}")
        with open_npz(path) as shard:
            for name in sorted(shard.names):
                shard.read(name)
    except (OSError, OfflineRLError) as error:
        return _damaged(path, error)
    return Checked(path, "no checksum", "readable, with the CRC-32 of every member; no manifest names it")


def _store(path: Path) -> Checked:
    try:
        store = FrameStore.open(path, "mmap")
        store.frames_between(0, len(store.frames))
        version = read_json(path / _STORE).get("format_version")
    except (OSError, ValueError, OfflineRLError) as error:
        return _damaged(path, error)
    if not store.is_checked:
        return Checked(path, "no checksum", f"a frame store of version {version}: its frames have no hashes")
    return Checked(path, "whole", "hashes of its arrays, and of every block of frames")


def _run(directory: Path) -> Iterator[Checked]:
    if (path := directory / _CONFIG).exists():
        yield _json(path)
    for name in _UNSEALED_LOGS:
        if (path := directory / name).exists():
            yield _json(path) if name.endswith(".json") else Checked(path, "no checksum", "a table that grows")
    for checkpoint in checkpoints(directory / "checkpoints"):
        yield from _checkpoint(checkpoint)
    for path in sorted(directory.glob("*.onnx")):
        yield _onnx(path)


def _checkpoint(directory: Path) -> Iterator[Checked]:
    try:
        seal = read_seal(directory)
    except (OSError, ValueError) as error:
        yield _damaged(directory / SEAL_NAME, error)
        return
    if seal is None:
        for path in sorted(directory.glob("*.safetensors")):
            yield Checked(path, "no checksum", f"no {SEAL_NAME} beside it")
        return
    step = seal.get("step")
    if step is not None and checkpoints(directory.parent).count(directory) and step != step_of(directory):
        yield Checked(directory, "damaged", f"{SEAL_NAME} is of step {step}")
    for name in sorted(seal["files"]):
        path = directory / name
        if not path.exists() and name not in (_POLICY, _STATE):
            continue  # older checkpoints keep their policy only
        try:
            read_sealed(directory, name, seal)
        except (OSError, ValueError) as error:
            yield _damaged(path, error)
        else:
            yield Checked(path, "whole", f"sha256 of {SEAL_NAME}")


def _onnx(path: Path) -> Checked:
    try:
        file = OnnxFile(path)
    except OfflineRLError as error:
        return _damaged(path, error)
    if not file.is_sealed:
        return Checked(path, "no checksum", "readable; written before files said the hash of their content")
    return Checked(path, "whole", "content_sha256 of its metadata")


def _json(path: Path) -> Checked:
    try:
        content = read_at_most(path, MAX_BYTES)
        parse_json(content)
    except (OSError, ValueError) as error:
        return _damaged(path, error)
    if b'"content_sha256"' not in content:
        return Checked(path, "no checksum", "readable; it does not say the hash of its content")
    return Checked(path, "whole", "content_sha256 in it")


def _damaged(path: Path, error: Exception) -> Checked:
    what = str(error).removeprefix(f"{path}: ") if not isinstance(error, OSError) else error.strerror or str(error)
    return Checked(path, "damaged", what)
