"""Which code has made a score that is kept: what was trained by an earlier one is trained anew."""

from __future__ import annotations

REVISIONS: dict[str, int] = {}
"""Algorithm -> a number, to be raised where a change of the code or of the algorithm's defaults changes what it scores.

Not a hash of the source: runs of many hours would go with every change of a comment.
"""


def revision_of(algorithm: str) -> dict[str, int]:
    """What tells the runs of an algorithm apart from those of its earlier revisions; empty where there are none."""
    return {"revision": REVISIONS[algorithm]} if algorithm in REVISIONS else {}
