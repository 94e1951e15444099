"""The best of the policies that an online agent had, and what TQ and SACo refer to."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from offrl import envs
from offrl.algorithms.algorithm import Algorithm
from offrl.checks import is_whole
from offrl.collection._kept_learner import LEARNER_NAME
from offrl.collection._play import PolicyBehaviour
from offrl.datasets.coverage import References
from offrl.envs.behaviours import Behaviour, RandomBehaviour, act
from offrl.envs.episodes import EpisodeRunner
from offrl.envs.seeds import TUNING_SEEDS, episode_rng
from offrl.errors import DatasetError
from offrl.policies.torch_policy import TorchPolicy
from offrl.replay.ingestion import ingest
from offrl.runs.checkpoint import checkpoints, link_best, load_policy, step_of
from offrl.shards.manifest import MANIFEST_NAME, file_sha256

_CHOOSING_SEEDS = TUNING_SEEDS[:10]
_MEASURING_SEEDS = TUNING_SEEDS[1000:1100]
"""Other ones: the highest of twenty noisy means flatters."""


def judge(make_env: envs.EnvFactory, algorithm: Algorithm, directory: Path, *, progress: bool) -> dict[str, Any]:
    """Finds the best policy of the online run in this replay dataset, links it as `best`, and measures.

    Args:
        make_env: makes the environment.
        algorithm: of the run.
        directory: of the replay dataset.
        progress: show progress bars, where stderr is a terminal.

    Returns:
        What the manifests of the protocol have: the best policy's step and hash, the mean returns of random actions
        and of that policy, and the replay dataset's unique state-action pairs. JSON-ready.
    """
    folder = _checkpoints(directory)
    candidates = checkpoints(folder)
    if not candidates:
        raise _missing(folder)
    total = len(candidates) * len(_CHOOSING_SEEDS) + 2 * len(_MEASURING_SEEDS)
    with tqdm(total=total, desc="evaluate", unit=" episodes", disable=None if progress else True) as bar:
        scores = [
            _mean_return(make_env, PolicyBehaviour(_policy(algorithm, each)), _CHOOSING_SEEDS, bar)
            for each in candidates
        ]
        best = candidates[int(np.argmax(scores))]
        expert = PolicyBehaviour(_policy(algorithm, best))
        best_return = _mean_return(make_env, expert, _MEASURING_SEEDS, bar)
        random_return = _mean_return(make_env, RandomBehaviour(), _MEASURING_SEEDS, bar)
    seen = References.of_store(ingest(directory, tier="mmap", progress=progress), progress=progress)
    link_best(folder, step_of(best))
    return {
        "best_step": step_of(best),
        "policy_sha256": file_sha256(best / "policy.safetensors"),
        **replace(seen, random_return=random_return, best_return=best_return).to_dict(),
    }


def best_policy(algorithm: Algorithm, directory: Path, protocol: Mapping[str, Any]) -> PolicyBehaviour:
    """The policy that `judge` found, under a name that says which weights they are, and not where they lie.

    Args:
        algorithm: of the online run.
        directory: of the replay dataset.
        protocol: of its manifest.

    Raises:
        DatasetError: the manifest names no policy, or its file is missing, or another one.
        RunError: it is damaged.
    """
    step, sha256 = protocol.get("best_step"), protocol.get("policy_sha256")
    if not (is_whole(step) and isinstance(sha256, str)):
        raise DatasetError(
            f"names no policy (best_step is {step!r}, policy_sha256 {sha256!r})",
            where=directory / MANIFEST_NAME,
            expected="that of the online run",
            hint="restore it, or collect the datasets anew in another directory",
        )
    checkpoint = _checkpoints(directory) / f"step-{step:09d}"
    path = checkpoint / "policy.safetensors"
    if not path.is_file():
        raise _missing(checkpoint)
    if file_sha256(path) != sha256:
        raise DatasetError(
            "is another policy than the one that the manifests name",
            where=path,
            expected=f"the SHA-256 {sha256[:16]}...",
            hint="restore it, or collect the datasets anew in another directory",
        )
    return PolicyBehaviour(_policy(algorithm, checkpoint), f"{algorithm.name} {sha256[:16]}")


def _checkpoints(directory: Path) -> Path:
    return directory / LEARNER_NAME / "checkpoints"


def _missing(where: Path) -> DatasetError:
    return DatasetError(
        "the policy of the online run is missing",
        where=where,
        expected="what was written beside the replay dataset",
        hint="restore it, or collect the datasets anew in another directory",
    )


def _policy(algorithm: Algorithm, checkpoint: Path) -> TorchPolicy:
    return TorchPolicy(load_policy(copy.deepcopy(algorithm).cpu(), checkpoint))


def _mean_return(make_env: envs.EnvFactory, behaviour: Behaviour, seeds: Sequence[int], bar: tqdm[Any]) -> float:
    """Of one episode for each seed."""
    returns = []
    with closing(make_env()) as env:
        runner = EpisodeRunner(env)
        for seed in seeds:
            runner.reset(seed)
            behaviour.begin(env, episode_rng(seed))
            while not runner.ended:
                action, _ = act(behaviour, runner.observation, runner.action_mask)
                runner.step(action)
            returns.append(runner.score)
            bar.update()
    return float(np.mean(returns))
