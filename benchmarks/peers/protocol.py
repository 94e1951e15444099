"""How a way of training is told to run a slice: lines on stdin, JSON lines on stdout. Imports nothing of offrl."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def common_options() -> argparse.ArgumentParser:
    """The command line that every peer's script has."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--num-actions", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    return parser


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    """Of the peers whose policies drive, see `benchmarks.time_to_score`."""
    parser.add_argument("--policy", type=Path, help="after each slice the greedy policy goes there as TorchScript")
    parser.add_argument("--like-ours", action="store_true", help="with what LIKE_OURS says")


LIKE_OURS = {"learning_rate": 5e-4, "polyak": 0.01, "reward_scale": 0.1}
"""What the peers take over of examples/carracing_bcq.py: no schedule, averaged weights or n-step returns."""


class Channel:
    """The process's stdin and stdout; whatever else it prints goes to stderr from now on."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, answer: dict[str, Any]) -> None:
        """Writes one line of JSON."""
        print(json.dumps(answer), file=self._answers, flush=True)

    def next_slice(self) -> int:
        """Waits for `run N` and returns N; ends the process where nothing more will come."""
        words = sys.stdin.readline().split()
        if not words:
            sys.exit(0)
        return int(words[1])


class Watch:
    """Seconds since it was made, on the wall and of this process's processors."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Both, as an answer holds them."""
        return {"seconds": time.perf_counter() - self._wall, "cpu_seconds": time.process_time() - self._cpu}


def serve(
    channel: Channel,
    about: dict[str, Any],
    run: Callable[[int], dict[str, Any] | None],
    afterwards: Callable[[], None] = lambda: None,
) -> None:
    """Says `about`, then runs a slice of N updates for each `run N` and answers with its seconds and what it returned.

    `run` has to wait for the device before it returns. `afterwards` is called after each slice, off the clock.
    """
    channel.say(about)
    while True:
        updates = channel.next_slice()
        watch = Watch()
        found = run(updates)
        taken = watch.read()
        afterwards()
        channel.say({**taken, **(found or {})})
