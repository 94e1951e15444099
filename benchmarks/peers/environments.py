"""The peers' environments, and those of checks: made once, under data/peers, from the configured package index."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Peer:
    """A script, and what its environment holds besides torch as constraints.txt pins it; None: it runs in ours."""

    script: str
    requirement: str | None
    needs_torch: bool = True


PEERS = {
    "d3rlpy": Peer("d3rlpy_bcq.py", "d3rlpy==2.8.1"),  # asks for gymnasium 1.0.0
    "Tianshou": Peer("tianshou_bcq.py", "tianshou==2.0.1"),
    "notebook loop": Peer("notebook_bcq.py", None),
}


CHECKS = {"rliable": Peer("rliable_check.py", "rliable==1.2.0", needs_torch=False)}


class PeerError(Exception):
    """A peer cannot be installed or run; one line says why."""


def python_of(name: str, directory: Path = ROOT / "data" / "peers") -> Path:
    """The interpreter of a peer's environment, which is made where it is missing or of another version.

    Raises:
        PeerError: it cannot be installed.
    """
    peer = (PEERS | CHECKS)[name]
    if peer.requirement is None:
        return Path(sys.executable)
    return environment_of(name, [*([pinned_torch()] if peer.needs_torch else []), peer.requirement], directory)


def environment_of(
    name: str,
    wanted: Sequence[str],
    directory: Path = ROOT / "data" / "peers",
    *,
    unchecked: Sequence[str] = (),
) -> Path:
    """The interpreter of an environment with these packages, which is made where it is missing or holds others.

    Args:
        name: What it is called.
        wanted: Requirements, installed with what they ask for.
        directory: Where the environments are.
        unchecked: Requirements installed as they are, without what they ask for, and whichever Python they ask for.

    Raises:
        PeerError: They cannot be installed.
    """
    environment = directory / f"{name.lower()}-venv"
    stamp = environment / "installed.txt"
    python = environment / "bin" / "python"
    every = [*wanted, *unchecked]
    if stamp.is_file() and stamp.read_text(encoding="utf-8").split() == every:
        return python
    print(f"{name}: installing {' '.join(every)} into {environment}", flush=True)
    shutil.rmtree(environment, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(environment)], every)
    _install(python, wanted)
    if unchecked:
        _install(python, ["--no-deps", "--ignore-requires-python", *unchecked])
    stamp.write_text("\n".join(every) + "\n", encoding="utf-8")
    return python


def add(python: Path, module: str, requirement: str) -> None:
    """Installs one more package into a peer's environment, where the module that it brings is missing.

    Raises:
        PeerError: it cannot be installed.
    """
    if subprocess.run([str(python), "-c", f"import {module}"], capture_output=True, check=False).returncode != 0:
        _install(python, [requirement])


def _install(python: Path, wanted: Sequence[str]) -> None:
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted], wanted)


def _run(command: list[str], wanted: Sequence[str]) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        lines = [line for line in finished.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise PeerError(f"{' '.join(wanted)} cannot be installed: {lines[-1].removeprefix('ERROR: ')}")


def pinned_torch() -> str:
    """The requirement of torch in constraints.txt."""
    found = re.search(r"^torch==\S+$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[0]
