"""Ways of doing the same, each in a process that is kept alive, timed in turns: they share the machine's moods."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from offrl.system.workers import num_cores

ROOT = Path(__file__).parent.parent


class WayError(Exception):
    """A way's process has ended; one line says with what."""


class Way:
    """A process that runs slices of updates, see `benchmarks.peers.protocol`. Between slices it is stopped.

    Args:
        command: starts it.
        log: where its stderr goes.
        threads: of its computing; None takes the machine's cores.
        environment: variables beside those that this process has.

    Attributes:
        about: what it said of itself: the number of parameters, versions.

    Raises:
        WayError: it ended before it was ready.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        threads: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        given = str(num_cores() if threads is None else threads)
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": given, "MKL_NUM_THREADS": given, **(environment or {})},
                cwd=ROOT,
                process_group=0,  # so that loader workers are stopped too; if we die, the system wakes and ends it
            )
        self.about = self._answer()
        self._stop()

    def run(self, updates: int) -> dict[str, Any]:
        """Runs a slice: its `seconds`, and what else the process answers.

        Raises:
            WayError: the process ended.
        """
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        with suppress(BrokenPipeError):  # its last words are in the log
            self._process.stdin.write(f"run {updates}\n")
            self._process.stdin.flush()
        answer = self._answer()
        self._stop()
        return answer

    def close(self) -> None:
        """Ends the process and its workers."""
        self._signal(signal.SIGKILL)
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        self.close()
        lines = self._log.read_text(encoding="utf-8").strip().splitlines() or ["it said nothing"]
        raise WayError(f"{lines[-1]} ({self._log})")

    def _stop(self) -> None:
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has ended; the next answer says so
            os.killpg(self._process.pid, number)


def alternate(ways: Mapping[str, Way], updates: int, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Every way's answers, one a round; a first round is for warming up and not counted.

    Raises:
        WayError: a process ended.
    """
    names = list(ways)
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:  # none is always the first
            answer = ways[name].run(updates)
            if number > 0:
                answers[name].append(answer)
                print(f"round {number}: {name:<34} {updates / answer['seconds']:8.2f} updates/s", flush=True)
    return answers
