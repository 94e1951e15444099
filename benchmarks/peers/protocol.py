"""How a way of training is told to run a slice: lines on stdin, JSON lines on stdout. Imports nothing of offrl."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


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


def serve(channel: Channel, about: dict[str, Any], run: Callable[[int], dict[str, Any] | None]) -> None:
    """Says `about`, then runs a slice of N updates for each `run N` and answers with its seconds and what it returned.

    `run` has to wait for the device before it returns.
    """
    channel.say(about)
    while True:
        updates = channel.next_slice()
        start = time.perf_counter()
        found = run(updates)
        channel.say({"seconds": time.perf_counter() - start, **(found or {})})
