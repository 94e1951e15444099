"""Whether files are as they were written: datasets, frame stores, runs, checkpoints, ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from offrl.errors import OfflineRLError, RunError
from offrl.hub.loading import find_policy
from offrl.policies._onnx_file import OnnxFile, is_foreign
from offrl.replay.store import FrameStore
from offrl.runs._tables import LOGS_NAME, SCORES_NAME, read_table, table_extents
from offrl.runs.checkpoint import checkpoints, step_of
from offrl.runs.files import CONFIG_NAME, read_run_config, read_run_json
from offrl.shards._npz import open_npz
from offrl.shards.download import MARKER_NAME, fetched_hashes
from offrl.shards.manifest import MANIFEST_NAME, Manifest, file_sha256
from offrl.system.files import read_at_most
from offrl.system.json_files import MAX_BYTES, is_sealed, parse_json, read_json
from offrl.system.sealing import SEAL_NAME, read_seal, read_sealed

Outcome = Literal["whole", "damaged", "no checksum"]

_STORE, _POLICY, _STATE = "store.json", "policy.safetensors", "state.json"
_OF_RUNS = ("environment.json", "evaluation.json", "ope.json", "ended.json")
_TABLES = ("metrics.csv", "timings.csv", SCORES_NAME)


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
    if (path / MANIFEST_NAME).exists() or (path / MARKER_NAME).exists() or any(path.glob("*.npz")):
        return [*_dataset(path)]
    if (path / _STORE).exists():
        return [_store(path)]
    if (path / CONFIG_NAME).exists() or (path / "checkpoints").is_dir():
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
    fetched: dict[str, str] = {}
    if (marker := directory / MARKER_NAME).exists():
        try:
            fetched = fetched_hashes(directory)
            yield _json(marker)
        except OfflineRLError as error:
            yield _damaged(marker, error)
    if (manifest_path := directory / MANIFEST_NAME).exists():
        try:
            hashes = {shard.name: shard.sha256 for shard in Manifest.load(directory).shards}
            yield _json(manifest_path)
        except OfflineRLError as error:
            yield _damaged(manifest_path, error)
            return
    for name, sha256 in hashes.items():
        yield _shard(directory / name, sha256, MANIFEST_NAME)
    for name in sorted(fetched.keys() - hashes.keys() - {MANIFEST_NAME}):
        yield _shard(directory / name, fetched[name], MARKER_NAME)
    for path in sorted(directory.glob("*.npz")):
        if path.name not in hashes and path.name not in fetched:
            yield _shard(path, None)
    for path in sorted((directory / ".store").glob(f"*/{_STORE}")):
        yield _store(path.parent)


def _shard(path: Path, sha256: str | None, by: str = "") -> Checked:
    try:
        if sha256 is not None:
            found = file_sha256(path)
            if found != sha256:
                return Checked(path, "damaged", f"sha256 is {found}; {by} says {sha256}")
            return Checked(path, "whole", f"sha256 of {by}")
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
    is_good = False  # what else says of which run it is, is compared with a whole config.json only
    if (path := directory / CONFIG_NAME).exists():
        config = _json(path, partial(read_run_config, directory))
        is_good = config.outcome != "damaged"
        yield config
    for name in _OF_RUNS:
        if (path := directory / name).exists():
            yield _json(path, partial(read_run_json, directory, name) if is_good else None)
    yield from _tables(directory)
    published = [*_checkpoint(directory)] if (directory / SEAL_NAME).exists() else []
    yield from published
    for checkpoint in checkpoints(directory / "checkpoints"):
        yield from _checkpoint(checkpoint, directory if is_good else None)
    for path in sorted({*directory.glob("*.onnx")} - {each.path for each in published}):
        yield _onnx(path)


def _tables(directory: Path) -> Iterator[Checked]:
    try:
        extents = table_extents(directory)
    except RunError as error:
        yield _damaged(directory / LOGS_NAME, error)
        return
    for name in _TABLES:
        if not (path := directory / name).exists():
            if name in extents:
                yield Checked(path, "damaged", "it is missing")
            continue
        try:
            read_table(path)
        except (OSError, RunError) as error:
            yield _damaged(path, error)
            continue
        if name not in extents:
            yield Checked(path, "no checksum", "nothing vouches for its rows")
        elif (later := path.stat().st_size - extents[name]["size"]) > 0:
            yield Checked(path, "no checksum", f"its last {later:,} bytes came after the last checkpoint")
        else:
            yield Checked(path, "whole", f"sha256 of {LOGS_NAME}, or of the newest checkpoint")


def _checkpoint(directory: Path, run: Path | None = None) -> Iterator[Checked]:
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
    if run is not None:
        try:
            read_run_config(run, directory)
        except RunError as error:
            yield _damaged(directory, error)
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
        if is_foreign(path):
            return Checked(path, "no checksum", "an ONNX file, but none of offrl's")
        return _damaged(path, error)
    if not file.is_sealed:
        return Checked(path, "no checksum", "readable; written before files said the hash of their content")
    return Checked(path, "whole", "content_sha256 of its metadata")


def _json(path: Path, read: Callable[[], object] | None = None) -> Checked:
    """A JSON file; `read` says what is wrong with it beyond what it says itself."""
    try:
        content = read_at_most(path, MAX_BYTES)
        parse_json(content)
        if read is not None:
            read()
    except (OSError, ValueError, RunError) as error:
        return _damaged(path, error)
    if not is_sealed(content):
        return Checked(path, "no checksum", "readable; it does not say the hash of its content")
    return Checked(path, "whole", "content_sha256 in it")


def _damaged(path: Path, error: Exception) -> Checked:
    what = str(error).removeprefix(f"{path}: ") if not isinstance(error, OSError) else error.strerror or str(error)
    return Checked(path, "damaged", what)
