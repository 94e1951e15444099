"""Episodes played by a policy: several environments at once, one batch of inference for all, seeded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from offrl.envs.behaviours import Behaviour
from offrl.envs.episodes import EpisodeEnd
from offrl.envs.making import EnvFactory
from offrl.envs.seeds import SCORE_SEEDS, TUNING_SEEDS
from offrl.errors import ConfigError, SpecMismatchError
from offrl.evaluation._arguments import plain_thresholds, require_playable, require_policy
from offrl.evaluation._player import Player
from offrl.evaluation._rollouts import make_environments, play_episodes
from offrl.evaluation.scores import Evaluation, Sweep
from offrl.system.versions import installed_versions
from offrl.system.workers import num_cores

if TYPE_CHECKING:  # what plays with scripted drivers alone does not pay for torch
    from offrl.policies.policy import ActionFunction, ThresholdPolicy

__all__ = [
    "SCORE_SEEDS",
    "TUNING_SEEDS",
    "EpisodeEnd",
    "Evaluation",
    "Sweep",
    "evaluate",
    "evaluate_behaviour",
    "sweep_thresholds",
]


def evaluate(
    policy: ActionFunction,
    make_env: EnvFactory,
    seeds: Sequence[int],
    *,
    num_envs: int = 20,
    workers: int | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Plays one episode for each seed.

    A fixed number of environments step together, and the policy always sees a batch of that many observations
    (those of finished environments are ignored), so that the scores do not depend on the number of workers. The random
    actions of offrl's policies (`epsilon`, `stochastic`) depend on the policy's seed and on that of the episode alone.

    Args:
        policy: raw observations [num_envs, ...] -> actions [num_envs]. One whose `spec.action_masks` is true is given
            the legal actions too, bool [num_envs, A], from `info["action_mask"]`; where a step has none, all are legal.
        make_env: makes one environment; must be picklable if there are worker processes.
        seeds: one for each episode, given to `reset`: `SCORE_SEEDS[:100]`, `TUNING_SEEDS[:20]` or your own.
        num_envs: environments that step together.
        workers: processes that step them; 0 steps them in this process, None takes one for each core.
        progress: show a progress bar; None shows it on a terminal only.

    Raises:
        ConfigError: no seeds, seeds that `require_evaluation_seeds` refuses, numbers below 1, or a `make_env` that
            cannot be sent to worker processes.
        SpecMismatchError: the policy is of a task with more actions; it needs legal actions, and the
            environment states none; or the observations are not all of one shape and kind.
        OfflineRLError: an environment failed in its worker.
    """
    require_playable("evaluate", make_env, seeds, num_envs=num_envs, workers=workers)
    require_policy(policy, "evaluate")
    num_playing = min(num_envs, len(seeds))
    workers = min(num_cores() if workers is None else workers, num_playing)
    ends: dict[int, EpisodeEnd] = {}
    environments = make_environments(make_env, num_playing, workers)
    with closing(environments), _progress_bar(len(seeds), progress) as bar:
        _require_actions_of(policy, environments.num_actions())
        playing = {slot: slot for slot in range(num_playing)}  # environment -> index of the episode that it plays
        first = environments.reset({slot: int(seeds[slot]) for slot in playing})
        # Rounding depends on the size of a batch, so with fewer episodes than `num_envs` it is filled up all the same.
        player = Player(policy, num_envs)
        for slot in range(num_envs):
            player.begin(slot, int(seeds[slot % num_playing]), first[slot % num_playing])
        upcoming = iter(range(num_playing, len(seeds)))
        while playing:
            actions = _require_actions(player.policy(*player.inputs()), num_envs)
            steps = environments.step({slot: int(actions[slot]) for slot in playing})
            ended = {slot: step.end for slot, step in steps.items() if step.end is not None}
            for slot, step in steps.items():
                player.show(slot, step)
            for slot, end in sorted(ended.items()):
                ends[playing.pop(slot)] = end
            if ended:
                _show_progress(bar, ends)
            fresh = dict(zip(sorted(ended), upcoming, strict=False))
            playing |= fresh
            begun = {slot: int(seeds[index]) for slot, index in fresh.items()}
            for slot, step in environments.reset(begun).items():
                player.begin(slot, begun[slot], step)
    return _evaluation(seeds, ends)


