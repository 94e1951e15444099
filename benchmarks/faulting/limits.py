"""What hostile files cost before they are refused: at most two seconds and 500 MB, in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from pathlib import Path

from benchmarks.faulting.operations import empty_directory
from benchmarks.faulting.processes import Ended, Running
from benchmarks.faulting.trees import compare, read_tree
from benchmarks.faulting.tries import Bench, Outcome

SECONDS, BYTES = 2.0, 500 * 10**6
_CASES = "tests.hostile.cases"
_HELPERS = Path(__file__).parents[2] / "tests" / "helpers"
_READERS = ("h5py", "minari", "onnx.reference", "onnxruntime", "pyarrow.parquet")
"""Imported first, where they are installed, so that a try takes the time of reading alone."""

Case = Callable[[Path], AbstractContextManager[list[str]]]
"""Makes files in an empty directory, and gives the arguments of `offrl` that read them there."""


def hostile_cases() -> Mapping[str, Case]:
    """`CASES` of tests/hostile/cases.py, by name; empty where this checkout has none."""
    sys.path.insert(0, str(_HELPERS))  # as pytest has it
    try:
        found: Mapping[str, Case] = import_module(_CASES).CASES
    except (ImportError, AttributeError):
        return {}
    finally:
        sys.path.remove(str(_HELPERS))
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
    """Reads each of the files; nothing but what the command was told to write may change, in any directory of ours."""
    cases = hostile_cases()
    for name in _READERS:
        with suppress(ImportError):
            import_module(name)
    shared = Running(["version"], bench.work, bench.log).wait().peak
    for name, case in cases.items():
        found = _try(bench, case, shared)
        if found[0] == "stuck":  # other processes may have had the processor: what is slow is so twice
            found = _try(bench, case, shared)
        yield Outcome("read", "hostile", name, *found)


def _try(bench: Bench, case: Case, shared: int) -> tuple[str, str]:
    root, inside = bench.work.parent, f"{bench.work.name}/{import_module(_CASES).INSIDE}"
    ignored = (inside, f"{inside}/*", bench.log.name)
    try:
        with case(bench.work) as arguments:
            before = read_tree(root, ignored)
            ended = Running(arguments, bench.work, bench.log).wait()
        if change := compare(read_tree(root, ignored), before):
            return "wrong", f"{change.to_text()}, outside"
        return judge_limits(ended, shared)
    finally:
        empty_directory(bench.work)
