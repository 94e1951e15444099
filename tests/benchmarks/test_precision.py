"""bf16 beside float32, as small as it gets."""

import json

import pytest
from click.testing import CliRunner

from benchmarks import driving, precision, precision_runs
from benchmarks.driving import Recipe
from offrl.runs import describe_machine


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


def a_driven_run(mean):
    episode = {"score": mean, "length": 800, "finished": True}
    return {"mean": mean, "finished": 1, "mean_length": 800.0, "per_episode": [episode]}


def test_the_demos_runs_are_compared_seed_by_seed(hooks, tmp_path):
    assert "precision-runs" in hooks.precision_runs()
    evaluations = {
        "fp32": {seed: a_driven_run(mean) for seed, mean in enumerate((900.0, 910.0, 880.0))},
        "bf16": {seed: a_driven_run(mean) for seed, mean in enumerate((901.0, 913.0, 885.0, 999.0))},
    }
    found = precision_runs.compare(evaluations)
    assert found["differences"] == {"0": 1.0, "1": 3.0, "2": 5.0}
    assert found["score_difference"]["mean"] == 3.0
    # Student's t for 2 degrees of freedom is 4.303, and the standard error 2 / sqrt(3)
    assert found["score_difference"]["low"] == pytest.approx(3 - 4.303 * 2 / 3**0.5, abs=1e-3)
    result = {"command": "c", "seeds": "S", **found, "machine": describe_machine()}
    (tmp_path / "precision_runs.json").write_text(json.dumps(result))
    shown = hooks.precision_runs()
    assert "| bf16 | 901.0, 913.0, 885.0, 999.0 |" in shown
    assert "**+3.0**, 95 % interval over the runs -2.0 to +8.0" in shown


@pytest.mark.parametrize("fast", ["fp32", "bf16"])
def test_what_the_demo_trains_in_here_has_its_own_runs(fast, monkeypatch):
    monkeypatch.setattr(precision_runs, "fast_precision", lambda: fast)
    monkeypatch.setattr(driving, "fast_precision", lambda device: fast)
    found = precision_runs.recipes()
    assert found[fast] == Recipe.of_size("demo")
    assert {name: recipe.learner_config().precision for name, recipe in found.items()} == {n: n for n in found}


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
