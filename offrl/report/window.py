"""An episode in a window, as it is played. Needs pygame."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

import gymnasium

from offrl.errors import missing_dependency
from offrl.policies.policy import ActionFunction
from offrl.report.video import Panel, Recording, film


def has_display() -> bool:
    """Whether windows can be opened here."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


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
    # Set for pictures without a window by who made an environment before; a window needs the system's own.
    if os.environ.get("SDL_VIDEODRIVER") == "dummy" and has_display():
        del os.environ["SDL_VIDEODRIVER"]
    try:
        import pygame
    except ImportError as error:
        raise missing_dependency("pygame", extra="carracing", purpose="watch_episode") from error
    found = Recording(0.0, 0)
    with closing(make_env()) as env:
        pygame.display.init()
        try:
            clock, window = pygame.time.Clock(), None
            for shown in film(policy, env, seed, None, num_envs, panel):
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
