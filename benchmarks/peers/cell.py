"""A cell of the table of scores by another library: trains, plays, writes its score. Imports nothing of offrl."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch

HIDDEN = (256, 512)
"""The widths of offrl's networks for vectors: 256 units in the encoder, which all heads share, and 512 in each head."""


class Agent(Protocol):
    """An algorithm of the library's, made and filled with data."""

    versions: dict[str, str]

    def update(self) -> None:
        """One gradient step."""

    def act(self, observation: np.ndarray) -> int:
        """The greedy action of one observation [D]."""


def serve(make: Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], Agent]) -> None:
    """Runs the cell that the command line describes as JSON.

    Args:
        make: An agent from what is asked for and the data: `observations` and `next_observations` [N, D], `actions`,
            `rewards`, `terminated` [N], and `ends` [E], the last row of each episode.
    """
    cell = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    random.seed(cell["seed"])
    np.random.seed(cell["seed"])  # noqa: NPY002  (these libraries draw from it)
    torch.manual_seed(cell["seed"])
    with np.load(cell["data"]) as archive:
        agent = make(cell, {name: archive[name] for name in archive.files})
    start = time.process_time()
    for _ in range(cell["updates"]):
        agent.update()
    seconds = time.process_time() - start
    scores = play(agent, cell["environment"], range(*cell["evaluation_seeds"]))
    found = {
        **{name: cell[name] for name in ("environment", "kind", "library", "settings", "algorithm", "seed", "updates")},
        "score": float(np.mean(scores)),
        "scores": scores,
        "cpu_seconds": seconds,
        "versions": {**agent.versions, "torch": torch.__version__, "gymnasium": gymnasium.__version__},
    }
    path = Path(cell["out"])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found), encoding="utf-8")
    partial.rename(path)


def play(agent: Agent, environment: str, seeds: range) -> list[float]:
    """The return of an episode from each seed."""
    env = gymnasium.make(environment)
    scores = []
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        total, is_over = 0.0, False
        while not is_over:
            observation, reward, terminated, truncated, _ = env.step(agent.act(np.asarray(observation, np.float32)))
            total += float(reward)
            is_over = terminated or truncated
        scores.append(total)
    env.close()
    return scores
