"""Makes `made_by_caac73b/`: what commit caac73b wrote, for the tests that newer code still opens and continues it.

It needs that commit's offrl, whose modules have other names than today's, and so is run from a checkout of it:

    git worktree add --detach /tmp/caac73b caac73b
    PYTHONPATH=/tmp/caac73b python -P tests/compatibility/make_fixtures.py
    git worktree remove /tmp/caac73b

The folder holds

- `vectors/`: CartPole, collected by `collect`, frames layout, with its FrameStore in `.store/`;
- `pixels/`: 36 x 36 frames, stacks of 4, one segment from the middle of an episode, with its FrameStore;
- `masked/`: vectors with legal actions; `stacked/`: `vectors/` in the stacked layout, with a manifest;
- `runs/bcq-vectors/`: a run of 20 updates that was stopped after 10, to be resumed on `vectors/`. Its encoder is
  `functools.partial(MLPEncoder, hidden=...)`, which keeps it small and which config.json does not record;
- `runs/bc-pixels/`: a finished run that `offrl train pixels --algorithm bc --encoder compact` made, the policy only;
- `bcq-float.onnx`, `bcq-uint8.onnx`: the policy of `runs/bcq-vectors/` in both contracts;
- `observations.npz`: what the expected choices are about;
- `expected.json`: settings to make the same objects with, and what caac73b computed. Another processor rounds
  differently, so floats are to be compared with a tolerance; what batches hold is exact.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from offrl.collect import collect
from offrl.replay.convert import convert

import offrl
from offrl import envs
from offrl.envs import RandomBehaviour
from offrl.runs import latest_checkpoint, load_policy
from offrl.shards import Episode, Manifest, write_shard

COMMIT = "caac73b"
HERE = Path(__file__).parent
# config.json and manifests hold paths: a place of no one's own, so that making them again gives the same ones.
WORK = Path("/tmp/offrl-compatibility")

SIZE, STACK = 36, 4  # the smallest frames that CompactEncoder takes
HIDDEN = (6, 1)  # heads have 512 units for each of the encoder's outputs: one output keeps the files small
STOPPED_AT = 10
BCQ: dict[str, Any] = {
    "algorithm_config": {"threshold": 0.2},
    "hidden": HIDDEN,
    "seed": 19,
    "replay": {"n_step": 3, "discount": 0.97, "held_out": 0.2, "sampling": "softmax-returns:0.5", "seed": 2},
    "learner": {
        "learning_rate": 0.01,
        "schedule": "cosine",
        "average_decay": 0.9,
        "precision": "fp32",
        "compile": "off",
    },
    "fit": {"updates": 20, "batch_size": 16, "log_period": 4, "checkpoint_period": STOPPED_AT},
}
BATCHES: dict[str, dict[str, Any]] = {
    "one-step": {},
    "n-step": {"n_step": 3, "discount": 0.9, "reward_clip": 1.0},
    "top-returns": {"sampling": "top-returns:0.5", "held_out": 0.25, "split_seed": 3},
}


def make_datasets() -> None:
    make_env = partial(envs.make, "CartPole-v1")
    how = {"transitions": 45, "seed": 38, "episodes_per_shard": 2, "workers": 1, "progress": False}
    collect(make_env, RandomBehaviour(), Path("vectors"), **how)
    convert("vectors", "stacked", "stacked", progress=False)

    rng = np.random.default_rng(5)
    names = ("left", "straight", "right")
    pixels = [[pixel_episode(rng, 4, True), pixel_episode(rng, 3, False)], [pixel_episode(rng, 4, True, leading=3)]]
    write_frames(Path("pixels"), offrl.TaskSpec.pixels((STACK, SIZE, SIZE), names), pixels)
    masked = [[masked_episode(rng, 15) for _ in range(2)] for _ in range(2)]
    write_frames(Path("masked"), offrl.TaskSpec.vector(3, names), masked)


def pixel_episode(rng: np.random.Generator, steps: int, terminated: bool, leading: int = 0) -> Episode:
    return Episode(
        observations=blocks(rng, leading + steps + 1),
        actions=rng.integers(3, size=steps),
        rewards=rng.normal(size=steps).astype(np.float32),
        terminated=terminated,
        truncated=not terminated,
        behaviour_probability=np.where(np.arange(steps) % 2 == 0, np.nan, 0.25).astype(np.float32),
        leading=leading,
    )


def blocks(rng: np.random.Generator, count: int) -> np.ndarray:
    """Frames of coarse blocks, which compress well."""
    coarse = rng.integers(0, 256, (count, 6, 6), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, SIZE // 6, SIZE // 6), np.uint8))


def masked_episode(rng: np.random.Generator, steps: int) -> Episode:
    legal = rng.random((steps, 3)) < 0.6
    actions = rng.integers(3, size=steps)
    legal[np.arange(steps), actions] = True
    return Episode(
        observations=rng.normal(size=(steps + 1, 3)).astype(np.float32),
        actions=actions,
        rewards=rng.normal(size=steps).astype(np.float32),
        terminated=True,
        truncated=False,
        action_mask=legal,
    )


def write_frames(directory: Path, spec: offrl.TaskSpec, shards: list[list[Episode]]) -> None:
    directory.mkdir()
    records = tuple(write_shard(directory / f"shard-{index:05}.npz", shard) for index, shard in enumerate(shards))
    Manifest(spec, records, {"id": "noise"}, {"name": "make_fixtures", "seed": 5}).save(directory)


def describe_dataset(name: str) -> dict[str, Any]:
    """What a dataset holds, and some batches of it."""
    found: dict[str, Any] = {}
    for setting, chosen in BATCHES.items():
        replay = offrl.open_replay(name, progress=False, seed=6, **chosen)
        indices = replay.indices(7, 8)
        batch = replay.gather(indices)
        found[setting] = {
            "settings": chosen,
            "step": 7,
            "indices": indices.tolist(),
            "action": batch.action.tolist(),
            "reward": in_full(batch.reward),
            "discount": in_full(batch.discount),
            "observation_sha256": sha256(batch.observation),
            "next_observation_sha256": sha256(batch.next_observation),
            "action_mask": None if batch.action_mask is None else batch.action_mask.tolist(),
            "next_action_mask": None if batch.next_action_mask is None else batch.next_action_mask.tolist(),
        }
    store = replay.store
    return {
        "num_transitions": len(store),
        "num_frames": len(store.frames),
        "fingerprint": store.fingerprint,
        "episode_returns": store.episode_returns().tolist(),
        "spec": store.spec.to_dict(),
        "seed": 6,
        "batches": found,
    }


def sha256(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def make_bcq(spec: offrl.TaskSpec) -> offrl.DiscreteBCQ:
    config = offrl.DiscreteBCQConfig(**BCQ["algorithm_config"])
    encoder = partial(offrl.MLPEncoder, hidden=BCQ["hidden"])
    return offrl.DiscreteBCQ(spec, config, encoder=encoder, seed=BCQ["seed"])


def make_bcq_run(observations: np.ndarray) -> dict[str, Any]:
    """Trains the whole run, keeps it as it stood at `STOPPED_AT`, and returns what both of its policies choose."""
    run = Path("runs") / "bcq-vectors"
    replay = offrl.open_replay("vectors", progress=False, **BCQ["replay"])
    offrl.fit(
        make_bcq(replay.spec),
        replay,
        offrl.FitConfig(**BCQ["fit"]),
        learner=offrl.LearnerConfig(**BCQ["learner"]),
        run=run,
        loggers=[],
        device="cpu",
    )
    finished = choices(load_policy(make_bcq(replay.spec), latest_checkpoint(run / "checkpoints")), observations)
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        metrics = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

    # As an interruption after update 10 leaves it. The first checkpoint is not needed to go on.
    shutil.rmtree(run / "checkpoints" / "step-000000000")
    shutil.rmtree(run / "checkpoints" / "step-000000020")
    for name in ("metrics.csv", "timings.csv"):
        header, *rows = (run / name).read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [row for row in rows if int(row.split(",")[0]) <= STOPPED_AT]
        (run / name).write_text("".join([header, *kept]), encoding="utf-8")
    algorithm = load_policy(make_bcq(replay.spec), latest_checkpoint(run / "checkpoints"))
    expected: dict[str, Any] = {"policy": choices(algorithm, observations)}
    for contract in ("float", "uint8"):
        path = offrl.export_onnx(algorithm, f"bcq-{contract}.onnx", contract=contract)
        expected[f"bcq-{contract}.onnx"] = {"actions": offrl.OnnxPolicy(path)(observations).tolist()}
    expected["resumed"] = {"metrics": metrics, "policy": finished}
    return {"made_with": BCQ, **expected}


def make_bc_run(observations: np.ndarray) -> dict[str, Any]:
    """A run as the command line makes it, of which the policy is kept."""
    run = Path("runs") / "bc-pixels"
    options = ["--algorithm", "bc", "--encoder", "compact", "--updates", "12", "--run", str(run), "--device", "cpu"]
    settings = ["batch_size=8", "log_period=3", "precision=fp32", "compile=off", "learning_rate=0.01"]
    command = ["train", "pixels", *options, "--quiet", *(word for each in settings for word in ("--set", each))]
    subprocess.run([sys.executable, "-P", "-m", "offrl", *command], check=True)
    shutil.rmtree(run / "checkpoints" / "step-000000000")
    (run / "checkpoints" / "step-000000012" / "learner.safetensors").unlink()
    replay = offrl.open_replay("pixels", progress=False)
    algorithm = offrl.BC(replay.spec, encoder=offrl.CompactEncoder)
    policy = choices(load_policy(algorithm, latest_checkpoint(run / "checkpoints")), observations)
    return {"command": ["offrl", *command], "policy": policy}


def choices(algorithm: offrl.Algorithm, observations: np.ndarray) -> dict[str, Any]:
    """What a policy chooses, and from what: for BCQ the scores are q."""
    actions = offrl.TorchPolicy(algorithm)(observations)
    with torch.inference_mode():
        output = algorithm(algorithm.spec.normalise(torch.from_numpy(observations)))
    return {"actions": actions.tolist(), "scores": in_full(output.scores), "logits": in_full(output.logits)}


def in_full(values: torch.Tensor) -> Any:
    """A tensor as nested lists, float32 with the 9 digits that tell each from the others."""
    return [in_full(row) for row in values] if values.dim() else float(f"{values.item():.9g}")


def main() -> None:
    tree = Path(offrl.__file__).parent.parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tree, check=True, capture_output=True, text=True).stdout
    if not commit.startswith(COMMIT):
        sys.exit(f"`import offrl` is commit {commit[:7]}; these fixtures are made by {COMMIT}, see the module's text")
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    torch.set_num_threads(1)
    with chdir(WORK):
        rng = np.random.default_rng(8)
        vectors = rng.normal(0, 1, (24, 4)).astype(np.float32)
        pixels = blocks(rng, 6 * STACK).reshape(6, STACK, SIZE, SIZE)
        np.savez_compressed("observations.npz", vectors=vectors, pixels=pixels)
        make_datasets()
        expected = {
            "commit": commit.strip(),
            "datasets": {name: describe_dataset(name) for name in ("vectors", "pixels", "masked", "stacked")},
            "bcq-vectors": make_bcq_run(vectors),
            "bc-pixels": make_bc_run(pixels),
        }
        Path("expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")
    # Two stores are enough to show that they open; the other two datasets show that one is made.
    for name in ("masked", "stacked"):
        shutil.rmtree(WORK / name / ".store")
    target = HERE / f"made_by_{COMMIT}"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(WORK, target)
    print(f"{sum(path.stat().st_size for path in target.rglob('*') if path.is_file()):,} bytes in {target}")


if __name__ == "__main__":
    main()
