"""What hostile files cost before they are refused: at most two seconds and 500 MB, in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.faulting.operations import empty_directory
from benchmarks.faulting.processes import Ended, Running
from benchmarks.faulting.tries import Bench, Outcome

SECONDS, BYTES = 2.0, 500 * 10**6
_CASES = "tests.hostile.cases"

Case = Callable[[Path], Sequence[str]]
"""Makes a file in an empty directory; returns the arguments of `offrl` that read it there."""


def hostile_cases() -> Mapping[str, Case]:
    """`CASES` of tests/hostile/cases.py, by name; empty where this checkout has none."""
    try:
        found: Mapping[str, Case] = import_module(_CASES).CASES
    except (ImportError, AttributeError):
        return {}
    return found


def judge_limits(ended: Ended, shared: int) -> tuple[str, str]:
    """A key of `OUTCOMES`, and why.

    Args:
        ended: How the command ended that read a hostile file.
        shared: Bytes that a command which reads nothing has at most.
    """
    grown = ended.peak - shared
    cost = f"{ended.seconds:.1f} s, {grown / 10**6:,.0f} MB"
    if ended.code is None or ended.seconds > SECONDS or grown > BYTES:
        return "stuck", f"{cost}, of {SECONDS:g} s and {BYTES / 10**6:g} MB at most"
    if ended.code == 0:
        return "wrong", "was read"
    return ("refused", "") if ended.is_refusal else ("traceback", f"exit {ended.code}: {ended.output[-400:]}")


def hostile_tries(bench: Bench) -> Iterator[Outcome]:
    """Reads each of the files."""
    shared = Running(["version"], bench.work, bench.log).wait().peak
    for name, make in hostile_cases().items():
        arguments = make(bench.work)
        ended = Running(arguments, bench.work, bench.log).wait()
        empty_directory(bench.work)
        yield Outcome("read", "hostile", name, *judge_limits(ended, shared))
