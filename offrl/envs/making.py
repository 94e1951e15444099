"""Environments: `make` by name, and what a task looks like."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces

from offrl.envs import car_racing
from offrl.envs._arguments import why_not_made
from offrl.envs._display import choose_video_driver
from offrl.envs.frame_stack import FrameStack
from offrl.envs.wrappers import DescribedTask, GrayStack, NoProgressStop, is_frame_space
from offrl.errors import OfflineRLError, UnknownEnvironmentError
from offrl.spec import TaskSpec, default_action_names

Env: TypeAlias = gymnasium.Env[Any, Any]
EnvFactory: TypeAlias = Callable[[], Env]
"""Makes an environment; picklable, such as `functools.partial(make, "CarRacing-v3", hud="hidden")`."""


_MODULES = {"ALE": "ale_py", "MinAtar": "minatar.gym"}
"""Whose environments Gymnasium knows only when the module is imported, or its `register_envs` called, by namespace."""


def make(env_id: str, **options: Any) -> Env:
    """An environment as offrl plays it, by its Gymnasium id.

    "CarRacing-v3" is `offrl.envs.car_racing.make`. Any other needs discrete actions and observations that are
    vectors (they come flat, float32), uint8 frames (they come gray, as stacks of 4) or planes of booleans
    [H, W, C] such as MinAtar's (they come as 0 and 1, uint8 [C, H, W]).

    Args:
        env_id: as registered in Gymnasium.
        options: for CarRacing those of `car_racing.make`; else those of `gymnasium.make`, and `no_progress_steps`.

    Raises:
        UnknownEnvironmentError: no such environment, or one that cannot be adapted.
        MissingDependencyError: Box2D or pygame is not installed.
    """
    if env_id == car_racing.ENV_ID:
        return car_racing.make(**options)
    return _adapt(*_gymnasium_make(env_id, options))


def task_spec(env: Env) -> TaskSpec:
    """What the task of `env` looks like: its attribute `task_spec` (of any wrapper), else told by its spaces.

    Raises:
        UnknownEnvironmentError: actions that are not discrete, or observations that are neither float32 vectors nor
            uint8 stacks [C, H, W].
    """
    if env.has_wrapper_attr("task_spec"):
        described = env.get_wrapper_attr("task_spec")
        if isinstance(described, TaskSpec):
            return described
    name = _name(env)
    actions, observations = env.action_space, env.observation_space
    if not isinstance(actions, spaces.Discrete) or actions.n < 2 or actions.start != 0:
        raise UnknownEnvironmentError(f"actions {actions}", where=name, expected="Discrete actions, 2 or more, from 0")
    names = default_action_names(int(actions.n))
    if isinstance(observations, spaces.Box):
        if len(observations.shape) == 1 and observations.dtype == np.float32:
            return TaskSpec.vector(observations.shape[0], names)
        if len(observations.shape) == 3 and observations.dtype == np.uint8:
            channels, height, width = observations.shape
            return TaskSpec.pixels((channels, height, width), names)
    raise UnknownEnvironmentError(
        f"observations {observations}",
        where=name,
        expected="float32 vectors [D] or uint8 stacks of frames [C, H, W]",
        hint="wrap the environment, for frames in offrl.envs.wrappers.GrayStack",
    )


def _gymnasium_make(env_id: str, options: dict[str, Any]) -> tuple[Env, int | None]:
    options = dict(options)
    choose_video_driver(options.get("render_mode"))
    no_progress_steps = options.pop("no_progress_steps", None)
    _register(env_id)
    try:
        return gymnasium.make(env_id, disable_env_checker=True, **options), no_progress_steps
    except OfflineRLError:
        raise
    except Exception as error:  # whatever the environment makes of its options
        raise UnknownEnvironmentError(f"cannot be made ({why_not_made(error)})", where=env_id) from error


def _register(env_id: str) -> None:
    """Has Gymnasium know an environment, where that is to be had.

    Raises:
        UnknownEnvironmentError: It is not.
    """
    if env_id in gymnasium.registry or ":" in env_id:
        return
    namespace, slash, _ = env_id.partition("/")
    if slash and namespace in _MODULES:
        package = _MODULES[namespace].partition(".")[0]
        if find_spec(package) is None:
            raise UnknownEnvironmentError(
                f"{env_id} is in the package {package}, which is not installed",
                hint=f"install it with python -m pip install {package.replace('_', '-')}",
            )
        try:
            module = import_module(_MODULES[namespace])
        except ImportError as error:
            raise UnknownEnvironmentError(
                f"the package {package} cannot be imported ({error})", where=env_id
            ) from error
        is_known = any(known.startswith(f"{namespace}/") for known in gymnasium.registry)
        if not is_known and hasattr(module, "register_envs"):
            module.register_envs()
    if env_id not in gymnasium.registry:
        near = difflib.get_close_matches(env_id, list(gymnasium.registry), n=3, cutoff=0.5)
        raise UnknownEnvironmentError(
            f"no environment {env_id!r} in Gymnasium {gymnasium.__version__}",
            hint=f"did you mean {' or '.join(near)}?" if near else "gymnasium.pprint_registry() lists them",
        )


def _adapt(env: Env, no_progress_steps: int | None) -> Env:
    try:
        space = env.observation_space
        if no_progress_steps is not None:
            env = NoProgressStop(env, no_progress_steps)
        if is_frame_space(space):
            env = GrayStack(env)
        elif _is_planes(space):
            env = FrameStack(env)
        elif space.is_np_flattenable and not _is_stack(space):
            env = _Float32(env)
        return DescribedTask(env, task_spec(env))
    except OfflineRLError:
        env.close()
        raise


def _is_stack(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def _is_planes(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.bool_ and len(space.shape) == 3


class _Float32(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Observations as flat float32 vectors."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        flat = spaces.flatten_space(env.observation_space)
        assert isinstance(flat, spaces.Box)  # what is_np_flattenable promises
        low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
        self.observation_space = spaces.Box(low, high, dtype=np.float32)

    def observation(self, observation: Any) -> Any:
        """The flat vector, float32 [D]."""
        return np.asarray(spaces.flatten(self.env.observation_space, observation), dtype=np.float32)


def _name(env: Env) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__
