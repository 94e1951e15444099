"""The operations that are disturbed, each with data so small that it takes about a second."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks.faulting.processes import run_here

_TRAIN = (
    *("train", "data", "--algorithm", "bc", "--updates", "6", "--device", "cpu", "--threads", "1", "--quiet"),
    *("--set", "checkpoint_period=2", "--set", "log_period=1", "--set", "batch_size=8"),
    *("--set", "precision=fp32", "--set", "compile=off"),  # left alone, they are chosen by measuring
)

_COLLECT = ("collect", "CartPole-v1", "data", "--transitions", "250", "--workers", "1", "--quiet")


@dataclass(frozen=True)
class Operation:
    """A command, the directory that it begins with, and how a user goes on after something happened to it.

    Attributes:
        name: Of the operation.
        command: Arguments of `offrl`, with paths relative to the directory.
        inputs: The directory to begin with, which is copied.
        resume: What to try before the same command, where there is something to resume; empty for nothing.
        resumable: What has to be there for that.
        ignored: Patterns of paths whose content depends on the time.
    """

    name: str
    command: tuple[str, ...]
    inputs: Path
    resume: tuple[str, ...] = ()
    resumable: str = ""
    ignored: tuple[str, ...] = ()

    def begin(self, work: Path) -> None:
        """Fills the empty directory `work`."""
        shutil.copytree(self.inputs, work, symlinks=True, dirs_exist_ok=True)

    def ways_on(self, work: Path) -> list[tuple[str, ...]]:
        """The commands that a user tries one after the other until one does not refuse."""
        is_begun = bool(self.resume) and (work / self.resumable).exists()
        return [self.resume, self.command] if is_begun else [self.command]


def make_operations(folder: Path, work: Path, address: str) -> dict[str, Operation]:
    """All of them; imports in this process what they need, so that no later fork takes the time.

    Args:
        folder: For their inputs.
        work: The empty directory in which they are going to run, and which is empty afterwards: some write its path.
        address: Of the archive that fetch brings.

    Raises:
        RuntimeError: An undisturbed command failed.
    """
    empty, dataset, ingested, trained = (folder / name for name in ("empty", "dataset", "ingested", "trained"))
    empty.mkdir(parents=True)
    train = (*_TRAIN, "--run", "run")
    made = (
        Operation("collect", _COLLECT, empty),
        Operation("ingest", ("inspect", "data", "--quiet"), dataset),
        Operation(
            "train",
            train,
            ingested,
            resume=("train", "--resume", "run", "--quiet"),
            resumable="run",
            ignored=("run/timings.csv", "run/logs.json"),
        ),
        Operation("export", ("export", "run", "onnx", "--quiet"), trained),
        Operation("convert", ("convert", "data", "out", "--to", "stacked", "--quiet"), dataset),
        Operation("fetch", ("fetch", address, "data", "--quiet"), empty),
    )
    results = {"collect": dataset, "ingest": ingested, "train": trained}
    context = get_context("fork")
    ours, theirs = context.Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks beside threads
        child = context.Process(target=_run_all, args=(made, work, results, folder / "log", theirs))
        child.start()
    theirs.close()
    try:
        modules = ours.recv()
    except EOFError:
        raise RuntimeError((folder / "log").read_text(encoding="utf-8")) from None
    child.join()
    for name in modules:
        if name not in sys.modules:
            with suppress(Exception):  # a part of a package that exists only while that is imported
                import_module(name)
    return {operation.name: operation for operation in made}


def _run_all(
    operations: Sequence[Operation], work: Path, results: dict[str, Path], log: Path, modules: Connection
) -> None:
    """Makes the inputs of one from the results of another."""
    with log.open("w") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.chdir(work)
    for operation in operations:
        operation.begin(work)
        if run_here(operation.command):
            sys.stderr.flush()
            raise SystemExit(f"{' '.join(operation.command)} failed")
        if operation.name in results:
            shutil.copytree(work, results[operation.name], symlinks=True)
        empty_directory(work)
    modules.send([*sys.modules])


def empty_directory(directory: Path) -> None:
    """Removes what it holds, but for what belongs to a disk mounted there."""
    for path in directory.iterdir():
        if path.name == "lost+found":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def make_archive() -> bytes:
    """A tar of two files of noise, which comes in several pieces."""
    buffer, rng = io.BytesIO(), np.random.default_rng(0)
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("one.npz", "two.npz"):
            content = io.BytesIO()
            np.savez(content, noise=rng.integers(256, size=150_000, dtype=np.uint8))
            info = tarfile.TarInfo(name)
            info.size = content.tell()
            content.seek(0)
            archive.addfile(info, content)
    return buffer.getvalue()
