"""Random damages to every kind of file that offrl writes: each is noticed before anything is made of the file."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from tqdm import tqdm

from benchmarks.damaging.commands import Command, Damaged, Used, judge
from benchmarks.damaging.targets import TARGETS, Target, make_units
from benchmarks.damaging.ways import DIGITS, SWAP, WAYS
from offrl.runs import describe_machine
from offrl.system.json_files import write_json

RESULTS = Path(__file__).parent / "results" / "damages.json"
GOOD = ("noticed", "harmless")


class Verdict(NamedTuple):
    """What became of one damage."""

    target: str
    way: str
    outcome: str
    detail: str


class Bench:
    """Damages the units below `root`, and uses them.

    Args:
        root: An empty directory.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._damaged, self._work = root, root / "damaged", root / "work"
        self._work.mkdir()
        make_units(root)
        self._good: dict[tuple[str, Command], Used] = {}

    def damage(self, target: Target, rng: np.random.Generator) -> Verdict:
        """Damages one file of a kind, in one way, and runs the commands that use it."""
        unit = self._root / f"{target.unit}-0"
        path = (found := sorted(unit.glob(target.pattern)))[rng.integers(len(found))]
        name, content = path.relative_to(unit), path.read_bytes()
        is_text = path.suffix in (".json", ".csv")
        ways = [way for way in (*WAYS, SWAP) if (way != DIGITS or is_text) and (way != SWAP or target.can_swap)]
        way, damaged = "", content
        while damaged == content:
            way = str(rng.choice(ways))
            damaged = self._others(target, path, rng) if way == SWAP else WAYS[way](rng, content)
        before = [self._use(command, target.unit) for command in target.commands]
        shutil.copytree(unit, self._damaged, symlinks=True)
        (self._damaged / name).write_bytes(damaged)
        bad, good = (hashlib.sha256(each).hexdigest() for each in (damaged, content))
        file = Damaged(f"unit/{name.as_posix()}", bad, good)
        after = [command.run(self._damaged, self._work, file) for command in target.commands]
        shutil.rmtree(self._damaged)
        outcome, detail = judge(before, after)
        return Verdict(target.name, way, outcome, f"{name}: {detail}".replace(str(self._root), ""))

    def _others(self, target: Target, path: Path, rng: np.random.Generator) -> bytes:
        """The file of the same kind of another unit."""
        unit = self._root / f"{target.unit}-1"
        others = sorted(unit.glob(target.pattern))
        others = [each for each in others if each.name == path.name] or others  # it may have fewer shards
        return others[rng.integers(len(others))].read_bytes()

    def _use(self, command: Command, unit: str) -> Used:
        if (unit, command) not in self._good:
            used = self._good[unit, command] = command.run(self._root / f"{unit}-0", self._work)
            again = command.run(self._root / f"{unit}-0", self._work)
            if used.code or used.fault or used != again:
                raise RuntimeError(f"{command.arguments} of an undamaged {unit}: {used}, then {again}")
        return self._good[unit, command]


def _line(verdict: Verdict) -> str:
    return f"{verdict.target}, {verdict.way}: {verdict.outcome} ({verdict.detail})"


@click.command()
@click.option(
    "--count", default=1000, show_default=True, help="How many damages, the same number of each kind of file."
)
@click.option("--seed", default=0, show_default=True)
def damages(count: int, seed: int) -> None:
    """Damages files of every kind, uses them as a user would, and counts what becomes of it."""
    with tempfile.TemporaryDirectory() as root:
        bench = Bench(Path(root))
        verdicts = []
        for index in tqdm(range(count), unit="damage", disable=None):
            verdict = bench.damage(TARGETS[index % len(TARGETS)], np.random.default_rng([seed, index]))
            verdicts.append(verdict)
            if verdict.outcome not in GOOD:
                tqdm.write(_line(verdict), file=sys.stderr)
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    ways: dict[str, Counter[str]] = defaultdict(Counter)
    for verdict in verdicts:
        outcome = verdict.outcome if verdict.outcome in GOOD else "failed"
        rows[verdict.target][outcome] += 1
        ways[verdict.way][outcome] += 1
    failures = [
        f"{each.target}, {each.way}: {each.outcome} ({each.detail})" for each in verdicts if each.outcome not in GOOD
    ]
    write_json(
        RESULTS,
        {
            "command": f"python -m benchmarks damages --count {count} --seed {seed}",
            "count": count,
            "rows": {name: dict(sorted(counts.items())) for name, counts in rows.items()},
            "ways": {name: dict(sorted(counts.items())) for name, counts in ways.items()},
            "failures": failures,
            "machine": describe_machine(),
        },
    )
    for name, counts in rows.items():
        print(f"{name:<34} {', '.join(f'{outcome} {number}' for outcome, number in sorted(counts.items()))}")
    print(f"{len(failures)} failures in {count} damages")
    sys.exit(bool(failures))
