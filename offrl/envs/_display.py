"""SDL's video driver: pictures need none, a window needs the system's own."""

from __future__ import annotations

import os
import sys

_DRIVER = "SDL_VIDEODRIVER"
_chosen_here: set[str] = set()
"""What offrl set; what the user set is left alone."""


def has_display() -> bool:
    """Whether windows can be opened here."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def choose_video_driver(render_mode: object) -> None:
    """Lets SDL draw without a display, which it otherwise complains about, and open windows where they are asked for.

    The setting is of the whole process: an environment that was made for pictures before must not keep the next one
    from opening its window.
    """
    if render_mode != "human":
        if _DRIVER not in os.environ:
            os.environ[_DRIVER] = "dummy"
            _chosen_here.add("dummy")
    elif os.environ.get(_DRIVER) in _chosen_here and has_display():
        del os.environ[_DRIVER]
