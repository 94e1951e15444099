"""Everything that a learner plays while it learns, as a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offrl import envs
from offrl.checks import Checks
from offrl.collection._arguments import require_collectable
from offrl.collection._play import PACKAGES, PolicyBehaviour, plan_dataset, play_episode, progress_bar
from offrl.collection._seen import Seen
from offrl.envs.behaviours import EpsilonGreedy
from offrl.errors import ConfigError
from offrl.shards._recording import LOCK_NAME, Recording, writing
from offrl.shards.episode import Episode, read_shard
from offrl.shards.manifest import MANIFEST_NAME, Manifest
from offrl.system.locks import locked

if TYPE_CHECKING:  # a recipe that needs no learner loads without torch
    from offrl.algorithms.algorithm import Algorithm
    from offrl.replay.replay import Replay
    from offrl.replay.store import FrameStore
    from offrl.training.config import LearnerConfig


@dataclass(frozen=True)
class OnlineConfig:
    """How `collect_online` explores, and what it learns from.

    Attributes:
        first_epsilon: how likely each action is a random one, in the first episode; in [0, 1].
        last_epsilon: the same once exploration is over; in [0, 1].
        exploration: share of the transitions over which epsilon falls linearly from the first to the last, in (0, 1].
        first_update: transitions that are played before learning begins.
        steps_per_update: one update for so many transitions from then on; made after each episode, all that are due.
        batch_size: transitions in an update.
        n_step: see `offrl.replay.Replay`, as for the next two.
        discount: per step.
        reward_scale: of the rewards learned from; the shards have them as they were.

    Raises:
        ConfigError: a setting outside what is allowed.
    """

    first_epsilon: float = 1.0
    last_epsilon: float = 0.05
    exploration: float = 0.5
    first_update: int = 1000
    steps_per_update: int = 4
    batch_size: int = 128
    n_step: int = 1
    discount: float = 0.99
    reward_scale: float = 1.0

    def __post_init__(self) -> None:
        checks = Checks(self)
        checks.number("first_epsilon", "a number in [0, 1]", lambda epsilon: 0 <= epsilon <= 1)
        checks.number("last_epsilon", "a number in [0, 1]", lambda epsilon: 0 <= epsilon <= 1)
        checks.number("exploration", "0 < exploration <= 1", lambda share: 0 < share <= 1)
        checks.whole("first_update", "steps_per_update", "batch_size", least=1)
        checks.whole("n_step", least=1)
        checks.number("discount", "a number in [0, 1]", lambda discount: 0 <= discount <= 1)
        checks.number("reward_scale", "a finite number other than 0", lambda scale: scale != 0)

    def epsilon(self, progress: float) -> float:
        """How likely each action is a random one, after that share of the transitions."""
        explored = min(progress / self.exploration, 1.0)
        return (1 - explored) * self.first_epsilon + explored * self.last_epsilon

    def num_updates(self, num_transitions: int) -> int:
        """Updates that are due after so many transitions."""
        return max(0, num_transitions - self.first_update) // self.steps_per_update

    def replay(self, store: FrameStore, seed: int) -> Replay:
        """What to learn from, as a ReplaySource.

        Raises:
            ConfigError: a setting of the replay outside what is allowed.
        """
        from offrl.replay.replay import Replay

        return Replay(store, n_step=self.n_step, discount=self.discount, reward_scale=self.reward_scale, seed=seed)


def collect_online(
    make_env: envs.EnvFactory,
    algorithm: Algorithm,
    directory: Path | str,
    *,
    transitions: int,
    seed: int = 0,
    config: OnlineConfig | None = None,
    learner: LearnerConfig | None = None,
    device: str = "cpu",
    episodes_per_shard: int = 4,
    environment: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Manifest:
    """Lets `algorithm` play, learn from all that it has seen so far, and play on: every episode goes into the dataset.

    It acts epsilon-greedily with its newest weights; epsilon and weights change between episodes, so that the
    probability of each action is exact. All frames stay in memory. The same seed gives the same data on the same
    machine as far as torch's arithmetic does, so not where `precision` is "auto".

    The learner is kept as a run in `directory/learner`, with a checkpoint after each twentieth of the transitions:
    `offrl evaluate` plays its policy. A collection that was interrupted goes on from the newest checkpoint, to the same
    bytes as if it had never stopped; shards after it are played again.

    Args:
        make_env: makes the environment.
        algorithm: any; trained in place.
        directory: where the shards and `manifest.json` go.
        transitions: how many steps at least.
        seed: of the episodes, the random actions and the batches; the algorithm's weights have their own.
        config: exploration and replay.
        learner: how an update is made; a schedule ends with the last update.
        device: where the networks live.
        episodes_per_shard: episodes in one file.
        environment: what the manifest says about the environment, JSON-ready; default: its id and settings.
        progress: show a progress bar, where stderr is a terminal.

    Raises:
        ConfigError: a setting outside what is allowed.
        DatasetError: `directory` holds another dataset or cannot be written, or an episode failed.
        InUseError: another process is collecting into `directory`.
        SpecMismatchError: the algorithm was made for another task.
        RunError: the loss became infinite, or the learner cannot be written.
    """
    from offrl.algorithms.building import described_encoder
    from offrl.collection._kept_learner import NUM_CHECKPOINTS, KeptLearner
    from offrl.policies.torch_policy import TorchPolicy
    from offrl.training.config import LearnerConfig
    from offrl.training.learner import Learner

    directory = Path(directory)
    counts = {"transitions": transitions, "episodes_per_shard": episodes_per_shard}
    require_collectable("collect_online", make_env, seed=seed, **counts)
    transitions, episodes_per_shard, seed = int(transitions), int(episodes_per_shard), int(seed)  # JSON takes no others
    config = OnlineConfig() if config is None else config
    learner = LearnerConfig() if learner is None else learner
    generator = {
        "name": "offrl.collect_online",
        "algorithm": algorithm.name,
        "algorithm_config": {} if algorithm.config is None else asdict(algorithm.config),
        "weights_seed": algorithm.seed,
        **described_encoder(algorithm),
        "learner": asdict(learner),
        "online": asdict(config),
        "seed": seed,
        "transitions": transitions,
        "episodes_per_shard": episodes_per_shard,
    }
    with closing(make_env()) as env:
        plan = plan_dataset(env, environment, _as_noted(generator, directory), packages=(*PACKAGES, "torch"))
    algorithm.spec.require_same(
        plan.spec, where="environment", hint="make the algorithm with its task_spec", legal_actions=False
    )
    if algorithm.spec.legal_actions is not None:
        raise ConfigError(
            f"an algorithm confined to the actions {algorithm.spec.legal_actions}",
            where="collect_online",
            expected="one that may take every action, because exploration draws from all of them",
        )
    if (complete := Recording.completed(directory, plan)) is not None:
        return complete
    with ExitStack() as stack:
        with writing(directory):
            stack.enter_context(locked(directory / LOCK_NAME))
        recording = Recording.resume(directory, plan)
        if recording.is_complete:  # by another process meanwhile
            recording.remove_strays()
            return recording.manifest
        trainer = Learner(algorithm, learner, total_updates=max(1, config.num_updates(transitions)), device=device)
        kept = KeptLearner(directory, trainer, max(1, transitions // NUM_CHECKPOINTS))
        recording.keep(kept.resume(len(recording)))
        recording.begin()
        recording.remove_strays()
        seen = Seen(directory, plan.spec)
        for record in recording.manifest.shards:
            for episode in read_shard(directory / record.name):
                seen.append(episode)
        _note_masks(algorithm, seen)
        with progress_bar(transitions, seen.num_transitions, progress) as bar, recording.kept():
            while seen.num_transitions < transitions:
                # A new environment for every shard: one that goes on has none of what earlier episodes left behind.
                with closing(make_env()) as env:
                    new: list[Episode] = []
                    while len(new) < episodes_per_shard and seen.num_transitions < transitions:
                        epsilon = config.epsilon(seen.num_transitions / transitions)
                        behaviour = EpsilonGreedy(PolicyBehaviour(TorchPolicy(algorithm)), epsilon)
                        episode = play_episode(env, behaviour, plan.spec, seed, seen.num_episodes)
                        seen.append(episode)
                        new.append(episode)
                        _note_masks(algorithm, seen)
                        bar.set_postfix(score=float(episode.rewards.sum()), epsilon=epsilon, refresh=False)
                        bar.update(min(len(episode), transitions - bar.n))
                        replay = config.replay(seen.store(), seed)
                        is_last = seen.num_transitions >= transitions
                        while not is_last and trainer.step < config.num_updates(seen.num_transitions):
                            trainer.update(replay.gather(replay.indices(trainer.step, config.batch_size)))
                        trainer.require_finite()
                recording.write(new)
                kept.begin(config, transitions, seed, plan.environment)  # now its spec says whether there are masks
                kept.save(len(recording), seen.num_transitions, is_last=is_last)
        return recording.complete()


_NOTED_LATER = {"encoder", "encoder_settings", "weights_seed"}
"""What the manifests of earlier versions do not have."""


def _as_noted(generator: dict[str, Any], directory: Path) -> dict[str, Any]:
    """The generator as far as the dataset that is there can tell it from others."""
    if not (directory / MANIFEST_NAME).is_file():
        return generator
    noted = Manifest.load(directory).generator
    return {name: value for name, value in generator.items() if name in noted or name not in _NOTED_LATER}


def _note_masks(algorithm: Algorithm, seen: Seen) -> None:
    """Has the algorithm's policy ask for legal actions, once an episode has stated some.

    No space of an environment says whether it states them. Here the policy is given them all the same; whoever plays
    it later looks at its spec.
    """
    if seen.has_action_masks and not algorithm.spec.action_masks:
        algorithm.spec = replace(algorithm.spec, action_masks=True)
