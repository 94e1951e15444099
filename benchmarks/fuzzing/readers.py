"""The readers that get mutated files: of each format, valid files and the function that uses one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import specimens
from benchmarks.fuzzing import mutations
from offrl.algorithms import DiscreteBCQ
from offrl.datasets import TableColumns
from offrl.datasets._table_episodes import read_table
from offrl.hub.loading import PUBLISHED_NAMES, load_algorithm
from offrl.networks import MLPEncoder
from offrl.policies import OnnxPolicy, export_onnx
from offrl.replay.store import FrameStore
from offrl.report import read_metrics, score_table
from offrl.runs import CSVLogger, load_learner, load_policy, save_checkpoint
from offrl.runs.checkpoint import find_resumable
from offrl.shards import Manifest, fetch
from offrl.shards._frames_layout import read_frames
from offrl.shards._npz import open_npz
from offrl.shards._stacked_layout import read_stacked
from offrl.shards.download import fetched_hashes
from offrl.shards.layouts import detect_layout
from offrl.training import Learner, LearnerConfig


class Reader(NamedTuple):
    """A format.

    Attributes:
        path: Of the file that is mutated.
        content: Of a valid one.
        mutate: What is done to it, besides changes to its bytes.
        use: Uses what is in the place of the valid file.
    """

    path: Path
    content: bytes
    mutate: mutations.Mutate
    use: Callable[[], object]


def _algorithm() -> DiscreteBCQ:
    return DiscreteBCQ(specimens.SPEC, encoder=partial(MLPEncoder, hidden=(4,)))


def make_readers(root: Path) -> dict[str, Reader]:
    """Writes valid files below `root`."""
    specimens.make(root)
    learner = Learner(_algorithm(), LearnerConfig(precision="fp32", compile="off"), total_updates=1)
    checkpoint = save_checkpoint(learner, root / "small" / "checkpoints")
    unsealed = root / "unsealed" / checkpoint.name
    shutil.copytree(checkpoint, unsealed)
    (unsealed / "seal.json").unlink()
    export_onnx(_algorithm(), root / "float.onnx", contract="float")
    export_onnx(_algorithm(), root / "uint8.onnx", contract="uint8")
    run, frames, stacked = root / "run-0", root / "frames-0", root / "stacked-0"
    (store,) = (frames / ".store").glob("*/store.json")
    (root / "log").mkdir()
    fetch(root / "table-0", root / "fetched", progress=False)
    as_json, weights = mutations.mutate_json, mutations.mutate_safetensors
    uses: list[tuple[str, Path, mutations.Mutate, Callable[[], object]]] = [
        ("manifest.json", frames / "manifest.json", as_json, lambda: Manifest.load(frames)),
        ("store.json", store, as_json, lambda: _use_store(store.parent)),
        ("config.json", run / "config.json", as_json, lambda: _use_run(run)),
        ("evaluation.json", run / "evaluation.json", as_json, lambda: score_table(run).to_dict()),
        ("environment.json", run / "environment.json", as_json, lambda: score_table(run).to_dict()),
        ("logs.json", run / "logs.json", as_json, lambda: _use_logs(run)),
        (".fetch.json", root / "fetched" / ".fetch.json", as_json, lambda: fetched_hashes(root / "fetched")),
        ("state.json", unsealed / "state.json", as_json, lambda: load_learner(learner, unsealed)),
        ("seal.json", checkpoint / "seal.json", as_json, lambda: _use_checkpoint(learner, checkpoint)),
        ("policy.safetensors", unsealed / "policy.safetensors", weights, lambda: load_policy(_algorithm(), unsealed)),
        ("learner.safetensors", unsealed / "learner.safetensors", weights, lambda: load_learner(learner, unsealed)),
        *(
            (f"npz, {layout.name[:-2]}", path, mutations.mutate_npz, partial(_use_shard, path))
            for layout in (frames, stacked)
            for path in [layout / "shard-00000.npz"]
        ),
        *(
            (f"ONNX, {contract}", path, mutations.mutate_onnx, partial(_use_onnx, path))
            for contract in PUBLISHED_NAMES
            for path in [root / f"{contract}.onnx"]
        ),
        ("CSV", root / "table-0" / "log.csv", mutations.mutate_csv, lambda: _use_table(root / "table-0" / "log.csv")),
        ("metrics.csv", run / "metrics.csv", mutations.mutate_csv, lambda: _use_metrics(run, root / "log")),
    ]
    return {name: Reader(path, path.read_bytes(), mutate, use) for name, path, mutate, use in uses}


def _use_store(path: Path) -> None:
    store = FrameStore.open(path)
    store.frames_between(0, len(store.frames))


def _use_run(run: Path) -> None:
    load_algorithm(run / "checkpoints" / f"step-{specimens.UPDATES:09d}", device="cpu")


def _use_checkpoint(learner: Learner, checkpoint: Path) -> None:
    find_resumable(checkpoint.parent)
    load_learner(learner, checkpoint)


def _use_shard(path: Path) -> None:
    with open_npz(path) as shard:
        if detect_layout(shard) == "stacked":
            read_stacked(shard, None, None, "terminated")
        else:
            read_frames(shard, specimens.SPEC)


def _use_onnx(path: Path) -> None:
    policy = OnnxPolicy(path)
    policy(np.zeros((1, *policy.spec.observation_shape), policy.spec.observation_dtype))


def _use_table(path: Path) -> None:
    for _ in read_table(path, TableColumns()).episodes:
        pass


def _use_metrics(run: Path, copy: Path) -> None:
    """In a directory where nothing vouches for it: else its hash would refuse it."""
    shutil.copyfile(run / "metrics.csv", copy / "metrics.csv")
    CSVLogger(copy, 3)
    shutil.copyfile(run / "metrics.csv", copy / "metrics.csv")
    read_metrics(copy / "metrics.csv")


def _use_logs(run: Path) -> None:
    read_metrics(run / "metrics.csv")
    CSVLogger(run, specimens.UPDATES)
