"""Records an episode as an mp4 file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from offrl.errors import ConfigError, missing_dependency
from offrl.files import replacing

_SMALLEST_SIDE = 384
"""Frames smaller than this are enlarged by a whole factor, so that a 96 x 96 frame can be watched."""


class Recording(NamedTuple):
    """What a recorded episode came to."""

    score: float
    length: int


def record_episode(
    policy: Callable[[NDArray[Any]], NDArray[np.int64]],
    make_env: Callable[[], gymnasium.Env[Any, Any]],
    seed: int,
    path: Path,
    *,
    fps: int = 50,
    max_steps: int | None = None,
    num_envs: int = 1,
) -> Recording:
    """Plays the episode of `seed` and writes what it looked like.

    The frames are `info["rgb"]` where the environment gives it (CarRacing), else those of `env.render()`.

    Args:
        policy: raw observations [N, ...] -> actions [N].
        make_env: makes the environment.
        seed: given to `reset`.
        path: the mp4 file (H.264, yuv420p); it appears whole or not at all.
        fps: frames a second; CarRacing runs in real time at 50.
        max_steps: stop there; None plays to the end.
        num_envs: the policy sees this many copies of the observation. Give the number that `evaluate` used, for the
            same score to the last digit: matrix products round differently in batches of another size.

    Raises:
        MissingDependencyError: imageio-ffmpeg is not installed.
        ConfigError: the environment gives no frames, or a number is below 1.
    """
    if min(fps, num_envs, 1 if max_steps is None else max_steps) < 1:
        raise ConfigError(
            f"fps={fps}, max_steps={max_steps}, num_envs={num_envs}", where="record_episode", expected="1 or more"
        )
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]
    except ImportError as error:
        raise missing_dependency("imageio-ffmpeg", "video", "record_episode") from error
    with closing(make_env()) as env, replacing(path) as partial:
        observation, info = env.reset(seed=seed)
        frame = _frame(env, info)
        writer = imageio_ffmpeg.write_frames(
            str(partial),
            frame.shape[1::-1],
            fps=fps,
            codec="libx264",
            pix_fmt_in="rgb24",
            pix_fmt_out="yuv420p",
            macro_block_size=1,
            ffmpeg_log_level="error",
            output_params=["-f", "mp4"],
        )
        with closing(writer):
            writer.send(None)
            writer.send(frame)
            score, length, ended = 0.0, 0, False
            while not ended and length != max_steps:
                action = policy(np.repeat(observation[None], num_envs, axis=0))[0]
                observation, reward, terminated, truncated, info = env.step(action)
                writer.send(_frame(env, info))
                score, length, ended = score + float(reward), length + 1, bool(terminated or truncated)
    return Recording(score, length)


def _frame(env: gymnasium.Env[Any, Any], info: dict[str, Any]) -> NDArray[np.uint8]:
    """The picture to show: RGB uint8 [H, W, 3], enlarged if small, with even sides (yuv420p needs them)."""
    frame = info.get("rgb")
    if frame is None:
        try:
            frame = env.render() if env.render_mode == "rgb_array" else None
        except DependencyNotInstalled as error:
            raise missing_dependency("pygame", "carracing", "record_episode") from error
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ConfigError(
            "the environment gives no pictures",
            where="record_episode",
            expected='info["rgb"] or render_mode="rgb_array" (RGB, uint8 [H, W, 3])',
            mend='make it with render_mode="rgb_array"',
        )
    factor = max(1, _SMALLEST_SIDE // min(frame.shape[:2]))
    large = frame.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = large.shape[:2]
    return np.ascontiguousarray(np.pad(large, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
