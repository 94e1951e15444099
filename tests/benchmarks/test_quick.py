"""What CI compares, and when it complains."""

import json

import pytest
from click.testing import CliRunner


def ratio(median):
    return {"median": median, "low": median - 1, "high": median + 1}


@pytest.fixture
def quick(tmp_path, monkeypatch):
    from benchmarks import quick

    monkeypatch.setattr(quick, "RECORD", tmp_path / "quick.json")
    monkeypatch.setattr(quick, "noise_store", lambda directory, transitions: directory)
    return quick


def run(quick, monkeypatch, *medians, arguments=()):
    """The command, with a measurement that finds these one after the other."""
    found = iter(medians)
    monkeypatch.setattr(quick, "MEASUREMENTS", (lambda store: {"gather": ratio(next(found))},))
    return CliRunner().invoke(quick.quick, arguments)


def test_a_ratio_that_fell_is_measured_again_and_then_fails(quick, monkeypatch):
    assert run(quick, monkeypatch, 5.0, arguments=["--record"]).exit_code == 0
    assert run(quick, monkeypatch, 4.01).exit_code == 0
    assert run(quick, monkeypatch, 3.9, 4.1).exit_code == 0
    result = run(quick, monkeypatch, 3.8, 3.9)
    assert result.exit_code == 1
    line = "gather: 3.90 times the plain way, 22% less than the 5.00 on record (measured twice)"
    assert result.output.splitlines()[-1] == line


def test_without_a_record_it_says_how_to_make_one(quick, monkeypatch):
    result = run(quick, monkeypatch, 5.0)
    assert result.exit_code == 1
    assert result.output.strip() == "nothing is on record: python -m benchmarks quick --record"


def test_on_another_processor_the_ratios_are_only_shown(quick, monkeypatch):
    run(quick, monkeypatch, 5.0, arguments=["--record"])
    monkeypatch.setattr(quick, "describe_machine", lambda: {"processor": "another"})
    result = run(quick, monkeypatch, 1.0)
    assert result.exit_code == 0
    assert "nothing is on record for another" in result.output


def test_the_record_is_drawn(quick, monkeypatch, hooks):
    run(quick, monkeypatch, 5.0, arguments=["--record"])
    (ratios,) = json.loads(quick.RECORD.read_text())["processors"].values()
    assert ratios == {"gather": ratio(5.0)}
    assert "| gather | 5.00 | 4.00 to 6.00 |" in hooks.quick()


def test_gathering_and_environment_are_measured(store):
    pytest.importorskip("Box2D", reason="needs the extra carracing")
    from benchmarks import quick

    for found in (quick.gathering(store, batches=1, rounds=1), quick.environment(store, steps=2, rounds=1)):
        for measured in found.values():
            assert 0 < measured["low"] <= measured["median"] <= measured["high"]
