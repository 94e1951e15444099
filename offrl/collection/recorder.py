"""What you play yourself, written as a dataset while you play."""

from __future__ import annotations

import math
import operator
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from offrl import envs
from offrl.collection._episode_log import EpisodeLog
from offrl.collection._play import plan_dataset
from offrl.envs._arguments import require_count
from offrl.envs.episodes import action_mask_of
from offrl.envs.wrappers import is_frame_space, to_gray
from offrl.errors import ConfigError, DatasetError, OfflineRLError
from offrl.shards._recording import LOCK_NAME, Recording
from offrl.shards.episode import Episode
from offrl.spec import TaskSpec
from offrl.system.locks import locked

_FRAME_STACK = 4  # as `offrl.envs.make` stacks frames


class Recorder(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Writes what is played in an environment into a frames dataset; loop, policy and exploration are yours.

    What the environment gives is passed on as it is. Observations may be float32 vectors, uint8 stacks of frames
    [C, H, W], oldest first, or uint8 frames, RGB [H, W, 3] or gray [H, W, 1] or [H, W], which the dataset has as
    `offrl.envs.make` would give them: gray, four to a stack. Each frame is kept once. Legal actions that the
    environment states in `info["action_mask"]` are kept, too, and an illegal one is refused before it is played.

    A directory that a Recorder wrote before is added to. Steps are in memory until a shard is full; a shard is whole
    or not there. `close()`, or the end of a `with` block, writes the rest and marks the manifest as complete; where
    the block ends with an exception (ctrl-C, say), all is written too, but the manifest says `"complete": false`.

    An episode that `reset()` or `close()` ends in the middle is kept as truncated. So is what came before a step
    that raised; the next one needs `reset()`.

    Args:
        env: discrete actions; as `offrl.envs.make` gives it, or any other with such observations.
        directory: where the shards and `manifest.json` go.
        transitions_per_shard: at most so many steps in one file; an episode that is longer is cut into segments.
        environment: what the manifest says about the environment, JSON-ready; default: its id and settings.

    Raises:
        ConfigError: `transitions_per_shard` below 1, or no whole number.
        DatasetError: `directory` cannot be written, or holds another dataset or a damaged one.
        InUseError: `directory` is being recorded or collected into.
        UnknownEnvironmentError: an environment whose actions or observations are not those above.
    """

    def __init__(
        self,
        env: envs.Env,
        directory: Path | str,
        *,
        transitions_per_shard: int = 4000,
        environment: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(env)
        transitions_per_shard = require_count(transitions_per_shard, "Recorder.transitions_per_shard")
        spec = _recorded_spec(env)
        plan = plan_dataset(env, environment, {"name": "offrl.collect.Recorder"}, spec=spec)
        self._recorded = spec
        space = env.observation_space
        self._stacks_frames = is_frame_space(space) and space.shape != spec.observation_shape
        self._frames = np.zeros(spec.observation_shape, np.uint8)
        self._limit = transitions_per_shard
        self._probability = math.nan
        self._log: EpisodeLog | None = None
        self._pending: list[Episode] = []
        claim = _claim(Path(directory))
        self._release = weakref.finalize(self, claim.close)  # also where nobody calls close()
        try:
            self._recording = Recording.extend(Path(directory), plan)
        except BaseException:
            self._release()
            raise

    @property
    def behaviour_probability(self) -> float:
        """How likely your policy was to choose the action of the next step: set it before the step, NaN where unknown.

        It counts for one step and is NaN again after it. Set it on the Recorder itself: an attribute set on a wrapper
        around it stays there.
        """
        return self._probability

    @behaviour_probability.setter
    def behaviour_probability(self, probability: float) -> None:
        if not (math.isnan(probability) or 0 < probability <= 1):
            raise ConfigError(
                f"{probability}",
                where="Recorder.behaviour_probability",
                expected="0 < probability <= 1, for an action that is played, or NaN",
            )
        self._probability = float(probability)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; one that has not ended is kept as truncated.

        Raises:
            ConfigError: the Recorder is closed.
            DatasetError: an observation that is not what the environment's space says.
        """
        if not self._release.alive:
            raise ConfigError("is closed", where="Recorder", hint="make a new one; it adds to the same directory")
        self._end()
        self._write()
        observation, info = self.env.reset(seed=seed, options=options)
        self._log = EpisodeLog(self._view(observation, is_first=True), self._recorded, action_mask_of(info))
        self._probability = math.nan
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step, which is recorded.

        Raises:
            ConfigError: no episode to step in, or an action that is none.
            DatasetError: an illegal action, or a reward or observation that cannot be kept.
        """
        log = self._log
        if log is None:
            raise ConfigError(
                "no episode to step in",
                where="Recorder.step",
                expected="reset() first",
                hint="a wrapper that resets by itself goes around the Recorder",
            )
        try:
            index = self._action_index(action)
            log.require_legal(index)
        except OfflineRLError:  # not played: the next action has a probability of its own
            self._probability = math.nan
            raise
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
            following = self._view(observation, is_first=False)
            log.append(index, self._probability, float(reward), following, action_mask_of(info))
        except BaseException:  # what the environment did in this step is not known
            self._end()
            raise
        finally:
            self._probability = math.nan
        if terminated or truncated:
            self._end(terminated=bool(terminated), truncated=bool(truncated))
        elif len(log) == self._limit:
            self._pending.append(log.cut())
        self._write()
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Writes what is left, marks the dataset as complete, and closes the environment."""
        self._finish(is_complete=True)

    def __exit__(self, *args: Any) -> Literal[False]:
        self._finish(is_complete=args[0] is None)
        return False

    def _finish(self, *, is_complete: bool) -> None:
        if not self._release.alive:
            return
        self._end()
        self._write(everything=True)
        if is_complete and len(self._recording):
            self._recording.complete()
        else:
            self._recording.fold()
        self._release()
        self.env.close()

    def _end(self, *, terminated: bool = False, truncated: bool = True) -> None:
        log, self._log = self._log, None
        if log is not None and len(log):
            self._pending.append(log.episode(terminated=terminated, truncated=truncated))

    def _write(self, *, everything: bool = False) -> None:
        """Writes the shards that are full; with `everything`, what is left too."""
        while self._pending:
            ends = np.cumsum([len(episode) for episode in self._pending])
            if ends[-1] < self._limit and not everything:
                return
            fitting = int(np.searchsorted(ends, self._limit, side="right"))
            self._recording.write(self._pending[:fitting])
            del self._pending[:fitting]

    def _action_index(self, action: Any) -> int:
        try:
            index = operator.index(action)
        except TypeError:
            index = -1
        if not 0 <= index < self._recorded.num_actions:
            raise ConfigError(
                f"action {action!r}",
                where="Recorder.step",
                expected=f"an integer in 0..{self._recorded.num_actions - 1}",
            )
        return index

    def _view(self, observation: Any, *, is_first: bool) -> NDArray[Any]:
        """The observation as the dataset has it."""
        if not self._stacks_frames:
            return np.asarray(observation)
        frame = np.asarray(observation)
        if frame.shape != self.env.observation_space.shape or frame.dtype != np.uint8:
            raise DatasetError(
                f"an observation is {frame.dtype} {list(frame.shape)}",
                where="environment",
                expected=f"uint8 {list(self.env.observation_space.shape or ())}",
            )
        gray = to_gray(frame) if frame.ndim == 3 and frame.shape[2] == 3 else frame.reshape(frame.shape[:2])
        older = np.repeat(gray[None], len(self._frames) - 1, axis=0) if is_first else self._frames[1:]
        self._frames = np.concatenate([older, gray[None]])
        return self._frames


def _recorded_spec(env: envs.Env) -> TaskSpec:
    """What the dataset holds: the environment's own observations, or its frames, stacked."""
    space = env.observation_space
    if env.has_wrapper_attr("task_spec") or not is_frame_space(space):
        return envs.task_spec(env)
    height, width = (space.shape or ())[:2]
    stacked: envs.Env = gymnasium.Wrapper(env)  # only to be asked
    stacked.observation_space = spaces.Box(0, 255, (_FRAME_STACK, height, width), np.uint8)
    return envs.task_spec(stacked)


def _claim(directory: Path) -> ExitStack:
    """A lock on the directory, until it is closed: two Recorders would overwrite each other's shards.

    Raises:
        DatasetError: the directory cannot be written.
        InUseError: another process, or another Recorder, works on it.
    """
    claim = ExitStack()
    try:
        claim.enter_context(locked(directory / LOCK_NAME))  # said now, not after an hour of play
    except OSError as error:
        raise DatasetError(
            f"cannot be recorded into ({error.strerror})", where=directory, expected="a directory that can be written"
        ) from error
    return claim
