"""What a health check finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Something that looks wrong with a dataset; as text it is one line, of what and hint.

    Attributes:
        what: was seen.
        means: what comes of it.
        hint: what to do about it.
    """

    what: str
    means: str
    hint: str

    def __str__(self) -> str:
        """The line for people."""
        return f"{self.what}; {self.hint}"
