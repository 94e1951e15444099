"""Data to measure with: real CarRacing, and noise of any size."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from offrl.collection import RECIPES
from offrl.envs import car_racing
from offrl.replay import IngestReport, ingest
from offrl.replay._writer import StoreWriter
from offrl.shards.layouts import ShardRows

ROOT = Path(__file__).parent.parent
EPISODE_STEPS = 1000
MIXED = "carracing/mixed"


def car_racing_shards(directory: Path, transitions: int, seed: int = 0, dataset: str = MIXED) -> Path:
    """A dataset of CarRacing, of which what is missing is collected; another seed has other episodes."""
    shards = directory / f"{dataset.replace('/', '-')}-{transitions}{f'-seed-{seed}' if seed else ''}"
    RECIPES[dataset].collect(shards, transitions=transitions, seed=seed)  # or finds that all is there
    return shards


def car_racing_store(directory: Path, transitions: int) -> Path:
    """A store of `car_racing_shards`."""
    return ingest(car_racing_shards(directory, transitions), tier="mmap").path


def noise_store(directory: Path, transitions: int) -> Path:
    """A store of episodes of 1000 steps whose 96 x 96 frames are noise, so that nothing can compress or repeat them."""
    path = directory / f"noise-{transitions}"
    if (path / "store.json").is_file():
        return path
    shutil.rmtree(path, ignore_errors=True)
    rng = np.random.default_rng(0)
    steps = np.arange(EPISODE_STEPS)
    with StoreWriter(path) as writer:
        for _ in tqdm(range(transitions // EPISODE_STEPS), "noise", unit="episode", leave=False):
            frames = rng.integers(2**64, size=((EPISODE_STEPS + 1) * 96 * 96 // 8), dtype=np.uint64)
            is_end = steps == EPISODE_STEPS - 1
            rows = ShardRows(
                observations=frames.view(np.uint8).reshape(-1, 96, 96),
                actions=rng.integers(25, size=EPISODE_STEPS),
                rewards=rng.normal(size=EPISODE_STEPS).astype(np.float32),
                terminated=is_end,
                truncated=np.zeros_like(is_end),
                last=steps,
                first=np.zeros_like(steps),
                next_last=steps + 1,
                next_first=np.zeros_like(steps),
                segment_end=np.full_like(steps, EPISODE_STEPS - 1),
                observation_shape=(4, 96, 96),
            )
            writer.append(rows, 25)
        counts = (writer.num_transitions, writer.num_segments, writer.num_frames)
        writer.finish(car_racing.spec(), IngestReport("frames", 1, *counts), fingerprint="noise")
    return path
