"""Our estimators beside those of obp, the Open Bandit Pipeline (arXiv:2008.07146), on the sample that it brings."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.environments import ROOT, PeerError, environment_of, pinned_torch
from offrl import TaskSpec
from offrl.ope import (
    Episodes,
    Steps,
    direct_method,
    doubly_robust,
    logged_behaviour,
    trajectory_is,
    weighted_is,
)
from offrl.replay import open_replay
from offrl.runs import describe_machine
from offrl.shards import Episode, Manifest
from offrl.shards.episode import write_shards
from offrl.system.json_files import write_json

RESULTS = ROOT / "benchmarks" / "results" / "obp.json"
TOLERANCE = 1e-6
# The versions that obp 0.5.7 itself asks for, where Python 3.11 has them; torch is only imported. obp asks for a Python
# under 3.11 and for torch 1.12, and neither matters to its estimators.
PACKAGES = (
    "numpy==1.23.5",
    "pandas==1.5.2",
    "scikit-learn==1.1.3",
    "scipy==1.9.3",
    "matplotlib==3.8.4",
    "seaborn==0.11.2",
    "tqdm",
    "PyYAML",
    "mypy-extensions",
)
UNCHECKED = ("obp==0.5.7", "pyieoe==0.1.1")
ESTIMATORS = {"IPS": trajectory_is, "SNIPS": weighted_is, "DM": direct_method, "DR": doubly_robust}


def estimates(log: Mapping[str, NDArray[Any]], folder: Path) -> dict[str, float]:
    """Our estimates of a log, read as any dataset: written as episodes of one step, and opened as a replay."""
    num_actions = log["policy"].shape[1]
    context = log["context"].astype(np.float32)
    spec = TaskSpec.vector(context.shape[1], tuple(f"item {i}" for i in range(num_actions)))
    episodes = (
        Episode(
            observations=np.stack([context[i], context[i]]),  # nothing follows
            actions=log["action"][i : i + 1],
            rewards=log["reward"][i : i + 1].astype(np.float32),
            terminated=True,
            truncated=False,
            behaviour_probability=log["behaviour"][i : i + 1].astype(np.float32),
        )
        for i in range(len(context))
    )
    Manifest(spec, write_shards(folder, episodes), {}, {"name": "Open Bandit sample"}).save(folder)
    replay = open_replay(folder, progress=False, cache=folder / "store")
    logged = logged_behaviour(replay)
    if logged.probability is None:
        raise click.ClickException(f"the logged probabilities do not count: {logged.reason}")
    found = Episodes.of(replay)
    rows = np.arange(len(replay))
    policy, values = log["policy"], log["values"]
    steps = Steps(
        reward=found.reward,
        ratio=found.pad(policy[rows, log["action"]] / logged.probability),
        length=found.length,
        discount=1.0,
        q=found.pad(values[rows, log["action"]]),
        value=found.pad((policy * values).sum(axis=1)),
    )
    return {name: float(estimator(steps)[0]) for name, estimator in ESTIMATORS.items()}


@click.command()
def obp() -> None:
    """IPS, SNIPS, DM and DR beside obp's, in an environment of its own, on its six logs of 10,000 rounds."""
    try:
        python = environment_of("obp", [pinned_torch(), *PACKAGES], unchecked=UNCHECKED)
    except PeerError as error:
        raise click.ClickException(str(error)) from error
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        script = Path(__file__).parent / "peers" / "obp_bandit.py"
        finished = subprocess.run([str(python), str(script), folder], capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            raise click.ClickException(f"obp fails: {finished.stderr.strip().splitlines()[-1]}")
        theirs = json.loads(finished.stdout.splitlines()[-1])
        for name, expected in theirs["logs"].items():
            with np.load(Path(folder) / f"{name}.npz", allow_pickle=False) as log:
                ours = estimates(dict(log), Path(folder) / name)
                size = len(log["reward"])
            campaign, logger = name.split("-")
            rows += [
                {
                    "campaign": campaign,
                    "logger": logger,
                    "rounds": size,
                    "estimator": estimator,
                    "offrl": ours[estimator],
                    "obp": expected[estimator],
                    "difference": abs(ours[estimator] - expected[estimator]),
                }
                for estimator in ESTIMATORS
            ]
    largest = max(row["difference"] for row in rows)
    write_json(
        RESULTS,
        {
            "command": "python -m benchmarks obp",
            "versions": {"obp": theirs["obp"], "numpy": theirs["numpy"]},
            "tolerance": TOLERANCE,
            "largest_difference": largest,
            "largest_relative_difference": max(row["difference"] / abs(row["obp"]) for row in rows),
            "estimates": rows,
            "machine": describe_machine(),
        },
    )
    for row in rows:
        print(
            f"{row['campaign']:<6} {row['logger']:<7} {row['estimator']:<6} {row['offrl']:.9f} {row['obp']:.9f} "
            f"{row['difference']:.1e}"
        )
    print(f"largest difference {largest:.1e}, allowed {TOLERANCE:g}")
    sys.exit(largest > TOLERANCE)
