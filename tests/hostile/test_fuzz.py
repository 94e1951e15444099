"""Mutated files for every reader; `python -m benchmarks fuzz` runs more of the same cases."""

import importlib
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def fuzzing(tmp_path_factory):
    """The benchmarks, which are no part of the installed package, and valid files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
        sys.modules.pop("benchmarks", None)
        fuzz = importlib.import_module("benchmarks.fuzz")
        readers = importlib.import_module("benchmarks.fuzzing.readers")
        yield fuzz.judge, readers.make_readers(tmp_path_factory.mktemp("fuzz"))


def test_only_errors_of_our_own_come_out_of_mutated_files(fuzzing):
    judge, readers = fuzzing
    names = list(readers)
    turns = [(names[case % len(names)], case) for case in range(2000)]
    outcomes = {(name, case): judge(readers[name], 0, case) for name, case in turns}
    assert {case: outcome for case, outcome in outcomes.items() if outcome not in ("read", "refused")} == {}
    assert set(outcomes.values()) == {"read", "refused"}