def evaluate_behaviour(
    behaviour: Behaviour,
    make_env: EnvFactory,
    seeds: Sequence[int],
    *,
    workers: int | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Plays one episode for each seed with a behaviour, such as a scripted driver that sees the environment itself.

    A worker plays whole episodes, each in an environment and with a copy of the behaviour of its own, so the scores
    do not depend on the number of workers. What the behaviour draws depends on the seed of the episode alone.

    Args:
        behaviour: chooses the actions.
        make_env: makes one environment; this and the behaviour must be picklable if there are worker processes.
        seeds: as for `evaluate`.
        workers: processes that play; 0 plays in this process, None takes one for each core.
        progress: show a progress bar; None shows it on a terminal only.

    Raises:
        ConfigError: no behaviour, no seeds, seeds that `require_evaluation_seeds` refuses, or what cannot be sent to
            worker processes.
        OfflineRLError: an environment or behaviour failed in its worker.
    """
    require_playable("evaluate_behaviour", make_env, seeds, workers=workers)
    if not callable(behaviour):
        raise ConfigError(
            f"{behaviour!r}",
            where="evaluate_behaviour.behaviour",
            expected="a Behaviour, which chooses an action for an observation",
            hint="construct one: TrackDriver(), say",
        )
    workers = min(num_cores() if workers is None else workers, len(seeds))
    ends: dict[int, EpisodeEnd] = {}
    played = play_episodes(make_env, behaviour, [int(seed) for seed in seeds], workers)
    with closing(played), _progress_bar(len(seeds), progress) as bar:
        for index, end in played:
            ends[index] = end
            _show_progress(bar, ends)
    return _evaluation(seeds, ends)


def sweep_thresholds(
    policy: ThresholdPolicy,
    thresholds: Sequence[float],
    make_env: EnvFactory,
    seeds: Sequence[int] = TUNING_SEEDS[:20],
    *,
    num_envs: int = 20,
    workers: int | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Plays the same episodes with each threshold; nothing is trained again.

    A sweep chooses a setting, so it keeps off `SCORE_SEEDS`: score the threshold that you choose there, once.

    Args:
        policy: a TorchPolicy or OnnxPolicy. Its own threshold is the baseline where it is among those that are
            played, else the first of them is.
        thresholds: numbers in [0, 1), a list or an array.
        make_env: as for `evaluate`.
        seeds: as for `evaluate`, but for `SCORE_SEEDS`.
        num_envs: as for `evaluate`.
        workers: as for `evaluate`.
        progress: as for `evaluate`.

    Raises:
        ConfigError: no thresholds, one that the policy cannot act with, seeds kept for scores, or what `evaluate`
            refuses.
    """
    thresholds = plain_thresholds(thresholds, "sweep_thresholds")
    require_playable("sweep_thresholds", make_env, seeds, num_envs=num_envs, workers=workers, choosing=True)
    require_policy(policy, "sweep_thresholds")
    policies = {threshold: policy.with_threshold(threshold) for threshold in thresholds}
    play = partial(evaluate, make_env=make_env, seeds=seeds, num_envs=num_envs, workers=workers, progress=progress)
    evaluations = {threshold: play(each) for threshold, each in policies.items()}
    return Sweep(evaluations, policy.threshold if policy.threshold in evaluations else thresholds[0])


def _require_actions_of(policy: object, num_actions: int | None) -> None:
    """Refuses a policy whose task has more actions. Its data may lack some, which is worth a warning."""
    ours = getattr(getattr(policy, "spec", None), "num_actions", None)
    if ours is None or num_actions is None:
        return
    if ours > num_actions:
        raise SpecMismatchError(
            f"the environment has {num_actions} actions",
            where="evaluate",
            expected=f"{ours}, as the policy's task has",
            hint="take the environment that the policy was trained for",
        )
    if ours < num_actions:
        warnings.warn(
            f"the environment has {num_actions} actions and the policy's task {ours}: the others are never taken",
            stacklevel=3,
        )


def _require_actions(actions: Any, num_envs: int) -> NDArray[np.int64]:
    """What a policy returned, if that is one action for each observation; 0.9 would else be rounded to 0."""
    found = np.asarray(actions)
    if found.shape != (num_envs,) or found.dtype.kind not in "iu":
        raise SpecMismatchError(
            f"{found.dtype} {list(found.shape)}", where="the policy's actions", expected=f"integers [{num_envs}]"
        )
    return found


def _evaluation(seeds: Sequence[int], ends: Mapping[int, EpisodeEnd]) -> Evaluation:
    """Of episodes by their index, which may have ended in any order."""
    ordered = [ends[index] for index in range(len(seeds))]
    has_laps = any(end.finished is not None for end in ordered)  # said only where an episode terminates
    return Evaluation(
        seeds=tuple(int(seed) for seed in seeds),
        scores=tuple(end.score for end in ordered),
        lengths=tuple(end.length for end in ordered),
        finished=tuple(bool(end.finished) for end in ordered) if has_laps else (),
        versions=installed_versions(),
    )


def _progress_bar(num_episodes: int, progress: bool | None) -> tqdm[Any]:
    hidden = None if progress is None else not progress  # None hides the bar where there is no terminal
    return tqdm(total=num_episodes, desc="evaluate", unit="episode", disable=hidden)


def _show_progress(bar: tqdm[Any], ends: Mapping[int, EpisodeEnd]) -> None:
    bar.update(len(ends) - bar.n)
    bar.set_postfix_str(f"mean {np.mean([end.score for end in ends.values()]):.1f}")
