"""The standard datasets: one name, one way to make it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from offrl import envs
from offrl.collection.collector import collect
from offrl.collection.online import OnlineConfig, collect_online
from offrl.envs.behaviours import Behaviour, EpsilonGreedy, RandomBehaviour
from offrl.envs.car_racing import ENV_ID
from offrl.envs.drivers import EXPERT, CarRacingMixture, DriverSettings, TrackDriver, VariedDrivers
from offrl.errors import ConfigError
from offrl.shards.manifest import Manifest
from offrl.system.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Recipe:
    """How a standard dataset is made.

    Attributes:
        name: of the dataset.
        description: in one line.
        behaviour: what plays; None is a double DQN that learns from what it has played.
        environment: a Gymnasium id.
        options: of `offrl.envs.make`.
    """

    name: str
    description: str
    behaviour: Behaviour | None
    environment: str = ENV_ID
    # A car that stands still teaches little.
    options: Mapping[str, Any] = field(default_factory=lambda: {"hud": "visible", "no_progress_steps": 150})

    def collect(
        self,
        directory: Path | str,
        *,
        transitions: int,
        seed: int = 0,
        workers: int | None = None,
        progress: bool = True,
        ranks: Ranks = ALONE,
    ) -> Manifest:
        """Collects the dataset, see `offrl.collection.collect`; the one of the double DQN, `collect_online`.

        Args:
            directory: where the shards and `manifest.json` go.
            transitions: how many steps at least.
            seed: of the whole dataset.
            workers: processes; None takes one for each core. A double DQN plays in one, this one, on a GPU if there is
                one.
            progress: show a progress bar, where stderr is a terminal.
            ranks: the processes that collect together, see `offrl.collection.collect`.

        Raises:
            ConfigError: a setting outside what is allowed, such as several workers or ranks for the double DQN.
            DatasetError: `directory` holds another dataset, or an episode failed.
        """
        make_env = partial(envs.make, self.environment, **self.options)
        common: dict[str, Any] = {
            "transitions": transitions,
            "seed": seed,
            "environment": {"id": self.environment, **self.options},
            "progress": progress,
        }
        if self.behaviour is not None:
            return collect(make_env, self.behaviour, directory, workers=workers, ranks=ranks, **common)
        if workers not in (None, 1) or ranks.count > 1:
            raise ConfigError(
                f"{ranks.count} ranks" if ranks.count > 1 else f"{workers} workers",
                where=self.name,
                expected="1: a double DQN plays and learns in one process",
                hint="leave it out",
            )
        return _collect_replay(make_env, directory, seed, common)


def _collect_replay(make_env: envs.EnvFactory, directory: Path | str, seed: int, common: Mapping[str, Any]) -> Manifest:
    """All that a double DQN plays while it learns, with the settings that the examples learn offline with."""
    import torch  # the other recipes do without

    from offrl.algorithms.dqn import DQN
    from offrl.training.config import LearnerConfig

    with closing(make_env()) as env:
        algorithm = DQN(envs.task_spec(env), seed=seed)  # double Q-learning is its default
    return collect_online(
        make_env,
        algorithm,
        directory,
        config=OnlineConfig(first_update=5_000, n_step=10, discount=0.97, reward_scale=0.1),
        learner=LearnerConfig(polyak=0.01),
        device="cuda" if torch.cuda.is_available() else "cpu",
        **common,
    )


_BOLD_GRIPS = ((1.0, 90.0, 250.0),)  # the best driver's is 200: beyond, it slides
_MEDIUM_EPSILON = 0.1
_EXPERT_EPSILON = 0.02  # each action's probability is known and positive, and the mean stays over 900

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("carracing/random", "uniformly random actions", RandomBehaviour()),
        Recipe("carracing/mixed", "drivers from careful to bold, from steady to erratic", CarRacingMixture()),
        Recipe("carracing/bold", "drivers up to too bold, from steady to erratic", CarRacingMixture(grips=_BOLD_GRIPS)),
        Recipe("carracing/varied", "drivers of random settings, few of them good", VariedDrivers()),
        Recipe(
            "carracing/medium",
            f"one driver of medium skill, {_MEDIUM_EPSILON:.0%} of its actions random",
            EpsilonGreedy(TrackDriver(DriverSettings.of_skill(0.6)), _MEDIUM_EPSILON),
        ),
        Recipe(
            "carracing/expert",
            f"the best driver, {_EXPERT_EPSILON:.0%} of its actions random",
            EpsilonGreedy(TrackDriver(EXPERT), _EXPERT_EPSILON),
        ),
        Recipe("carracing/replay", "everything that a double DQN sees while it learns", None),
    )
}
"""The standard datasets by name."""
