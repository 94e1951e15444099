"""Cells of the table by other libraries, each in an environment of its own, and how ours compare with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.peers.environments import PEERS, PeerError, add, python_of
from benchmarks.scoring.cells import BATCH_SIZE, LEARNER, REPLAY, SEEDS, Cell, dataset, digest_of
from benchmarks.scoring.comparison import holm, welch
from benchmarks.stores import ROOT
from offrl import envs, open_replay
from offrl.statistics import t_interval
from offrl.system.json_files import read_json

ALGORITHMS = {"d3rlpy": ("bc", "dqn", "bcq", "cql"), "Tianshou": ("bcq", "cql", "crr")}
SETTINGS = ("ours", "defaults")
REVISIONS = {"d3rlpy": 1, "Tianshou": 2}
"""Of their cells' scripts; raised with a change of one that changes its scores, which are then measured anew."""
SIGNIFICANT = 0.05
BOX2D = {"Box2D": "box2d==2.3.10", "pygame": "pygame"}
"""Modules and what brings them. This box2d has wheels, unlike the one that the extra of Gymnasium 1.0 asks for."""


class PeerCell(NamedTuple):
    """What is trained, by which library, and whether with offrl's settings or its own defaults."""

    environment: str
    kind: str
    algorithm: str
    seed: int
    updates: int
    library: str
    settings: str

    @property
    def name(self) -> str:
        """What it is called while it runs."""
        return "/".join((self.library, self.settings, *map(str, self[:4])))

    def path(self, work: Path) -> Path:
        """Where its score is kept."""
        made_by = {"requirement": PEERS[self.library].requirement, "revision": REVISIONS[self.library]}
        digest = digest_of(dataset(work, self.environment, self.kind), **made_by)
        name = f"{self.library}-{self.settings}-{self.algorithm}-{digest}-{self.updates}-{self.seed}"
        return work / "runs" / self.environment / self.kind / name / "score.json"

    def score(self, work: Path) -> dict[str, Any] | None:
        """What was measured before; None where it was not."""
        path = self.path(work)
        return read_json(path) if path.exists() else None

    def command(self, work: Path) -> list[str]:
        """Runs it in the library's environment."""
        asked = {
            **self._asdict(),
            "data": str(arrays(work, self.environment, self.kind)),
            "num_actions": open_replay(dataset(work, self.environment, self.kind), progress=False).spec.num_actions,
            "batch_size": BATCH_SIZE,
            "learning_rate": LEARNER["learning_rate"],
            "polyak": LEARNER["polyak"],
            "discount": REPLAY["discount"],
            "evaluation_seeds": [SEEDS[0], SEEDS[-1] + 1],
            "out": str(self.path(work)),
        }
        script = ROOT / "benchmarks" / "peers" / f"{self.library.lower()}_cell.py"
        return [str(python_of(self.library)), str(script), json.dumps(asked)]


def peer_cells(
    environments: Sequence[str],
    kinds: Sequence[str],
    algorithms: Sequence[str],
    runs: int,
    updates: int,
    settings: Sequence[str],
) -> list[PeerCell]:
    """All of them, seed by seed."""
    return [
        PeerCell(environment, kind, algorithm, seed, updates, library, chosen)
        for seed, chosen in product(range(runs), settings)
        for environment, kind, library in product(environments, kinds, ALGORITHMS)
        for algorithm in ALGORITHMS[library]
        if algorithm in algorithms
    ]


def prepare(environments: Sequence[str]) -> None:
    """Makes the libraries' environments, with what these of Gymnasium's need.

    Raises:
        PeerError: one of them cannot be installed; pixels.
    """
    for name in environments:
        if len(envs.make(name).observation_space.shape or ()) > 1:
            raise PeerError(f"{name} has pixels; --peers compares on vectors only")
    for library in ALGORITHMS:
        python = python_of(library)
        if any(name.startswith(("LunarLander", "BipedalWalker")) for name in environments):
            for module, requirement in BOX2D.items():
                add(python, module, requirement)


def arrays(work: Path, environment: str, kind: str) -> Path:
    """The transitions that ours are trained on, without the episodes held out, as plain arrays; written once."""
    path = work / "arrays" / environment / f"{kind}-{digest_of(dataset(work, environment, kind))}.npz"
    if path.exists():
        return path
    replay = open_replay(dataset(work, environment, kind), include=["next_action"], progress=False, **REPLAY)
    batch = replay.gather(np.arange(len(replay)))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        observations=batch.observation.numpy(),
        next_observations=batch.next_observation.numpy(),
        actions=batch.action.numpy(),
        rewards=batch.reward.numpy(),
        terminated=(batch.discount == 0).numpy(),
        ends=np.flatnonzero(batch.needed("next_action").numpy() < 0),
    )
    partial.rename(path)
    return path


