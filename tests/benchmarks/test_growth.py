"""The cost of growth, as small as it gets."""

import json

import pytest
from click.testing import CliRunner


@pytest.mark.slow
def test_the_command_writes_what_the_page_shows(hooks, tmp_path, monkeypatch):
    from benchmarks import growth

    monkeypatch.setattr(growth, "RESULTS", tmp_path / "growth")
    monkeypatch.setattr(growth, "BATCH_SIZES", (2,))
    monkeypatch.setattr(growth, "NUM_ACTIONS", (3,))
    arguments = [
        "--sizes",
        "1000",
        "--updates",
        "1",
        "--rounds",
        "1",
        "--run-length",
        "500",
        "--directory",
        str(tmp_path / "data"),
    ]
    assert CliRunner().invoke(growth.growth, arguments, catch_exceptions=False).exit_code == 0
    found = json.loads((tmp_path / "growth" / "results.json").read_text())
    assert [list(found[axis]) for axis in ("transitions", "batch_size", "actions")] == [["1000"], ["2"], ["3"]]
    assert list(found["transitions_not_in_memory"]) == ["1000"]
    for axis in ("transitions", "batch_size", "actions"):
        for row in found[axis].values():
            assert row["updates_per_second"] * row["milliseconds"] == pytest.approx(1000)
            assert row["memory_mib"] > 50  # networks, target and moments alone
    drawn = hooks.growth()
    assert "| 1,000 |" in drawn
    assert "(benchmarks/growth/growth.png)" in drawn
