"""The same small runs with this checkout and with another revision, compared byte for byte."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.same_runs import INFORMATION
from offrl.runs import describe_machine
from offrl.system.json_files import write_json

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "same.json"

DECLARED: dict[str, str] = {
    "policies/dqn-subset/*": "a policy keeps to the subset of actions that it was trained with",
    "policies/*-masked/random.npy": "random actions are drawn from the legal ones",
    "inspected/pixels-*.json": "fewer than five episodes have no interval",
    "scores/threshold-*.json": "fewer than five episodes have no interval",
    "runs/bc-*/metrics.csv": "held-out episodes have their loss beside the training loss",
    "resumed/bc-*/metrics.csv": "held-out episodes have their loss beside the training loss",
    "stores/*/frames.blocks.npy": "frames have hashes, by blocks",
    "converted/*/summary.json": "bytes_before and bytes_after count the manifest, which has a hash of its content",
}
"""What was meant to change: a pattern of items' names ("policies/dqn-*/logits.npy") and the reason.

It holds against the revisions from before the change; remove an entry when no older one is compared with any more.
"""

_SHOWN = 4  # differences of each part on the screen, so that no part hides the others; the JSON file has all


@dataclass(frozen=True)
class Difference:
    """An item that is not the same on both sides.

    Attributes:
        item: its name.
        what: where and how much.
        reason: why that was meant to be; None where nobody said so.
    """

    item: str
    what: str
    reason: str | None = None


@dataclass(frozen=True)
class Comparison:
    """What two folders of items have in common.

    Attributes:
        sha256: of each item of this side, by name.
        different: items that differ and that nobody declared.
        declared: items that differ, with the reason.
        information: items that may differ, and do.
    """

    sha256: Mapping[str, str]
    different: tuple[Difference, ...]
    declared: tuple[Difference, ...]
    information: tuple[Difference, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """For each part of the items, how many there are on either side, and how many are not the same."""
        kinds = {"different": self.different, "declared": self.declared, "information": self.information}
        names = self.sha256.keys() | {difference.item for found in kinds.values() for difference in found}
        counts: dict[str, dict[str, int]] = {}
        for name in sorted(names):
            part = counts.setdefault(name.split("/")[0], {"items": 0, "different": 0, "declared": 0})
            part["items"] += 1
        for kind, found in kinds.items():
            for difference in found:
                counts[difference.item.split("/")[0]]["declared" if kind == "declared" else "different"] += 1
        return counts


def compare(this: Path, other: Path, declared: Mapping[str, str]) -> Comparison:
    """Compares all files below two folders by their SHA-256.

    Args:
        this: the items of this checkout.
        other: those of the other revision.
        declared: what was meant to change, see `DECLARED`.
    """
    ours, theirs = _digests(this), _digests(other)
    found: dict[str, list[Difference]] = {"different": [], "declared": [], "information": []}
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) == theirs.get(name):
            continue
        if name not in ours:
            what = "only the other revision has it"
        elif name not in theirs:
            what = "only this checkout has it"
        else:
            what = first_difference(this / name, other / name)
        reason = next((why for pattern, why in declared.items() if fnmatchcase(name, pattern)), None)
        if reason is not None:
            kind = "declared"
        else:
            kind = "information" if name.startswith(f"{INFORMATION}/") else "different"
        found[kind].append(Difference(name, what, reason))
    return Comparison(ours, **{kind: tuple(differences) for kind, differences in found.items()})


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def first_difference(this: Path, other: Path) -> str:
    """Where two files differ first; of arrays also how much at the most."""
    if this.suffix == ".npy":
        return _array_difference(np.load(this, allow_pickle=False), np.load(other, allow_pickle=False))
    ours, theirs = this.read_bytes(), other.read_bytes()
    if this.suffix in (".csv", ".json"):
        lines = zip_longest(ours.decode().splitlines(), theirs.decode().splitlines(), fillvalue="(its end)")
        for number, (line, before) in enumerate(lines, start=1):
            if line != before:
                return f"line {number}: {line.strip()}, was {before.strip()}"
    position = next((i for i, (new, old) in enumerate(zip(ours, theirs, strict=False)) if new != old), None)
    where = "the shorter one is how the longer one begins" if position is None else f"from byte {position} on"
    return f"{where}; {len(ours)} bytes, were {len(theirs)}"


def _array_difference(ours: NDArray[Any], theirs: NDArray[Any]) -> str:
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        return f"{ours.dtype} {list(ours.shape)}, was {theirs.dtype} {list(theirs.shape)}"
    # By their bytes: NaN equals no NaN, and 0.0 equals -0.0.
    bits = [np.frombuffer(array.tobytes(), np.uint8).reshape(array.size, -1) for array in (ours, theirs)]
    (changed,) = np.nonzero((bits[0] != bits[1]).any(axis=1))
    first = tuple(int(index) for index in np.unravel_index(changed[0], ours.shape))
    text = f"{len(changed)} of {ours.size} values, first at {list(first)}: {ours[first]}, was {theirs[first]}"
    if ours.dtype.kind in "iuf":
        before, after = (array.ravel()[changed].astype(np.float64) for array in (theirs, ours))
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            text += f"; largest difference {np.abs(after - before).max():.3g}"
    return text


def unlike_never_stopped(items: Path) -> tuple[Difference, ...]:
    """What differs between the runs that were stopped and resumed, and the same ones that never stopped."""
    return tuple(
        Difference(f"resumed/{run.name}/{difference.item}", difference.what)
        for run in sorted((items / "resumed").glob("*"))
        for difference in compare(run, items / "runs" / run.name, {}).different
    )


@contextmanager
def checkout(revision: str, folder: Path) -> Iterator[Path]:
    """A temporary worktree of the revision, below `folder`."""
    tree = folder / "tree"
    _git("worktree", "add", "--detach", "--quiet", str(tree), revision)
    try:
        yield tree
    finally:
        _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def make_runs(trees: Mapping[str, Path], folder: Path) -> dict[str, float]:
    """Makes the runs of every side at once, in one thread each, below `folder`/side; returns the seconds each took.

    A side that fails ends the comparison: two sides that lack the same items would be equal.
    """
    processes: dict[str, subprocess.Popen[bytes]] = {}
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    try:
        for side, tree in trees.items():
            environment = {
                **os.environ,
                "PYTHONPATH": str(tree),
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
                "OFFRL_CACHE": str(folder / side / "cache"),
            }
            command = [sys.executable, "-P", str(ROOT / "benchmarks" / "same_runs.py"), str(tree), str(folder / side)]
            processes[side] = subprocess.Popen(command, env=environment)
        while len(seconds) < len(processes):
            for side, process in processes.items():
                if side not in seconds and process.poll() is not None:
                    seconds[side] = time.perf_counter() - start
            time.sleep(0.05)
    finally:
        for process in processes.values():
            process.kill()  # without effect on one that has ended
            process.wait()
    failed = [side for side, process in processes.items() if process.returncode != 0]
    if failed:
        sys.exit(f"the runs of {' and of '.join(failed)} failed, see above")
    return seconds


def show(comparison: Comparison, resumed: Sequence[Difference]) -> None:
    """Prints a table of the parts, and the lists of what differs; `resumed` is what `unlike_never_stopped` found."""
    print(f"\n{'part':<14}{'items':>8}{'different':>12}{'on purpose':>12}")
    for part, counts in comparison.counts().items():
        print(f"{part:<14}{counts['items']:>8}{counts['different']:>12}{counts['declared']:>12}")
    titles = {
        "may differ, for information": comparison.information,
        "changed on purpose": comparison.declared,
        "different": comparison.different,
        "resumed runs unlike those that never stopped": resumed,
    }
    for title, differences in titles.items():
        if differences:
            print(f"\n{title}: {len(differences)}")
        for _, of_part in groupby(differences, key=lambda difference: difference.item.split("/")[0]):
            listed = list(of_part)
            for difference in listed[:_SHOWN]:
                reason = "" if difference.reason is None else f" ({difference.reason})"
                print(f"  {difference.item}: {difference.what}{reason}")
            if len(listed) > _SHOWN:
                print(f"  ... and {len(listed) - _SHOWN} more, see {RESULTS.name}")


@click.command()
@click.argument("revision")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, exists=False),
    help="Leave what both sides computed in this new folder, to look at.",
)
def same(revision: str, keep: Path | None) -> None:
    """Compares this checkout, as it lies here, with REVISION: every byte that small runs of both compute.

    Collected and written shards, stores, batches, metrics, the tensors of all checkpoints, resumed runs, scores,
    choices of policies and outputs of exported files. Exits with 1 where something differs that same.py does not
    declare as meant. Both sides run in one thread each, at the same time.
    """
    commit = _git("rev-parse", "--verify", f"{revision}^{{commit}}")
    head = _git("rev-parse", "HEAD")
    changed = bool(_git("status", "--porcelain", "--", ".", ":!benchmarks/results"))
    print(
        f"this checkout, {head[:10]} {'with' if changed else 'without'} uncommitted changes, beside {commit[:10]}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if keep is None else keep.resolve()
        if keep is not None:
            folder.mkdir(parents=True)
        with checkout(commit, Path(temporary)) as tree:
            seconds = make_runs({"this": ROOT, "other": tree}, folder)
        comparison = compare(folder / "this" / "items", folder / "other" / "items", DECLARED)
        resumed = unlike_never_stopped(folder / "this" / "items")
    show(comparison, resumed)
    write_json(
        RESULTS,
        {
            "command": f"python -m benchmarks same {revision}",
            "this": {"commit": head, "uncommitted_changes": changed},
            "other": {"revision": revision, "commit": commit},
            "seconds": seconds,
            "items": len(comparison.sha256),
            "sha256_of_all": _sha256_of_all(comparison.sha256),
            "parts": comparison.counts(),
            "different": [asdict(difference) for difference in comparison.different],
            "unlike_never_stopped": [asdict(difference) for difference in resumed],
            "changed_on_purpose": [asdict(difference) for difference in comparison.declared],
            "information": [asdict(difference) for difference in comparison.information],
            "machine": describe_machine(),
        },
    )
    num_wrong = len(comparison.different) + len(resumed)
    took = f"{len(comparison.sha256)} items in {max(seconds.values()):.0f} seconds"
    if num_wrong:
        sys.exit(f"\n{took}: {num_wrong} differ")
    purpose = f"but for {len(comparison.declared)} that were meant to change, " if comparison.declared else ""
    print(f"\n{took}: {purpose}every byte is the same")


def _sha256_of_all(digests: Mapping[str, str]) -> str:
    """One number for all items, but for those that may differ."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.items()) if not name.startswith(INFORMATION)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
