"""The files that offrl writes, each with the commands that use it."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import offrl
from benchmarks.damaging import commands
from benchmarks.damaging.commands import Command, run_offrl, train
from offrl.algorithms import BC
from offrl.shards import Manifest

_FULL = "checkpoints/step-000000006"


class Target(NamedTuple):
    """Files of one kind.

    Attributes:
        name: Of the kind.
        unit: The directory that is damaged, and that the commands use.
        pattern: Of the file in it; of several, one is drawn.
        commands: That use it.
        can_swap: Whether something is wrong where another unit's file is in its place. A file that belongs to no
            directory is what its user says it is.
    """

    name: str
    unit: str
    pattern: str
    commands: Sequence[Command]
    can_swap: bool = True


_DATA = (commands.INSPECT, commands.INGEST, commands.CONVERT, commands.VERIFY)
_STORE = (commands.INSPECT, commands.TRAIN, commands.VERIFY)
_FETCHED = (commands.FETCH, commands.INGEST, commands.CONVERT, commands.VERIFY)
_POLICY = (commands.EVALUATE, commands.EXPORT, commands.VERIFY)
_RUN = (commands.EVALUATE, commands.EXPORT, commands.REPORT, commands.CARD, commands.RESUME, commands.VERIFY)
_CHECKPOINT = (commands.EVALUATE, commands.EXPORT, commands.RESUME, commands.VERIFY)
_TOLD = (commands.REPORT, commands.CARD, commands.VERIFY)
_TABLE = (commands.REPORT, commands.PLOT, commands.RESUME, commands.VERIFY)

TARGETS = (
    Target("shards, frames", "data", "shard-*.npz", _DATA),
    Target("shards, stacked", "stacked", "shard-*.npz", _DATA),
    Target("manifest.json", "data", "manifest.json", _DATA),
    Target("store.json", "data", ".store/*/store.json", _STORE),
    Target("arrays of a store", "data", ".store/*/[!f]*.npy", _STORE),
    Target("frames of a store", "data", ".store/*/frames.npy", _STORE),
    Target("frames.blocks.npy", "data", ".store/*/frames.blocks.npy", _STORE),
    Target("a collection under way: shards", "partial", "shard-*.npz", (commands.COLLECT, commands.VERIFY)),
    Target("a collection under way: manifest", "partial", "manifest.json", (commands.COLLECT, commands.VERIFY)),
    Target("fetched shards", "fetched", "shard-*.npz", _FETCHED),
    Target(".fetch.json", "fetched", ".fetch.json", _FETCHED),
    Target("config.json", "run", "config.json", _RUN),
    Target("environment.json", "run", "environment.json", _TOLD),
    Target("metrics.csv", "run", "metrics.csv", _TABLE),
    Target("evaluations.csv", "run", "evaluations.csv", _TABLE),
    Target("timings.csv", "run", "timings.csv", _TABLE),
    Target("logs.json", "run", "logs.json", _TABLE),
    Target("evaluation.json", "run", "evaluation.json", _TOLD),
    Target("policy.safetensors", "run", f"{_FULL}/policy.safetensors", _CHECKPOINT),
    Target("learner.safetensors", "run", f"{_FULL}/learner.safetensors", _CHECKPOINT),
    Target("state.json", "run", f"{_FULL}/state.json", _CHECKPOINT),
    Target("seal.json", "run", f"{_FULL}/seal.json", _CHECKPOINT),
    Target("ONNX, uint8", "onnx", "model-uint8.onnx", (commands.EVALUATE_UINT8, commands.VERIFY), False),
    Target("ONNX, float", "onnx", "model.onnx", (commands.EVALUATE_FLOAT, commands.VERIFY), False),
    Target(
        "published: ONNX",
        "published",
        "model-uint8.onnx",
        (commands.EVALUATE_UINT8, commands.VERIFY),
    ),
    Target("published: config.json", "published", "config.json", (*_POLICY, *_TOLD)),
    Target("published: weights", "published", f"{_FULL}/policy.safetensors", _POLICY),
    Target("published: seals", "published", "**/seal.json", (*_POLICY, commands.EVALUATE_FLOAT)),
    Target("published: tables", "published", "*.csv", _TOLD),
    Target("published: evaluation.json", "published", "e*.json", _TOLD),
)


def make_units(root: Path) -> None:
    """Writes two of each unit, `data-0`, `data-1` and so on, by the commands that a user has."""
    for index in range(2):
        data, run = root / f"data-{index}", root / f"run-{index}"
        run_offrl("collect", "CartPole-v1", data, "--transitions", 500, "--seed", index, "--workers", 1, "--quiet")
        run_offrl("inspect", data, "--quiet")
        run_offrl("convert", data, root / f"stacked-{index}", "--to", "stacked", "--quiet")
        run_offrl("inspect", root / f"stacked-{index}", "--quiet")
        _interrupt(data, root / f"partial-{index}")
        with tarfile.open(root / f"data-{index}.tar", "w") as archive:  # as others pack theirs, without a manifest
            for path in sorted((root / f"stacked-{index}").glob("*.npz")):
                archive.add(path, path.name)
        run_offrl("fetch", root / f"data-{index}.tar", root / f"fetched-{index}", "--quiet")
        replay = offrl.open_replay(data, seed=index, progress=False)
        train(BC(replay.spec, seed=index), replay, run, 6)
        run_offrl("evaluate", run, "--episodes", 2, "--workers", 0, "--out", run / "evaluation.json", "--quiet")
        run_offrl("export", run, root / f"onnx-{index}", "--quiet")
        run_offrl("publish", run, root / f"published-{index}", "--quiet")


def _interrupt(data: Path, target: Path) -> None:
    """The collection as it was before its last shard."""
    shutil.copytree(data, target, ignore=shutil.ignore_patterns(".store"))
    whole = Manifest.load(data)
    (target / whole.shards[-1].name).unlink()
    about = (whole.spec, whole.shards[:-1], whole.environment, whole.generator)
    Manifest(*about, complete=False).save(target)
