"""Our CarRacing beside Gymnasium's own, byte for byte; needs Gymnasium with Box2D, and nothing else of offrl's.

python -m benchmarks.frames TRACKS STEPS
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import gymnasium
import numpy as np
from gymnasium.envs.box2d.car_racing import CarRacing

from offrl.envs import TrackDriver
from offrl.envs.car_racing import ACTION_TABLE
from offrl.envs.fast_car_racing import FastCarRacing
from offrl.system.versions import installed_versions

NextAction = Callable[[], Any]
DRAWN_WITH = ("box2d", "pygame-ce", "pygame", "numpy")
"""What the frames depend on beside Gymnasium."""


def driven(env: CarRacing, seed: int) -> NextAction:
    """The expert's actions."""
    driver = TrackDriver()
    driver.begin(env, np.random.default_rng(seed))
    return lambda: ACTION_TABLE[driver(np.empty(0))[0]]


def at_random(env: CarRacing, seed: int) -> NextAction:
    """Actions drawn from the environment's own space."""
    env.action_space.seed(seed)
    return env.action_space.sample


def differing_steps(seed: int, num_steps: int, make_actions: Callable[..., NextAction], **options: Any) -> list[int]:
    """Steps at which frame, reward, flags or info differ on the track of `seed`; 0 is the reset."""
    slow, fast = CarRacing(**options), FastCarRacing(**options)
    different = [] if np.array_equal(slow.reset(seed=seed)[0], fast.reset(seed=seed)[0]) else [0]
    next_action = make_actions(slow, seed)
    for step in range(1, num_steps + 1):
        action = next_action()
        (frame, *theirs), (fast_frame, *ours) = slow.step(action), fast.step(action)
        if not (np.array_equal(frame, fast_frame) and theirs == ours):
            different.append(step)
        if theirs[1]:
            break
    for env in (slow, fast):
        env.close()  # type: ignore[no-untyped-call]
    return different


def main(tracks: int, steps: int) -> None:
    """Compares and prints JSON; exits with 1 where anything differs."""
    ways: dict[str, tuple[Callable[..., NextAction], dict[str, Any]]] = {
        "driven": (driven, {}),
        "random": (at_random, {}),
        "random, Gymnasium's discrete actions": (at_random, {"continuous": False}),
        "driven, domain_randomize": (driven, {"domain_randomize": True}),
    }
    found: dict[str, dict[str, Any]] = {}
    for name, (make_actions, options) in ways.items():
        count = tracks if not options else max(1, tracks // 4)
        found[name] = {
            "tracks": count,
            "different": {
                seed: steps_found
                for seed in range(count)
                if (steps_found := differing_steps(seed, steps, make_actions, **options))
            },
        }
        print(f"{name}: {count} tracks, {len(found[name]['different'])} of them with a difference", file=sys.stderr)
    packages = installed_versions(DRAWN_WITH)
    print(json.dumps({"gymnasium": gymnasium.__version__, "packages": packages, "steps": steps, "ways": found}))
    sys.exit(any(way["different"] for way in found.values()))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
