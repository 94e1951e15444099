"""How fast a trained policy answers: torch and ONNX files, one observation at a time and 64 at once."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from numpy.typing import NDArray

import offrl
from benchmarks import charts
from benchmarks.stores import ROOT, car_racing_store
from offrl import TaskSpec
from offrl.policies import OnnxPolicy, Policy
from offrl.policies._onnx_seal import sealed
from offrl.replay import FrameStore, Replay
from offrl.runs import describe_machine
from offrl.system.json_files import write_json
from offrl.system.workers import num_cores

RESULTS = ROOT / "benchmarks" / "results" / "inference"
BATCH_SIZE = 64
NUM_CALIBRATED = 256
_WARM_UP = 3  # calls at the start of a slice, not timed: another way's threads may still be spinning


class Calibration:
    """What onnxruntime's quantizer asks for: normalised observations, 32 at a time."""

    def __init__(self, spec: TaskSpec, observations: NDArray[np.uint8]) -> None:
        self._batches = iter(np.array_split(observations, max(1, len(observations) // 32)))
        self._spec = spec

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch, or None."""
        batch = next(self._batches, None)
        return None if batch is None else {"observation": normalised(self._spec, batch)}


def normalised(spec: TaskSpec, observations: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the float contract takes."""
    return spec.normalise(torch.from_numpy(observations)).numpy()


def quantise(source: Path, target: Path, spec: TaskSpec, observations: NDArray[np.uint8]) -> Path:
    """An int8 copy of a file of the float contract, calibrated on `observations`; the output layers stay float."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    outputs = [node.name for node in onnx.load(source).graph.node if {"q", "logits"} & set(node.output)]
    quantize_static(
        source,
        target,
        Calibration(spec, observations),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=outputs,
    )
    target.write_bytes(sealed(onnx.load(target)))
    return target


def timed(policy: Policy, batches: Iterator[NDArray[np.uint8]], calls: int) -> float:
    """Seconds of the median call."""
    seconds = []
    for number in range(calls + _WARM_UP):
        batch = next(batches)
        start = time.perf_counter()
        policy(batch)
        if number >= _WARM_UP:
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def cycle(observations: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    """Batches of `size`, one after the other, without end."""
    while True:
        for start in range(0, len(observations) - size + 1, size):
            yield observations[start : start + size]


def compare(
    policies: Mapping[str, Policy], observations: NDArray[np.uint8], calls: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Latency, throughput and the share of the first policy's actions, for each; in turns."""
    names = list(policies)
    single, many = cycle(observations, 1), cycle(observations, BATCH_SIZE)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(
                (timed(policies[name], single, calls), timed(policies[name], many, max(1, calls // 5)))
            )
    chosen = {
        name: np.concatenate([policy(part) for part in np.array_split(observations, max(1, len(observations) // 100))])
        for name, policy in policies.items()
    }
    return {
        name: {
            "batch_1_milliseconds": 1000 * float(np.median([one for one, _ in seconds[name]])),
            "batch_64_per_second": BATCH_SIZE / float(np.median([several for _, several in seconds[name]])),
            "equal_actions": float(np.mean(chosen[name] == chosen[names[0]])),
        }
        for name in names
    }


@click.command()
@click.option("--transitions", default=20_000, show_default=True, help="Of carracing/mixed, collected once.")
@click.option("--updates", default=500, show_default=True, help="Of training: untrained, all actions are near ties.")
@click.option("--calls", default=100, show_default=True, help="Of one slice.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--directory", default=ROOT / "data", type=click.Path(path_type=Path), help="Where the data is made.")
def inference(transitions: int, updates: int, calls: int, rounds: int, directory: Path) -> None:
    """Latency and throughput of torch, ONNX float, ONNX uint8 and int8; needs onnxruntime."""
    store = FrameStore.open(car_racing_store(directory.resolve(), transitions), "mmap")
    replay = Replay(store, n_step=10, discount=0.97, reward_scale=0.1)
    learner = offrl.fit(offrl.DiscreteBCQ(replay.spec), replay, offrl.FitConfig(updates=updates))
    algorithm = learner.snapshot()
    rows = np.random.default_rng(0).permutation(len(store))
    calibrated, seen = np.split(rows[: NUM_CALIBRATED + 2000], [NUM_CALIBRATED])
    observations = store.observations(seen)
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "ONNX, float": offrl.export_onnx(algorithm, Path(folder) / "float.onnx", contract="float"),
            "ONNX, uint8": offrl.export_onnx(algorithm, Path(folder) / "uint8.onnx", contract="uint8"),
        }
        int8 = Path(folder) / "int8.onnx"
        files["ONNX, int8"] = quantise(files["ONNX, float"], int8, store.spec, store.observations(calibrated))
        policies = {"torch": offrl.TorchPolicy(algorithm), **{name: OnnxPolicy(path) for name, path in files.items()}}
        found = compare(policies, observations, calls, rounds)
        for name, path in files.items():
            found[name]["megabytes"] = path.stat().st_size / 1e6
    print(f"\n{'':<14} {'1: ms':>8} {'64: a second':>14} {'equal actions':>14}")
    for name, row in found.items():
        print(
            f"{name:<14} {row['batch_1_milliseconds']:8.2f} {row['batch_64_per_second']:14,.0f} "
            f"{row['equal_actions']:14.2%}"
        )
    rates = {name: row["batch_64_per_second"] for name, row in found.items()}
    charts.bars(rates, "observations a second, 64 at once", RESULTS / "inference.png", ["torch"])
    write_json(
        RESULTS / "results.json",
        {
            "command": f"python -m benchmarks inference --transitions {transitions} --updates {updates} "
            f"--calls {calls} --rounds {rounds}",
            "threads": num_cores(),
            "observations": len(observations),
            "ways": found,
            "machine": describe_machine(),
        },
    )