def compare(work: Path, ours: Sequence[Cell], peers: Sequence[PeerCell]) -> dict[str, Any]:
    """For each library, settings and algorithm its scores, and what is ours minus its own, cell by cell.

    The p-values of all cells of one of the two settings are corrected together.
    """
    every: list[Cell | PeerCell] = [*ours, *peers]
    scores = {cell: score for cell in every if (score := cell.score(work)) is not None}
    table: dict[str, Any] = {}
    for settings in SETTINGS:
        tested: list[dict[str, Any]] = []
        for library, algorithm, names in _rows(peers, settings):
            row: dict[str, Any] = {}
            times, versions = [], {}
            for environment, kind in names:
                mine = [scores[c] for c in ours if c[:3] == (environment, kind, algorithm) and c in scores]
                them = [
                    scores[c]
                    for c in peers
                    if c[:3] == (environment, kind, algorithm) and c[5:] == (library, settings) and c in scores
                ]
                if not mine or not them:
                    continue
                runs = [found["score"] for found in them]
                difference = welch([found["score"] for found in mine], runs)
                row[f"{environment}/{kind}"] = cell = {
                    **t_interval(runs).to_dict(),
                    "runs": runs,
                    "ours_minus_theirs": difference._asdict(),
                }
                if difference.p is not None:
                    tested.append(cell)
                theirs_took, ours_took = median_seconds(them), median_seconds(mine)
                if theirs_took is not None and ours_took is not None:
                    times.append(theirs_took / ours_took)
                versions = them[0]["versions"]
            if row:
                table.setdefault(library, {}).setdefault(settings, {})[algorithm] = {
                    "cells": row,
                    "time_over_ours": float(np.median(times)) if times else None,
                    "versions": versions,
                }
        for cell, p in zip(tested, holm([cell["ours_minus_theirs"]["p"] for cell in tested]), strict=True):
            cell["p_holm"] = p
    return table


def _rows(peers: Sequence[PeerCell], settings: str) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    cells = [cell for cell in peers if cell.settings == settings]
    for library, algorithm in dict.fromkeys((cell.library, cell.algorithm) for cell in cells):
        mine = [cell for cell in cells if (cell.library, cell.algorithm) == (library, algorithm)]
        yield library, algorithm, list(dict.fromkeys(cell[:2] for cell in mine))


def median_seconds(found: Iterable[Mapping[str, Any]]) -> float | None:
    """Of one core, over the runs that were not interrupted; None where all were."""
    seconds = [score["cpu_seconds"] for score in found if score["cpu_seconds"] is not None]
    return float(np.median(seconds)) if seconds else None


class Cellwise(NamedTuple):
    """Ours minus another library's on one dataset."""

    library: str
    settings: str
    algorithm: str
    dataset: str
    difference: Mapping[str, Any]
    p: float | None
    """After Holm's correction."""


def cellwise(table: Mapping[str, Any]) -> Iterator[Cellwise]:
    """All differences of what `compare` found."""
    for library, columns in table.items():
        for settings, rows in columns.items():
            for algorithm, row in rows.items():
                for name, cell in row["cells"].items():
                    yield Cellwise(library, settings, algorithm, name, cell["ours_minus_theirs"], cell.get("p_holm"))


def below(table: Mapping[str, Any], settings: str) -> list[Cellwise]:
    """Where ours is worse, after the correction for all cells."""
    found = (each for each in cellwise(table) if each.settings == settings)
    return [each for each in found if each.p is not None and each.p < SIGNIFICANT and each.difference["mean"] < 0]


def show(table: Mapping[str, Any]) -> None:
    """Prints ours minus theirs of each cell; with a star where it is significant after Holm's correction."""
    for library, columns in table.items():
        for settings, rows in columns.items():
            print(f"\nours - {library}, {'our settings' if settings == 'ours' else 'its defaults'}")
            for algorithm, row in rows.items():
                parts = [
                    f"{name.split('-')[0]}/{name.split('/')[-1]} {_in_words(c)}" for name, c in row["cells"].items()
                ]
                times = "" if row["time_over_ours"] is None else f"  its time / ours {row['time_over_ours']:.2f}"
                print(f"{algorithm:<6}{'  '.join(parts)}{times}")


def _in_words(cell: Mapping[str, Any]) -> str:
    return f"{cell['ours_minus_theirs']['mean']:+.1f}{'*' if cell.get('p_holm', 1.0) < SIGNIFICANT else ''}"
