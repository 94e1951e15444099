"""The parts of `benchmarks damages` that could be wrong: every damage changes something, and the judgement."""

import json

import numpy as np
import pytest

MACHINE = {"processor": "<Abacus>", "cores": 1, "python": "3.11", "gpu": None, "versions": {"torch": "2.13.0"}}
CONTENT = b'{"a": 123, "b": [4.5, 6]}\n' * 20


@pytest.mark.parametrize("seed", range(5))
def test_each_way_is_what_it_says(seed):
    from benchmarks.damaging.ways import DIGITS, WAYS

    found = {name: way(np.random.default_rng(seed), CONTENT) for name, way in WAYS.items()}
    assert (
        len(found["bits flipped"]) == len(found["bytes overwritten"]) == len(found["a block of zeros"]) == len(CONTENT)
    )
    assert CONTENT.startswith(found["cut short"])
    assert found["bytes appended"].startswith(CONTENT)
    assert found[DIGITS] != CONTENT
    assert json.loads(found[DIGITS].splitlines()[0]).keys() == {"a", "b"}
    assert all(content != CONTENT for content in found.values())


def used(code=0, result="same", errors=(), warnings=(), fault=""):
    from benchmarks.damaging.commands import Used

    return Used(code, result, errors, warnings, fault)


def verified(outcome):
    return json.dumps([{"files": [{"path": "f", "outcome": outcome, "about": "x"}]}])


FEW = {"warnings": ("warning: few",)}


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        ({}, {}, "harmless"),
        ({}, {"code": 2, "result": "", "errors": ("error: run: damaged",)}, "noticed"),
        ({}, {"warnings": ("warning: goes on from update 2",)}, "noticed"),
        ({}, {"result": "other", "warnings": ("warning: without the dataset",)}, "noticed"),
        (
            {"warnings": ("warning: few",)},
            {"result": "other", "warnings": ("warning: few",)},
            "another result without a word",
        ),
        ({}, {"result": "other"}, "another result without a word"),
        ({}, {"code": 2, "result": "[null]"}, "failed without a word"),
        ({"result": verified("whole")}, {"code": 2, "result": verified("damaged")}, "noticed"),
        ({}, {"code": 1, "fault": "ValueError: oh"}, "crashed"),
        ({}, {"code": 1}, "crashed"),
    ],
)
def test_the_judgement(before, after, outcome):
    from benchmarks.damaging.commands import judge

    assert judge([used(**before)], [used(**after)])[0] == outcome


def test_one_command_that_says_nothing_is_enough_to_fail():
    from benchmarks.damaging.commands import judge

    refused = used(code=2, errors=("error: damaged",))
    assert judge([used(), used()], [refused, used(result="other")])[0] == "another result without a word"
    assert judge([used(), used()], [used(), refused]) == ("noticed", "error: damaged")


def test_the_results_are_drawn(hooks, tmp_path):
    kept = {"command": "c", "count": 3, "rows": {"store.json": {"noticed": 2, "failed": 1}}, "machine": MACHINE}
    ways = {"cut short": {"harmless": 1}}
    (tmp_path / "damages.json").write_text(json.dumps({**kept, "ways": ways, "failures": ["one"]}))
    drawn = hooks.damages()
    assert "| store.json | 2 | 0 | 1 |" in drawn
    assert "| cut short | 0 | 1 | 0 |" in drawn
    assert "3 damages, 1 of them neither noticed nor harmless." in drawn
