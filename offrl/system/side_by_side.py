"""Processes that run side by side, some at a time; who asks this one to end asks them, too."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, NamedTuple

from offrl.system.signals import Interrupted

_PAUSE_SECONDS = 0.2


class Ended(NamedTuple):
    """A process that has ended.

    Attributes:
        name: Of its command.
        exit_code: 0 where all went well.
        output: What it wrote to its standard output.
    """

    name: str
    exit_code: int
    output: str


def side_by_side(
    commands: Mapping[str, Sequence[str]],
    *,
    at_once: int,
    environment: Mapping[str, str],
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[Ended]:
    """Runs all commands, and yields each as it ends; no more are started after one that fails.

    A signal to this process, ctrl-C among them, is passed on once to those that run, which are then waited for: they
    are given the time to save.

    Args:
        commands: By name.
        at_once: How many run at a time.
        environment: Theirs.
        meanwhile: Is called again and again while they run.

    Raises:
        KeyboardInterrupt: As it came, after all have ended.
    """
    waiting, running = iter(commands.items()), dict[str, subprocess.Popen[bytes]]()
    outputs = dict[str, IO[str]]()
    has_failed = False
    try:
        while True:
            while len(running) < at_once and not has_failed and (job := next(waiting, None)) is not None:
                # In a session of its own ctrl-C at the terminal reaches it once, through us, and not twice.
                # A file: a full pipe that nobody reads until the end would stop the process for good.
                outputs[job[0]] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
                running[job[0]] = subprocess.Popen(
                    job[1], env=environment, stdout=outputs[job[0]], start_new_session=True
                )
            if not running:
                return
            time.sleep(_PAUSE_SECONDS)
            meanwhile()
            for name in [name for name, process in running.items() if process.poll() is not None]:
                process = running.pop(name)
                has_failed = has_failed or process.returncode != 0
                with outputs.pop(name) as file:
                    file.seek(0)
                    output = file.read()
                yield Ended(name, process.returncode, output)
    except KeyboardInterrupt as error:
        _end(running, error.exit_code - 128 if isinstance(error, Interrupted) else signal.SIGINT)
        raise
    finally:
        _end(running, signal.SIGTERM)  # none where all went well
        for file in outputs.values():
            file.close()


def _end(running: dict[str, subprocess.Popen[bytes]], number: int) -> None:
    """Passes a signal on and waits; whoever asks a second time is heard by this process alone."""
    for process in running.values():
        with suppress(ProcessLookupError):
            process.send_signal(number)
    for process in running.values():
        process.wait()
    running.clear()
