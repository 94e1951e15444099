"""Episodes as they look: recorded as an mp4 file, or in a window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from offrl.envs._display import choose_video_driver
from offrl.envs.episodes import EpisodeRunner
from offrl.errors import ConfigError, RunError, missing_dependency
from offrl.evaluation._player import Player
from offrl.policies.policy import ActionFunction
from offrl.system.files import replacing

_SMALLEST_SIDE = 480
"""Frames smaller than this are enlarged by a whole factor, so that a 96 x 96 frame can be watched."""


class Moment(NamedTuple):
    """What a panel beside the picture is drawn of."""

    observation: NDArray[Any]
    """[...], as the policy sees it."""
    action: int | None
    """What the policy does about it; None in the last picture, where nothing is left to do."""
    score: float
    """The rewards so far."""
    step: int
    """How many actions came before."""
    height: int
    """Of the picture, in pixels; a panel of another height is fine."""
    action_mask: NDArray[np.bool_] | None = None
    """[A], the legal actions, where the environment states them."""
    seed: int | None = None
    """Of the episode, where it is one of several in a film."""
    has_ended: bool = False
    """Whether the episode is over; without an action it may also have been cut."""


Panel = Callable[[Moment], NDArray[np.uint8]]
"""Draws RGB uint8 [H, W, 3], of the same size at every moment of a film."""


class Recording(NamedTuple):
    """What a recorded episode came to."""

    score: float
    length: int


class _Frame(NamedTuple):
    """A picture of the film, and what the episode came to before it."""

    picture: NDArray[np.uint8]
    before: Recording


def record_episode(
    policy: ActionFunction,
    make_env: Callable[[], gymnasium.Env[Any, Any]],
    seed: int,
    path: str | Path,
    *,
    fps: int = 50,
    max_steps: int | None = None,
    num_envs: int = 1,
    panel: Panel | None = None,
) -> Recording:
    """Plays the episode of `seed` and writes what it looked like.

    The frames are `info["rgb"]` where the environment gives it (CarRacing), else those of `env.render()`.

    Args:
        policy: raw observations [N, ...] -> actions [N]; given the legal actions too where its spec has action masks.
        make_env: makes the environment.
        seed: given to `reset`.
        path: the mp4 file (H.264, yuv420p); it appears whole or not at all.
        fps: frames a second; CarRacing runs in real time at 50.
        max_steps: stop there; None plays to the end.
        num_envs: the policy sees this many copies of the observation. Give the number that `evaluate` used, for the
            same score to the last digit: matrix products round differently in batches of another size.
        panel: drawn to the right of the picture, such as `offrl.report.ActionPanel`; None for the picture alone.

    Raises:
        MissingDependencyError: imageio-ffmpeg is not installed.
        ConfigError: the environment gives no frames, or a number is below 1.
    """
    return record_episodes(
        policy,
        make_env,
        [seed],
        path,
        fps=fps,
        max_steps=max_steps,
        num_envs=num_envs,
        panel_of=None if panel is None else lambda _: panel,
    )[0]


def record_episodes(
    policy: ActionFunction,
    make_env: Callable[[], gymnasium.Env[Any, Any]],
    seeds: Sequence[int],
    path: str | Path,
    *,
    fps: int = 50,
    max_steps: int | None = None,
    num_envs: int = 1,
    panel_of: Callable[[int], Panel] | None = None,
) -> list[Recording]:
    """Plays the episode of each seed and writes them as one film, one after the other; each ends with a still.

    In a notebook, `IPython.display.Video(path, embed=True)` shows it.

    Args:
        policy: See `record_episode`, as for what is not named here.
        make_env: Makes one environment for all episodes.
        seeds: Given to `reset`.
        path: The mp4 file.
        fps: Frames a second.
        max_steps: Where to stop each episode.
        num_envs: Copies of the observation that the policy sees.
        panel_of: Gives the panel of the episode of a seed; None for the picture alone.

    Returns:
        What each episode came to.

    Raises:
        MissingDependencyError: imageio-ffmpeg is not installed.
        ConfigError: No seeds, the environment gives no frames, or frames (or a panel) whose size changes, or a number
            is below 1.
        RunError: There is no room for the film.
    """
    if not seeds or min(fps, num_envs, 1 if max_steps is None else max_steps) < 1:
        raise ConfigError(
            f"{len(seeds)} seeds, fps={fps}, max_steps={max_steps}, num_envs={num_envs}",
            where="record_episodes",
            expected="1 or more of each",
        )
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ConfigError(f"a film named {path.name}", where="record_episodes", expected="a name that ends in .mp4")
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise missing_dependency("imageio-ffmpeg", "video", "record_episode") from error
    with closing(make_env()) as env, replacing(path) as partial:
        found: list[Recording] = []
        writer: Any = None
        size: tuple[int, ...] = ()
        try:
            for seed in seeds:
                panel = None if panel_of is None else panel_of(seed)
                for shown in _film(policy, env, seed, max_steps, num_envs, panel, is_one_of_many=len(seeds) > 1):
                    if writer is None:
                        size = shown.picture.shape[1::-1]
                        writer = imageio_ffmpeg.write_frames(
                            str(partial),
                            size,
                            fps=fps,
                            codec="libx264",
                            pix_fmt_in="rgb24",
                            pix_fmt_out="yuv420p",
                            macro_block_size=1,
                            ffmpeg_log_level="error",
                            output_params=["-f", "mp4"],
                        )
                        writer.send(None)
                    _require_size(shown, size, seed)
                    writer.send(shown.picture)
                found.append(shown.before)
                for _ in range(fps // 2 if len(seeds) > 1 else 0):
                    writer.send(shown.picture)
        finally:
            if writer is not None:
                writer.close()
        try:  # closing does not say how ffmpeg has ended
            imageio_ffmpeg.count_frames_and_secs(str(partial))
        except (OSError, RuntimeError) as error:
            raise RunError(
                "the film cannot be written whole", where=path, expected="room for it", hint="free some space"
            ) from error
    return found


def watch_episode(
    policy: ActionFunction,
    make_env: Callable[[], gymnasium.Env[Any, Any]],
    seed: int,
    *,
    fps: int = 50,
    num_envs: int = 1,
    panel: Panel | None = None,
) -> Recording:
    """Plays the episode of `seed` in a window, until it ends or the window is closed.

    Args:
        policy: As for `record_episode`, like all others.
        make_env: Makes the environment.
        seed: Given to `reset`.
        fps: Frames a second.
        num_envs: Copies of the observation that the policy sees.
        panel: Drawn to the right of the picture.

    Returns:
        What was seen of the episode.

    Raises:
        MissingDependencyError: pygame is not installed.
        ConfigError: The environment gives no frames.
    """
    try:
        import pygame
    except ImportError as error:
        raise missing_dependency("pygame", extra="carracing", purpose="watch_episode") from error
    found = Recording(0.0, 0)
    with closing(make_env()) as env:
        choose_video_driver("human")  # who makes an environment sets the other one
        pygame.display.init()
        try:
            clock, window = pygame.time.Clock(), None
            for shown in _film(policy, env, seed, None, num_envs, panel):
                if window is None:
                    window = pygame.display.set_mode(shown.picture.shape[1::-1])
                    pygame.display.set_caption(f"offrl, seed {seed}")
                found = shown.before
                window.blit(pygame.surfarray.make_surface(shown.picture.swapaxes(0, 1)), (0, 0))
                pygame.display.flip()
                clock.tick(fps)
                if any(event.type == pygame.QUIT for event in pygame.event.get()):
                    break
        finally:
            pygame.display.quit()
    return found


def _film(
    policy: ActionFunction,
    env: gymnasium.Env[Any, Any],
    seed: int,
    max_steps: int | None,
    num_envs: int,
    panel: Panel | None,
    *,
    is_one_of_many: bool = False,
) -> Iterator[_Frame]:
    """Every picture of the episode, the one of its end included."""
    runner = EpisodeRunner(env)
    runner.reset(seed)
    player = Player(policy, num_envs)
    for row in range(num_envs):
        player.begin(row, seed, runner)
    while True:
        picture = _frame(env, runner.info)
        goes_on = not runner.ended and runner.length != max_steps
        action = int(player.policy(*player.inputs())[0]) if goes_on else None
        if panel is not None:
            mask = runner.action_mask
            moment = Moment(
                runner.observation,
                action,
                runner.score,
                runner.length,
                len(picture),
                mask,
                seed if is_one_of_many else None,
                has_ended=runner.ended,
            )
            picture = _beside(picture, panel(moment))
        yield _Frame(_even(picture), Recording(runner.score, runner.length))
        if action is None:
            return
        runner.step(action)
        for row in range(num_envs):
            player.show(row, runner)


def _frame(env: gymnasium.Env[Any, Any], info: dict[str, Any]) -> NDArray[np.uint8]:
    """The picture to show: RGB uint8 [H, W, 3], enlarged if small."""
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
            hint='make it with render_mode="rgb_array"',
        )
    factor = max(1, _SMALLEST_SIDE // min(frame.shape[:2]))
    return frame.repeat(factor, axis=0).repeat(factor, axis=1)


def _require_size(shown: _Frame, size: tuple[int, ...], seed: int) -> None:
    """Checks that a picture has the film's size: ffmpeg takes the bytes as they come, and would mix up the rows."""
    width, height = shown.picture.shape[1::-1]
    if (width, height) != size:
        raise ConfigError(
            f"the picture of step {shown.before.length} of the episode of seed {seed} has {width} x {height} pixels",
            where="record_episodes",
            expected=f"{size[0]} x {size[1]}, as the film began",
            hint="make the environment (or the panel) draw pictures of one size, or record each episode on its own",
        )


def _beside(picture: NDArray[np.uint8], panel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The two side by side, white under the lower one."""
    height = max(len(picture), len(panel))
    parts = [np.pad(x, ((0, height - len(x)), (0, 0), (0, 0)), constant_values=255) for x in (picture, panel)]
    return np.concatenate(parts, axis=1)


def _even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With even sides, which yuv420p needs."""
    height, width = picture.shape[:2]
    return np.ascontiguousarray(np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
