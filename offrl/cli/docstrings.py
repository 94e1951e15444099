"""What docstrings say about each field."""

from __future__ import annotations

import inspect
import re

_ENTRY = re.compile(r" {4}(\w+)(?: \(.*?\))?: (.*)")


def read_section(docstring: str | None, section: str) -> dict[str, str]:
    """The entries of a Google-style section, such as "Attributes" or "Args", in its order.

    Returns:
        Name -> what is said about it, line breaks as blanks; empty where there is no such section.
    """
    _, _, text = f"\n{inspect.cleandoc(docstring or '')}\n".partition(f"\n{section}:\n")
    entries: dict[str, str] = {}
    for line in text.splitlines():
        if line and not line.startswith(" "):  # the next section
            break
        if found := _ENTRY.match(line):
            name, entries[name] = found[1], found[2]
        elif entries and line.strip():
            entries[name] += f" {line.strip()}"
    return entries
