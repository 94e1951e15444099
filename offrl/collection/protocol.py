"""The five kinds of datasets of Schweighofer et al. 2022 (arXiv:2111.04714), for any environment with discrete actions.

An agent learns online, once; all that it saw is the *replay* dataset, and the best of its policies plays the *expert*
and *noisy* ones. *Mixed* has episodes of the *random* and the expert dataset. Each lies in a directory of its name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from offrl import envs
from offrl.collection._arguments import require_collectable
from offrl.collection._play import PACKAGES, plan_dataset
from offrl.collection.collector import collect
from offrl.collection.online import OnlineConfig, collect_online
from offrl.envs.behaviours import Behaviour, EpsilonGreedy, RandomBehaviour
from offrl.errors import ConfigError
from offrl.shards._recording import LOCK_NAME, Recording, writing
from offrl.shards.episode import Episode
from offrl.shards.manifest import Manifest
from offrl.system.locks import locked

if TYPE_CHECKING:  # what has been collected is found without torch
    from offrl.algorithms.algorithm import Algorithm
    from offrl.replay.store import FrameStore
    from offrl.training.config import LearnerConfig

Kind = Literal["random", "expert", "mixed", "noisy", "replay"]
KINDS: dict[Kind, str] = {
    "random": "uniformly random actions",
    "expert": "the best policy found online, greedy",
    "mixed": "80 % of the transitions of random, 20 % of expert, whole episodes of both",
    "noisy": "the best policy found online, 20 % of its actions random",
    "replay": "all that the online agent saw while it learned",
}
"""The kinds and what plays them."""
RANDOM_SHARE = 0.8
"""Of the transitions of *mixed*."""
NOISE = 0.2
"""Epsilon of *noisy*."""
_TRANSITIONS_PER_SHARD = 4000  # about, of *mixed*


@dataclass(frozen=True)
class _Protocol:
    """What all five kinds share.

    Attributes:
        make_env: makes the environment.
        directory: of the five.
        algorithm: learns online.
        common: of every collection: transitions, seed, environment, progress.
        online: how the agent explores and what it learns from.
        learner: how it is updated.
        device: where it learns.
        workers: that play random, expert and noisy.
    """

    make_env: envs.EnvFactory
    directory: Path
    algorithm: Algorithm
    common: Mapping[str, Any]
    online: OnlineConfig
    learner: LearnerConfig
    device: str
    workers: int | None

    def collect(self, kind: Kind) -> Manifest:
        """The dataset of this kind, and first those that it is made of."""
        replayed = self._replay()
        if kind == "replay":
            return replayed
        assert replayed.protocol is not None
        protocol = {**replayed.protocol, "kind": kind, "online": dict(replayed.generator)}
        if kind == "mixed":
            self.collect("random")
            self.collect("expert")
            return self._mix(protocol)
        return collect(
            self.make_env,
            self._behaviour(kind, protocol),
            self.directory / kind,
            workers=self.workers,
            protocol=protocol,
            **self.common,
        )

    def _behaviour(self, kind: Kind, protocol: Mapping[str, Any]) -> Behaviour:
        from offrl.collection._best_policy import best_policy

        if kind == "random":
            return RandomBehaviour()
        expert = best_policy(self.algorithm, self.directory / "replay", protocol)
        return expert if kind == "expert" else EpsilonGreedy(expert, NOISE)

    def _replay(self) -> Manifest:
        """The replay dataset, with the best of the agent's policies and what measures refer to."""
        from offrl.collection._best_policy import judge

        directory = self.directory / "replay"
        manifest = collect_online(
            self.make_env,
            self.algorithm,
            directory,
            config=self.online,
            learner=self.learner,
            device=self.device,
            **self.common,
        )
        if manifest.protocol is not None:
            return manifest
        with locked(directory / LOCK_NAME):
            manifest = Manifest.load(directory)
            if manifest.protocol is None:  # else by another process meanwhile
                found = judge(self.make_env, self.algorithm, directory, progress=self.common["progress"])
                manifest = replace(manifest, protocol={"kind": "replay", **found})
                with writing(directory):
                    manifest.save(directory)
        return manifest

    def _mix(self, protocol: Mapping[str, Any]) -> Manifest:
        """Whole episodes of random until they have 80 % of the transitions, of expert until they have the rest."""
        directory, total, seed = self.directory / "mixed", self.common["transitions"], self.common["seed"]
        sources = {name: Manifest.load(self.directory / name) for name in ("random", "expert")}
        generator = {
            "name": "offrl.collect_protocol",
            "kind": "mixed",
            "random_share": RANDOM_SHARE,
            "random": _digest(sources["random"]),
            "expert": _digest(sources["expert"]),
            "seed": seed,
            "transitions": total,
        }
        with closing(self.make_env()) as env:
            plan = plan_dataset(env, self.common["environment"], generator, packages=PACKAGES)
        plan = replace(plan, protocol=protocol)
        if (complete := Recording.completed(directory, plan)) is not None:
            return complete
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
        with locked(directory / LOCK_NAME):
            recording = Recording.resume(directory, plan)
            if recording.is_complete:  # by another process meanwhile
                recording.remove_strays()
                return recording.manifest
            recording.keep(0)  # it takes no time to copy all of it again
            recording.begin()
            recording.remove_strays()
            taken = self._taken()
            order = np.random.default_rng(np.random.SeedSequence([seed, 0])).permutation(len(taken))
            for part in np.array_split(order, min(len(taken), -(-total // _TRANSITIONS_PER_SHARD))):
                recording.write([_unattributed(*taken[index]) for index in part.tolist()])
            return recording.complete()

    def _taken(self) -> list[tuple[FrameStore, range]]:
        """The episodes of *mixed*, each as its store and its rows there."""
        from offrl.datasets._episodes import segments
        from offrl.replay.ingestion import ingest

        total = self.common["transitions"]
        num_random = round(RANDOM_SHARE * total)
        taken: list[tuple[FrameStore, range]] = []
        for kind, missing in (("random", num_random), ("expert", total - num_random)):
            store = ingest(self.directory / kind, tier="mmap", progress=self.common["progress"])
            for rows in segments(store):
                if missing <= 0:
                    break
                taken.append((store, rows))
                missing -= len(rows)
        return taken


def _unattributed(store: FrameStore, rows: range) -> Episode:
    """An episode, without probabilities: which of the two policies plays is not known from a state."""
    from offrl.datasets._episodes import episode_at

    return replace(episode_at(store, rows), behaviour_probability=np.full(len(rows), np.nan, np.float32))


def _digest(manifest: Manifest) -> str:
    """Tells datasets apart by their bytes."""
    return hashlib.sha256(json.dumps([shard.sha256 for shard in manifest.shards]).encode()).hexdigest()


def collect_protocol(
    make_env: envs.EnvFactory,
    kind: Kind,
    directory: str | Path,
    *,
    transitions: int,
    seed: int = 0,
    workers: int | None = None,
    algorithm: Algorithm | None = None,
    online: OnlineConfig | None = None,
    learner: LearnerConfig | None = None,
    environment: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Manifest:
    """Collects one of the five kinds of datasets of arXiv:2111.04714, and first what it is made of.

    The kinds of one directory share one online run, which makes the replay dataset. After each twentieth of its
    transitions the agent's policy is kept; the best of them, by the mean return of 10 episodes, is the expert. What TQ
    and SACo refer to (`offrl.datasets.References`) is measured once, on 100 other episodes, and is in every manifest.

    Each kind is a function of the seed and the settings, on the same machine. Where a dataset is complete, it is
    returned as it is; ctrl-C or a kill leaves what is finished, and the same call goes on from there to the same bytes.

    Args:
        make_env: makes one environment, such as `functools.partial(envs.make, "CartPole-v1")`.
        kind: one of `KINDS`.
        directory: of the five; the dataset goes into `directory/kind`.
        transitions: how many steps at least, of each kind.
        seed: of the whole.
        workers: processes that play random, expert and noisy; None takes one for each core. The agent learns in this
            process, on a GPU where there is one.
        algorithm: learns online, and is trained in place; default: a double DQN.
        online: how it explores and what it learns from; default: `online_defaults(transitions)`.
        learner: how it is updated; default: the learning rate 5e-4, in float32, not compiled.
        environment: what the manifests say about the environment, JSON-ready; default: its id and settings.
        progress: show progress bars, where stderr is a terminal.

    Raises:
        ConfigError: no such kind, or a setting outside what is allowed.
        UnknownEnvironmentError: an environment without discrete actions, or whose observations do not fit.
        DatasetError: `directory` holds another dataset or cannot be written, or an episode failed.
        InUseError: another process is collecting one of the datasets.
        RunError: the loss became infinite, or a policy of the online run is missing or damaged.
        KeyboardInterrupt: Ctrl-C was pressed; what is finished is kept.
    """
    if kind not in get_args(Kind):
        raise ConfigError(f"no kind {kind!r}", where="collect_protocol", expected=f"one of {', '.join(KINDS)}")
    require_collectable("collect_protocol", make_env, seed=seed, transitions=transitions, workers=workers)
    import torch

    from offrl.algorithms.dqn import DQN
    from offrl.training.config import LearnerConfig

    if algorithm is None:
        with closing(make_env()) as env:
            algorithm = DQN(envs.task_spec(env), seed=seed)  # double Q-learning is its default
    # JSON takes no numpy numbers.
    common = {"transitions": int(transitions), "seed": int(seed), "environment": environment, "progress": progress}
    return _Protocol(
        make_env,
        Path(directory),
        algorithm,
        common,
        online_defaults(transitions) if online is None else online,
        LearnerConfig(learning_rate=5e-4, precision="fp32", compile="off") if learner is None else learner,
        "cuda" if torch.cuda.is_available() else "cpu",
        workers,
    ).collect(kind)


def online_defaults(transitions: int) -> OnlineConfig:
    """How the online agent of `collect_protocol` explores and learns, for a dataset of that size."""
    return OnlineConfig(exploration=0.3, first_update=max(1, min(1000, transitions // 20)), n_step=3)
