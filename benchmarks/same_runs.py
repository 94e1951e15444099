"""Small runs of everything that offrl computes, kept item by item: one side of `python -m benchmarks same`.

It is run as a script, `python -P benchmarks/same_runs.py TREE FOLDER`, with the checkout TREE on PYTHONPATH, and leaves
a file for every item under FOLDER/items. Both sides of a comparison are made by this same file, so it asks for each of
offrl's names at every place where a revision may have it (`find`), and uses as little of offrl as it can: shards,
stores and checkpoints are read from disk without offrl's help. With `-P`, Python leaves this folder, whose modules are
named like some of the standard library, off its path.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

INFORMATION = "information"
"""The part whose items may differ: what depends on how a file is written rather than on what it holds."""

_PLACES = {
    "BC": ("offrl:BC",),
    "BCConfig": ("offrl:BCConfig",),
    "CartPoleMixture": ("offrl.envs:CartPoleMixture", "offrl.envs.cart_pole:CartPoleMixture"),
    "CompactEncoder": ("offrl:CompactEncoder",),
    "DQN": ("offrl:DQN",),
    "DQNConfig": ("offrl:DQNConfig",),
    "DiscreteBCQ": ("offrl:DiscreteBCQ",),
    "DiscreteBCQConfig": ("offrl:DiscreteBCQConfig",),
    "Episode": ("offrl.shards:Episode", "offrl.replay.shards:Episode"),
    "FitConfig": ("offrl:FitConfig",),
    "LearnerConfig": ("offrl:LearnerConfig",),
    "Manifest": ("offrl.shards:Manifest", "offrl.replay.shards:Manifest"),
    "OnlineConfig": (
        "offrl.collection:OnlineConfig",
        "offrl.collection.online:OnlineConfig",
        "offrl.online:OnlineConfig",
    ),
    "OnnxPolicy": ("offrl:OnnxPolicy",),
    "RandomBehaviour": ("offrl.envs:RandomBehaviour", "offrl.envs.behaviours:RandomBehaviour"),
    "Recorder": ("offrl.collection:Recorder", "offrl.collect:Recorder"),
    "SCORE_SEEDS": (
        "offrl.evaluation:SCORE_SEEDS",
        "offrl.envs:SCORE_SEEDS",
        "offrl.envs.seeds:SCORE_SEEDS",
        "offrl.seeds:SCORE_SEEDS",
    ),
    "TUNING_SEEDS": (
        "offrl.evaluation:TUNING_SEEDS",
        "offrl.envs:TUNING_SEEDS",
        "offrl.envs.seeds:TUNING_SEEDS",
        "offrl.seeds:TUNING_SEEDS",
    ),
    "TaskSpec": ("offrl:TaskSpec",),
    "TorchPolicy": ("offrl:TorchPolicy",),
    "collect": ("offrl.collection:collect", "offrl.collect:collect"),
    "collect_online": (
        "offrl.collection:collect_online",
        "offrl.collection.online:collect_online",
        "offrl.online:collect_online",
    ),
    "convert": ("offrl.datasets:convert", "offrl.replay.convert:convert"),
    "default_behaviour": ("offrl.envs:default_behaviour", "offrl.envs.drivers:default_behaviour"),
    "evaluate": ("offrl:evaluate",),
    "evaluate_behaviour": (
        "offrl.evaluation:evaluate_behaviour",
        "offrl.evaluation.evaluate:evaluate_behaviour",
        "offrl.evaluate:evaluate_behaviour",
    ),
    "export_onnx": ("offrl:export_onnx",),
    "fit": ("offrl:fit",),
    "inspect_dataset": ("offrl.datasets:inspect_dataset", "offrl.replay:inspect_dataset"),
    "load_policy": (
        "offrl.runs:load_policy",
        "offrl.training:load_policy",
        "offrl.training.checkpoint:load_policy",
        "offrl.checkpoint:load_policy",
    ),
    "make": ("offrl.envs:make",),
    "open_replay": ("offrl:open_replay",),
    "sweep_thresholds": (
        "offrl.evaluation:sweep_thresholds",
        "offrl.evaluation.evaluate:sweep_thresholds",
        "offrl.evaluate:sweep_thresholds",
    ),
    "trace_episode": (
        "offrl.evaluation:trace_episode",
        "offrl.evaluation.trace:trace_episode",
        "offrl.trace:trace_episode",
    ),
    "verify_onnx": ("offrl.policies:verify_onnx", "offrl.policies.export:verify_onnx", "offrl.export:verify_onnx"),
    "write_shard": ("offrl.shards:write_shard", "offrl.replay.shards:write_shard"),
}


def find(name: str) -> Any:
    """One of offrl's names, from the first of its places that the revision has.

    Raises:
        LookupError: it has none of them; the message says why for each.
    """
    reasons = []
    for place in _PLACES[name]:
        module, _, attribute = place.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            reasons.append(f"{place} ({error})")
    raise LookupError(f"this offrl has {name} at none of the places known: {'; '.join(reasons)}")


class Items:
    """The files that are compared, by the name of the item."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _path(self, name: str) -> Path:
        path = self.root / name
        if path.exists():  # one item would hide another
            raise FileExistsError(f"two items are named {name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def array(self, name: str, values: Any) -> None:
        """Keeps an array or a tensor; one of bf16, which numpy does not know, as the integers of its bits."""
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu()
            values = (values.view(torch.int16) if values.dtype == torch.bfloat16 else values).numpy()
        with self._path(f"{name}.npy").open("wb") as file:
            np.save(file, np.ascontiguousarray(values), allow_pickle=False)

    def values(self, name: str, values: Any) -> None:
        """Keeps what JSON can hold; floats in full."""
        self._path(f"{name}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    def file(self, name: str, path: Path) -> None:
        """Keeps a file as it is."""
        shutil.copyfile(path, self._path(name))

    def manifest(self, name: str, path: Path) -> None:
        """Keeps a manifest; what it says of settings and versions for information, as a run's config.json."""
        self.file(f"{INFORMATION}/{name}.json", path)
        self.values(name, _of_data(json.loads(path.read_text(encoding="utf-8"))))

    def shards(self, name: str, directory: Path) -> None:
        """Keeps a dataset's files."""
        for path in sorted(directory.glob("*.npz")):
            self.file(f"{name}/{path.name}", path)
        if (directory / "manifest.json").exists():
            self.manifest(f"{name}/manifest", directory / "manifest.json")

    def tensors(self, name: str, path: Path) -> None:
        """Keeps every tensor of a safetensors file."""
        for key, tensor in load_file(path).items():
            self.array(f"{name}/{key}", tensor)

    def run(self, name: str, directory: Path) -> None:
        """Keeps what a run has computed: its metrics and the tensors of its checkpoints."""
        self.file(f"{name}/metrics.csv", directory / "metrics.csv")
        self.file(f"{INFORMATION}/{name}/config.json", directory / "config.json")
        for checkpoint in sorted((directory / "checkpoints").glob("step-*")):
            self.file(f"{INFORMATION}/{name}/{checkpoint.name}-state.json", checkpoint / "state.json")
            for path in sorted(checkpoint.glob("*.safetensors")):
                self.tensors(f"{name}/{checkpoint.name}/{path.stem}", path)


# A seal is a hash of the versions and settings, too.
_NOT_OF_DATA = ("versions", "algorithm_config", "learner", "online", "sealed", "content_sha256")


def _of_data(values: Any) -> Any:
    """A dictionary without versions and settings, and without what is null: a new optional field changes nothing."""
    if not isinstance(values, dict):
        return values
    kept = {key: _of_data(value) for key, value in values.items() if key not in _NOT_OF_DATA}
    return {key: value for key, value in kept.items() if value is not None}


# Data. Paths are relative, to a working directory of each side's own: manifests hold some of them.

DATA = Path("data")
DATASETS: dict[str, dict[str, Any]] = {  # name -> options of open_replay
    "vectors-frames": {},
    "vectors-stacked": {},
    "pixels-frames": {},
    "pixels-stacked": {},
    "pixels-float": {},
    "pixels-not-done": {"dones": "not_done"},
    "masked": {},
}
FRAME_SIZE, STACK = 36, 4  # the smallest frames that NatureEncoder takes
NUM_ACTIONS = 5


def collected_data(items: Items) -> None:
    """CartPole's mixture by `collect`, and a recording of a loop of one's own."""
    make_env = partial(find("make"), "CartPole-v1")
    directory = DATA / "vectors-frames"
    find("collect")(make_env, find("CartPoleMixture")(), directory, transitions=1200, seed=3, workers=1, progress=False)
    items.shards("shards/vectors-frames", directory)

    actions = np.random.default_rng(4)
    with find("Recorder")(make_env(), DATA / "recorded", transitions_per_shard=40) as env:
        for seed in range(4):
            env.reset(seed=seed)
            ended = False
            while not ended:
                env.behaviour_probability = 0.5
                _, _, terminated, truncated, _ = env.step(int(actions.integers(2)))
                ended = terminated or truncated
    items.shards("shards/recorded", DATA / "recorded")


def car_racing(items: Items) -> None:
    """CarRacing's frames under the default driver, and a collection of random actions, where Box2D is installed."""
    if find_spec("Box2D") is None:
        print("without CarRacing, which needs Box2D", file=sys.stderr)
        return
    log: dict[str, list[Any]] = {"observation": [], "action": [], "probability": [], "reward": []}
    behaviour = find("default_behaviour")("CarRacing-v3")
    with closing(find("make")("CarRacing-v3", hud="hidden")) as env:
        observation, _ = env.reset(seed=5)
        behaviour.begin(env, np.random.default_rng(6))
        for _ in range(60):
            action, probability = behaviour(observation)
            observation, reward, _, _, _ = env.step(action)
            for name, value in zip(log, (observation, action, probability, reward), strict=True):
                log[name].append(value)
    for name, values in log.items():
        items.array(f"environments/car-racing/{name}", np.array(values))

    directory = DATA / "car-racing"
    make_env = partial(find("make"), "CarRacing-v3", no_progress_steps=15)
    find("collect")(make_env, find("RandomBehaviour")(), directory, transitions=30, seed=7, workers=1, progress=False)
    items.shards("shards/car-racing", directory)


def written_data(items: Items) -> None:
    """Frames and masked vectors by `write_shard`, and the same transitions as the stacked files of other loggers."""
    spec = find("TaskSpec")
    rng = np.random.default_rng(8)
    shards = [[_pixel_episode(rng, 30 + 5 * number) for number in range(3)] for _ in range(3)]
    # A segment from the middle of an episode brings the older frames of its first stack along.
    shards[1].append(_pixel_episode(rng, 24, leading=STACK - 1))
    names = tuple(f"action {index}" for index in range(NUM_ACTIONS))
    task = spec.pixels((STACK, FRAME_SIZE, FRAME_SIZE), names)
    _write_frames(DATA / "pixels-frames", task, shards)
    masked = [[_masked_episode(rng, 25) for _ in range(4)] for _ in range(2)]
    _write_frames(DATA / "masked", spec.vector(3, ("up", "down", "left", "right")), masked)
    items.shards("shards/pixels-frames", DATA / "pixels-frames")
    items.shards("shards/masked", DATA / "masked")

    for index, shard in enumerate(shards):
        rows = _stacked_rows([(_stacks(episode), episode) for episode in shard])
        _savez(DATA / "pixels-stacked", index, rows)
        if index == 0:
            _savez(DATA / "pixels-not-done", index, {**rows, "dones": ~rows["dones"]})
            as_float = {name: (rows[name] / 128 - 1).astype(np.float32) for name in ("states", "next_states")}
            _savez(DATA / "pixels-float", index, {**rows, **as_float})
    for index, path in enumerate(sorted((DATA / "vectors-frames").glob("*.npz"))):
        _savez(DATA / "vectors-stacked", index, _stacked_vectors(path))


def _pixel_episode(rng: np.random.Generator, steps: int, leading: int = 0) -> Any:
    size = (leading + steps + 1, FRAME_SIZE, FRAME_SIZE)
    # Coarse blocks compress well and give convolutions something to see.
    blocks = rng.integers(0, 256, (size[0], 6, 6), dtype=np.uint8)
    terminated = bool(rng.random() < 0.7)
    return find("Episode")(
        observations=np.kron(blocks, np.ones((1, 6, 6), np.uint8)),
        actions=rng.integers(NUM_ACTIONS, size=steps),
        rewards=rng.normal(0, 2, steps).astype(np.float32),
        terminated=terminated,
        truncated=not terminated,
        behaviour_probability=np.where(rng.random(steps) < 0.5, np.nan, 0.2).astype(np.float32),
        leading=leading,
    )


def _masked_episode(rng: np.random.Generator, steps: int) -> Any:
    legal = rng.random((steps, 4)) < 0.6
    actions = rng.integers(4, size=steps)
    legal[np.arange(steps), actions] = True
    return find("Episode")(
        observations=rng.normal(size=(steps + 1, 3)).astype(np.float32),
        actions=actions,
        rewards=rng.normal(size=steps).astype(np.float32),
        terminated=True,
        truncated=False,
        action_mask=legal,
    )


def _write_frames(directory: Path, spec: Any, shards: Sequence[Sequence[Any]]) -> None:
    directory.mkdir(parents=True)
    write = find("write_shard")
    records = tuple(write(directory / f"shard-{index:05}.npz", shard) for index, shard in enumerate(shards))
    find("Manifest")(spec, records, {"id": "noise"}, {"name": "same_runs", "seed": 8}).save(directory)


def _stacks(episode: Any) -> NDArray[np.uint8]:
    """The stacks of an episode's T + 1 observations, oldest frame first; the first frame stands for older ones."""
    last = episode.leading + np.arange(len(episode.actions) + 1)
    window = np.maximum(last[:, None] + np.arange(1 - STACK, 1), 0)
    found: NDArray[np.uint8] = episode.observations[window]
    return found


def _stacked_rows(logged: Sequence[tuple[NDArray[Any], Any]]) -> dict[str, NDArray[Any]]:
    terminated = [np.arange(len(e.actions)) == (len(e.actions) - 1 if e.terminated else -1) for _, e in logged]
    return {
        "states": np.concatenate([observations[:-1] for observations, _ in logged]),
        "actions": np.concatenate([episode.actions for _, episode in logged]),
        "next_states": np.concatenate([observations[1:] for observations, _ in logged]),
        "rewards": np.concatenate([episode.rewards for _, episode in logged]),
        "dones": np.concatenate(terminated),
    }


def _stacked_vectors(shard: Path) -> dict[str, NDArray[Any]]:
    """A shard of the frames layout, read by numpy alone, in the stacked layout."""
    with np.load(shard, allow_pickle=False) as archive:
        members = dict(archive)
    ends = np.cumsum(members["episode_lengths"] + 1)
    is_last = np.isin(np.arange(ends[-1]), ends - 1)
    is_first = np.isin(np.arange(ends[-1]), ends - members["episode_lengths"] - 1)
    observations = members["observations"]
    return {
        "states": observations[~is_last],
        "actions": members["actions"],
        "next_states": observations[~is_first],
        "rewards": members["rewards"],
        "dones": members["terminated"],
    }


def _savez(directory: Path, index: int, rows: Mapping[str, NDArray[Any]]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    np.savez(directory / f"log-{index:03}.npz", **dict(rows))  # type: ignore[arg-type]  # of its own options


def stores(items: Items) -> None:
    """The arrays of every dataset's FrameStore, and what an inspection finds in it."""
    for name, options in DATASETS.items():
        replay = find("open_replay")(DATA / name, progress=False, **options)
        (folder,) = {path.parent for path in (DATA / name / ".store").glob("*/frames.npy")}
        for path in sorted(folder.glob("*.npy")):
            items.file(f"stores/{name}/{path.name}", path)
        items.file(f"{INFORMATION}/stores/{name}.json", folder / "store.json")
        items.values(f"stores/{name}/fingerprint", replay.fingerprint)
        summary = find("inspect_dataset")(replay.store, "top-returns:0.5").to_dict()
        items.values(f"inspected/{name}", _of_data(summary))


def conversions(items: Items) -> None:
    """Each layout in the other one, there and back."""
    for source, target, to, options in (
        ("pixels-frames", "frames-to-stacked", "stacked", {"shard_bytes": 600_000}),
        ("frames-to-stacked", "stacked-to-frames", "frames", {"shard_bytes": 80_000}),
        ("pixels-stacked", "logs-to-frames", "frames", {}),
        ("pixels-float", "float-to-frames", "frames", {"compress": False}),
        ("vectors-frames", "vectors-to-stacked", "stacked", {}),
        ("vectors-stacked", "vectors-to-frames", "frames", {}),
    ):
        converted = find("convert")(DATA / source, DATA / target, to, progress=False, **options)
        items.shards(f"converted/{target}", DATA / target)
        items.values(f"converted/{target}/summary", converted.to_dict())


# Batches.

BATCH_SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "n-step-3": {"n_step": 3, "discount": 0.9},
    "n-step-10-clipped": {"n_step": 10, "reward_clip": 1.0, "reward_scale": 0.1},
    "held-out": {"held_out": 0.3, "part": "held_out", "n_step": 3},
    "not-held-out": {"held_out": 0.3, "split_seed": 1},
    "top-returns": {"sampling": "top-returns:0.3", "n_step": 3},
    "softmax-returns": {"sampling": "softmax-returns:0.2"},
    "balanced-actions": {"sampling": "balanced-actions", "held_out": 0.2},
    "one-action": {"actions": (1,), "n_step": 3},
    "last-seed": {"seed": 2**64 - 1, "tier": "mmap"},
    "ram": {"tier": "ram", "n_step": 10},
    "device": {"tier": "device", "n_step": 10},
}
BATCH_FIELDS = (
    "observation",
    "action",
    "reward",
    "discount",
    "next_observation",
    "action_mask",
    "next_action_mask",
)


def batches(items: Items) -> None:
    """Batches of some steps, for every dataset and every kind of setting."""
    for name, options in DATASETS.items():
        for setting, chosen in BATCH_SETTINGS.items():
            replay = find("open_replay")(DATA / name, progress=False, **options, **chosen)
            if chosen.get("tier") == "device":
                replay = replay.to(torch.device("cpu"))
            for step in (0, 1, 1000):
                indices = replay.indices(step, 16)
                batch = replay.gather(indices)
                batch = batch.stacked() if hasattr(batch, "stacked") else batch
                items.array(f"batches/{name}/{setting}/{step}/indices", indices)
                for field_name in BATCH_FIELDS:
                    if (values := getattr(batch, field_name)) is not None:
                        items.array(f"batches/{name}/{setting}/{step}/{field_name}", values)


# Runs.

RUNS = Path("runs")


@dataclass(frozen=True)
class Run:
    """A training run: what is trained, on what, and how."""

    name: str
    algorithm: str
    data: str
    precision: str = "fp32"
    config: Mapping[str, Any] = field(default_factory=dict)
    replay: Mapping[str, Any] = field(default_factory=dict)
    learner: Mapping[str, Any] = field(default_factory=dict)
    length: Mapping[str, Any] = field(default_factory=lambda: {"updates": 30})
    encoder: str | None = None
    init: str | None = None

    @property
    def directory(self) -> Path:
        """Where it writes."""
        return RUNS / self.name

    def make_algorithm(self) -> Any:
        """The algorithm with its first weights."""
        chosen = {**DATASETS[self.data], **self.replay}
        spec = find("open_replay")(DATA / self.data, progress=False, **chosen).spec
        config = find(f"{self.algorithm}Config")(**self.config) if self.config else None
        encoder = {} if self.encoder is None else {"encoder": find(self.encoder)}
        return find(self.algorithm)(spec, config, seed=9, **encoder)

    def fit(self, directory: Path, *, resume: bool = False) -> Any:
        """Trains it, or goes on with it; returns the learner."""
        chosen = {**DATASETS[self.data], **self.replay}
        return find("fit")(
            self.make_algorithm(),
            find("open_replay")(DATA / self.data, progress=False, seed=10, **chosen),
            find("FitConfig")(**{"batch_size": 32, "log_period": 10, "checkpoint_period": 15, **self.length}),
            learner=find("LearnerConfig")(**{"precision": self.precision, "compile": "off", **self.learner}),
            run=directory,
            resume=resume,
            init=None if self.init is None else _last_checkpoint(RUNS / self.init),
            loggers=[],
            device="cpu",
        )

    def trained(self) -> Any:
        """The algorithm as the run's last checkpoint has it."""
        return find("load_policy")(self.make_algorithm(), _last_checkpoint(self.directory)).eval()


def _last_checkpoint(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*"))


_HOW: dict[str, dict[str, dict[str, Any]]] = {
    "DiscreteBCQ": {
        "config": {"threshold": 0.2, "logit_penalty": 0.02},
        "replay": {"n_step": 3, "discount": 0.97, "reward_scale": 0.5},
        "learner": {"schedule": "cosine", "average_decay": 0.9, "learning_rate": 1e-3},
    },
    "BC": {
        "replay": {"held_out": 0.2, "split_seed": 2, "sampling": "softmax-returns:0.3"},
        "learner": {"optimizer": "AdamW", "optimizer_settings": {"weight_decay": 0.01}},
    },
    "DQN": {
        "replay": {"n_step": 10, "sampling": "top-returns:0.5", "reward_clip": 1.0},
        "learner": {
            "optimizer": "SGD",
            "optimizer_settings": {"momentum": 0.9},
            "learning_rate": 0.01,
            "polyak": 1.0,
            "target_period": 7,
        },
    },
}
_AUGMENTED: dict[str, dict[str, int]] = {
    "DiscreteBCQ": {"augment_shift": 3, "augment_brightness": 16, "augment_seed": 5},
    "BC": {"augment_brightness": 16},
    "DQN": {"augment_shift": 2},
}
_SHORT = {"DiscreteBCQ": "bcq", "BC": "bc", "DQN": "dqn"}

GRID = tuple(
    Run(
        f"{_SHORT[algorithm]}-{kind}-{precision}",
        algorithm,
        f"{kind}-{layout}",
        precision,
        config=how.get("config", {}),
        replay=how["replay"],
        learner={**how["learner"], **(_AUGMENTED[algorithm] if kind == "pixels" else {})},
    )
    for algorithm, how in _HOW.items()
    for kind in ("vectors", "pixels")
    for precision, layout in (("fp32", "frames"), ("bf16", "stacked"))
)
PLAYER = Run(  # long enough for its policy to depend on what it sees
    "player",
    "DiscreteBCQ",
    "vectors-frames",
    replay={"n_step": 5},
    learner={"learning_rate": 1e-3, "average_decay": 0.99},
    length={"updates": 300, "log_period": 100, "checkpoint_period": 150, "batch_size": 64},
)
OTHERS = (
    PLAYER,
    Run("bcq-masked", "DiscreteBCQ", "masked", replay={"n_step": 3}),
    Run("dqn-subset", "DQN", "masked", replay={"actions": (0, 2, 3)}),
    Run(
        "dqn-compact",
        "DQN",
        "pixels-frames",
        config={"double": False},
        replay={"sampling": "balanced-actions", "tier": "device"},
        length={"epochs": 1.5, "log_period": 4, "checkpoint_period": 8},
        encoder="CompactEncoder",
    ),
    Run("bcq-from-another", "DiscreteBCQ", "vectors-stacked", init="bcq-vectors-fp32"),
    Run(
        "bcq-not-finite", "DiscreteBCQ", "vectors-frames", replay={"reward_scale": 1e38}, learner={"non_finite": "skip"}
    ),
)
RESUMED = ("bcq-vectors-fp32", "bcq-pixels-bf16", "bc-pixels-fp32", "dqn-pixels-fp32", "dqn-compact")
BY_NAME = {run.name: run for run in (*GRID, *OTHERS)}


def training(items: Items) -> None:
    """Every run: metrics, and the tensors of all checkpoints."""
    for run in BY_NAME.values():
        run.fit(run.directory)
        items.run(f"runs/{run.name}", run.directory)


def resumption(items: Items) -> None:
    """Runs that stopped after the second checkpoint and went on; the driver compares them with those that did not."""
    for name in RESUMED:
        stopped = Path("stopped") / name
        shutil.copytree(RUNS / name, stopped)
        for checkpoint in sorted((stopped / "checkpoints").glob("step-*"))[2:]:
            shutil.rmtree(checkpoint)
        BY_NAME[name].fit(stopped, resume=True)
        items.run(f"resumed/{name}", stopped)


def online(items: Items) -> None:
    """A DQN that learns while it collects."""
    make_env = partial(find("make"), "CartPole-v1")
    task = find("open_replay")(DATA / "vectors-frames", progress=False).spec
    find("collect_online")(
        make_env,
        find("DQN")(task, seed=11),
        DATA / "online",
        transitions=300,
        seed=12,
        config=find("OnlineConfig")(first_update=100, steps_per_update=4, batch_size=32, n_step=2),
        learner=find("LearnerConfig")(precision="fp32", compile="off"),
        progress=False,
    )
    items.shards("shards/online", DATA / "online")


# Policies.


def _observations(spec: Any, count: int) -> NDArray[Any]:
    rng = np.random.default_rng(13)
    shape = (count, *spec.observation_shape)
    if spec.observation_dtype == "uint8":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.normal(0, 2, shape).astype(np.float32)


def policies(items: Items) -> None:
    """What every trained policy chooses on fixed observations, greedily and with random actions."""
    policy = find("TorchPolicy")
    for run in BY_NAME.values():
        algorithm = run.trained()
        observations = _observations(algorithm.spec, 40)
        # Before policies knew of legal actions, all were; a mask that forbids nothing says the same.
        needs_mask = getattr(algorithm.spec, "action_masks", False)
        given = (observations, np.ones((40, algorithm.spec.num_actions), np.bool_)) if needs_mask else (observations,)
        items.array(f"policies/{run.name}/actions", policy(algorithm)(*given))
        if not needs_mask:  # random actions are drawn from the legal ones by other numbers
            items.array(f"policies/{run.name}/random", policy(algorithm, epsilon=0.4, seed=14)(observations))
        items.array(f"policies/{run.name}/threshold", policy(algorithm, threshold=0.9)(*given))
        with torch.inference_mode():
            output = algorithm(algorithm.spec.normalise(torch.from_numpy(observations)))
        items.array(f"policies/{run.name}/scores", output.scores)
        items.array(f"policies/{run.name}/logits", output.logits)


def playing(items: Items) -> None:
    """Scores of CartPole episodes: of a trained policy, with random actions, with other thresholds, of a behaviour."""
    make_env = partial(find("make"), "CartPole-v1")
    algorithm = PLAYER.trained()
    policy, evaluate, seeds = find("TorchPolicy"), find("evaluate"), find("SCORE_SEEDS")[:5]
    how = {"num_envs": 3, "workers": 0, "progress": False}
    played = {
        "greedy": evaluate(policy(algorithm), make_env, seeds, **how),
        "random": evaluate(policy(algorithm, epsilon=0.3, seed=15), make_env, seeds, **how),
        "behaviour": find("evaluate_behaviour")(find("CartPoleMixture")(), make_env, seeds, workers=0, progress=False),
    }
    for name, evaluation in played.items():
        items.values(f"scores/{name}", _of_data(evaluation.to_dict()))
    sweep = find("sweep_thresholds")(policy(algorithm), (0.0, 0.3, 0.9), make_env, find("TUNING_SEEDS")[:3], **how)
    for threshold, evaluation in sweep.evaluations.items():
        items.values(f"scores/threshold-{threshold}", _of_data(evaluation.to_dict()))
    trace = find("trace_episode")(policy(algorithm), make_env, seeds[0], max_steps=50)
    for name in ("scores", "allowed", "actions", "rewards"):
        items.array(f"scores/trace-{name}", getattr(trace, name))


def exporting(items: Items) -> None:
    """What the exported files of both contracts compute; their bytes are for information."""
    for run in GRID:
        if run.precision != "fp32":
            continue
        algorithm = run.trained()
        observations = _observations(algorithm.spec, 20)
        for contract in ("float", "uint8"):
            name = f"exported/{run.name}/{contract}"
            path = find("export_onnx")(algorithm, Path("exported") / f"{run.name}-{contract}.onnx", contract=contract)
            items.file(f"{INFORMATION}/{name}.onnx", path)
            items.array(f"{name}/actions", find("OnnxPolicy")(path)(observations))
            given = algorithm.spec.normalise(torch.from_numpy(observations)).numpy()
            for output, values in _outputs(path, observations if contract == "uint8" else given).items():
                items.array(f"{name}/{output}", values)
            verified = find("verify_onnx")(path, algorithm, observations, num_random=20)
            names = ("num_observations", "max_q_difference", "max_logits_difference", "num_disagreements")
            items.values(f"{name}/verified", {name: getattr(verified, name) for name in names})


def _outputs(path: Path, observations: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """A file's outputs by name, without offrl's help."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"observation": observations}), strict=True))


SECTIONS: tuple[Callable[[Items], None], ...] = (
    collected_data,
    car_racing,
    written_data,
    stores,
    conversions,
    batches,
    training,
    resumption,
    online,
    policies,
    playing,
    exporting,
)


def main(tree: Path, folder: Path) -> int:
    """Makes all sections; one that fails says so and the next ones run all the same. Returns the exit status."""
    package = find_spec("offrl")
    if package is None or package.origin is None or Path(package.origin).parent.parent != tree.resolve():
        sys.exit(f"`import offrl` is not that of {tree}, which has to come first in PYTHONPATH: {package}")
    torch.set_num_threads(1)
    # Warnings tell about data that is meant to look odd; what must not differ is in the items.
    warnings.simplefilter("ignore")
    items = Items(folder.resolve() / "items")
    work = folder / "work"
    work.mkdir(parents=True)
    os.chdir(work)
    failed = []
    for section in SECTIONS:
        try:
            section(items)
        except Exception:
            failed.append(section.__name__)
            print(f"{section.__name__} failed:\n{traceback.format_exc()}", file=sys.stderr)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
