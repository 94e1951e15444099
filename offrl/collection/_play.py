"""Behaviours in environments: what they play as episodes, and what a dataset says about where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from offrl import envs
from offrl.collection._describing import settings_of
from offrl.collection._episode_log import EpisodeLog
from offrl.envs.behaviours import Behaviour, act, num_actions
from offrl.envs.episodes import EpisodeRunner
from offrl.envs.seeds import DATA_SEEDS
from offrl.errors import DatasetError, OfflineRLError
from offrl.policies.policy import takes_action_masks
from offrl.shards.episode import Episode
from offrl.shards.manifest import Manifest
from offrl.spec import TaskSpec
from offrl.system.json_files import require_json
from offrl.system.versions import ENVIRONMENTS, installed_versions

if TYPE_CHECKING:  # a behaviour that is no policy loads without torch
    from offrl.policies.policy import Policy

PACKAGES = ("offrl", "gymnasium", "numpy", *ENVIRONMENTS)
"""What the bytes of a dataset depend on."""


def plan_dataset(
    env: envs.Env,
    environment: Mapping[str, Any] | None,
    generator: Mapping[str, Any],
    *,
    packages: tuple[str, ...] = PACKAGES,
    spec: TaskSpec | None = None,
) -> Manifest:
    """The manifest of a dataset that has no shards yet.

    Args:
        env: what it comes from.
        environment: what the manifest says about it, JSON-ready; default: its id, and the settings that it was made
            with where they are not the usual ones.
        generator: what makes the data, JSON-ready.
        packages: whose versions it depends on.
        spec: of the data; default: the environment's.

    Raises:
        UnknownEnvironmentError: an environment without discrete actions, or whose observations do not fit.
        ConfigError: what is said of it is not ready for JSON.
    """
    about = dict(environment or _about(env))
    if env.has_wrapper_attr("action_table"):
        about["action_table"] = np.asarray(env.get_wrapper_attr("action_table")).tolist()
    require_json(about, "environment")
    require_json(generator, "generator")
    about["versions"] = installed_versions(packages)
    return Manifest(spec or envs.task_spec(env), (), about, generator, complete=False)


def _about(env: envs.Env) -> dict[str, Any]:
    settings = settings_of(env)
    name = env.spec.id if env.spec else type(env.unwrapped).__name__
    return {"id": name, "settings": settings} if settings else {"id": name}


def play_episode(
    env: envs.Env,
    behaviour: Behaviour,
    spec: TaskSpec,
    seed: int,
    number: int,
    before_step: Callable[[], None] = lambda: None,
) -> Episode:
    """Plays episode `number` of the dataset `seed`; the two alone decide the environment's seed and the behaviour's.

    Args:
        env: to play in.
        behaviour: that plays.
        spec: of the task.
        seed: of the dataset.
        number: of the episode.
        before_step: called before each step; an OfflineRLError that it raises ends the episode, which is lost.

    Raises:
        DatasetError: observations that are not of the task, or pixels that are not stacks of frames, oldest first; or
            something else went wrong, which the message says.
    """
    try:
        return _play(env, behaviour, spec, seed, number, before_step)
    except OfflineRLError:
        raise
    except Exception as error:
        raise DatasetError(f"{type(error).__name__}: {error}", where=f"collecting episode {number}") from error


def _play(
    env: envs.Env, behaviour: Behaviour, spec: TaskSpec, seed: int, number: int, before_step: Callable[[], None]
) -> Episode:
    env_sequence, behaviour_sequence = np.random.SeedSequence([seed, number]).spawn(2)
    env_seed = DATA_SEEDS[int(env_sequence.generate_state(1)[0]) % len(DATA_SEEDS)]
    runner = EpisodeRunner(env)
    runner.reset(env_seed)
    behaviour.begin(env, np.random.default_rng(behaviour_sequence))
    log = EpisodeLog(runner.observation, spec, runner.action_mask)
    while not runner.ended:
        before_step()
        action, probability = act(behaviour, runner.observation, runner.action_mask)
        runner.step(action)
        log.append(action, probability, runner.reward, runner.observation, runner.action_mask)
    return log.episode(terminated=runner.terminated, truncated=runner.truncated)


class PolicyBehaviour:
    """The greedy actions of a policy, as a behaviour.

    Args:
        policy: acts without randomness.
        name: what a manifest calls it, the same wherever the policy lies.
    """

    def __init__(self, policy: Policy, name: str = "policy") -> None:
        self._policy = policy
        self._takes_masks = takes_action_masks(policy)
        self._name = name

    def __repr__(self) -> str:
        return f"PolicyBehaviour({self._name!r})"

    def begin(self, env: envs.Env, rng: np.random.Generator) -> None:
        """Nothing to draw."""
        self._num_actions = num_actions(env)

    def __call__(self, observation: NDArray[Any], action_mask: NDArray[Any] | None = None) -> tuple[int, float]:
        """The action, which is certain."""
        mask = None if action_mask is None else action_mask[None]
        if mask is None and self._takes_masks:  # a step that states none: all are legal
            mask = np.ones((1, self._num_actions), np.bool_)
        return int(self._policy(observation[None], mask)[0]), 1.0


def progress_bar(transitions: int, played: int, progress: bool) -> tqdm[Any]:
    """A bar over the steps of a collection, where stderr is a terminal."""
    return tqdm(total=transitions, initial=played, desc="collect", unit=" steps", disable=None if progress else True)
