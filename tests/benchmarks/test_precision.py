"""bf16 beside float32, as small as it gets."""

import json

import pytest
from click.testing import CliRunner

from benchmarks import precision


def a_run(loss, *scores):
    return {"seed": 0, "loss": loss, "mean": sum(scores) / len(scores), "scores": list(scores)}


def test_runs_are_compared_in_pairs():
    found = precision.compare(
        {
            "fp32": [a_run(2.0, 10.0, 20.0), a_run(1.0, 0.0, 0.0)],
            "bf16": [a_run(2.1, 13.0, 21.0), a_run(0.98, 4.0, 0.0)],
        }
    )
    assert found["loss_difference"] == pytest.approx(0.05)
    assert found["score_difference"]["mean"] == pytest.approx(((3 + 1) / 2 + (4 + 0) / 2) / 2)


@pytest.mark.slow
def test_the_command_writes_what_the_page_shows(hooks, tmp_path, monkeypatch):
    results = tmp_path / "precision.json"
    monkeypatch.setattr(precision, "RESULTS", results)
    monkeypatch.setattr(
        precision, "small_car_racing", lambda directory, transitions, *length: precision.cart_pole(directory, *length)
    )
    arguments = ["--episodes", "1", "--directory", str(tmp_path)]
    for task in ("cart-pole", "car-racing"):
        arguments += [f"--{task}-updates", "200", f"--{task}-runs", "1"]
    assert CliRunner().invoke(precision.precision, arguments, catch_exceptions=False).exit_code == 0
    first, second = json.loads(results.read_text())["tasks"].values()
    assert first["runs"] == second["runs"]  # the same task twice here: a run depends on nothing else
    assert 0 < first["loss_difference"] < 0.02
    assert first["runs"]["fp32"][0]["loss"] > 0
    assert "| CartPole | fp32 |" in hooks.precision()
