"""Damaged datasets; the cases are those of `python -m benchmarks corruption`, which runs more of them."""

import sys
from pathlib import Path

import pytest

from offrl.shards import _npz as npz

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def corruption():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        sys.modules.pop("benchmarks", None)
        from benchmarks import corruption

        yield corruption


def test_what_is_damaged_is_refused_or_read_as_it_was(corruption):
    verdicts = [corruption.judge(seed) for seed in range(200)]
    assert [verdict for verdict in verdicts if not verdict.good] == []
    assert {verdict.damage for verdict in verdicts} == corruption.DAMAGES.keys()
    assert {verdict.outcome for verdict in verdicts} == {"refused", "equal", "needs a manifest"}
    assert {v.damage for v in verdicts if v.outcome == "needs a manifest"} <= corruption.SWAPS.keys()


def test_a_reader_that_looks_away_would_be_found_out(corruption, monkeypatch):
    monkeypatch.setattr(npz, "_require_whole", lambda archive, file: None)
    assert any(corruption.judge(seed).outcome == "other data, without a word" for seed in range(200))
