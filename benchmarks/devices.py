"""On what a benchmark's own runs are trained."""

from __future__ import annotations

import sys

from offrl.errors import ConfigError
from offrl.system.devices import resolve_device


def chosen_device(name: str) -> str:
    """The type of the device of that name, "cpu" or "cuda"; one that is not here ends the command with a line."""
    try:
        return resolve_device(name).type
    except ConfigError as error:
        sys.exit(str(error))


def of_device(device: str) -> str:
    """What tells the results of a GPU apart in names of files, and is empty for a CPU's."""
    return "" if device == "cpu" else f"-{device}"
