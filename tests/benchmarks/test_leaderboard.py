"""The leaderboard: paired by training seed, the best first, shown as far as it goes."""

import json

import pytest

import offrl
from benchmarks import driving
from benchmarks import leaderboard as module
from benchmarks.driving import Recipe, Study, Tracks
from benchmarks.leaderboard import leaderboard_rows


def evaluation(mean):
    episode = {"seed": 1_003_000, "score": mean, "length": 700, "finished": mean > 900}
    return {"mean": mean, "finished": int(mean > 900), "mean_length": 700.0, "per_episode": [episode]}


FOUND = {
    "dqn": {0: evaluation(100.0)},
    "bc": {0: evaluation(850.0), 1: evaluation(910.0), 2: evaluation(700.0)},
    "bcq": {0: evaluation(905.0), 1: evaluation(925.0)},  # its third run has not been made yet
}


def test_differences_are_paired_by_training_seed():
    rows = leaderboard_rows(FOUND)
    assert [*rows] == ["bcq", "bc", "dqn"]
    # 55 and 15: mean 35, standard deviation 28.28, times 12.706 / sqrt(2) is 254.1.
    difference = rows["bcq"]["minus_bc"]
    assert difference["mean"] == 35.0
    assert difference["interval_95"] == pytest.approx([35 - 254.1, 35 + 254.1], abs=0.1)
    assert rows["dqn"]["minus_bc"] == {"mean": -750.0, "interval_95": None, "runs": 1}
    assert "minus_bc" not in rows["bc"]
    assert "minus_bc" not in leaderboard_rows({"dqn": FOUND["dqn"]})["dqn"]


def test_runs_of_another_machine_are_paired_by_seed_too():
    bcq, bc = {"0, A, bf16": evaluation(905.0)}, {"0, B, fp32": evaluation(850.0), "1, B, fp32": evaluation(910.0)}
    assert leaderboard_rows({"bcq": bcq, "bc": bc})["bcq"]["minus_bc"] == {
        "mean": 55.0,
        "interval_95": None,
        "runs": 1,
    }


def test_it_goes_on_where_another_machine_has_stopped(monkeypatch, tmp_path):
    recipe, tracks = Recipe(replay={"held_out": 0.1}), Tracks("TUNING_SEEDS", 3000, 1)
    study = Study({"bcq": recipe}, 2, tracks, tmp_path / "runs")
    runs = {f"{seed}, Abacus, fp32": evaluation(900.0 + seed) for seed in (0, 1, 2)}
    row = {**recipe.to_dict(), **leaderboard_rows({"bcq": runs})["bcq"]}
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    path = tmp_path / "leaderboard.json"

    path.write_text(json.dumps({"seeds": str(tracks), "algorithms": {"bcq": row}}))
    assert [*module._kept(study, recipe)["bcq"]] == ["0, Abacus, fp32", "1, Abacus, fp32"]  # the third is not asked for
    path.write_text(json.dumps({"seeds": str(tracks), "algorithms": {"bcq": {**row, "updates": 1}}}))
    assert module._kept(study, recipe) == {}  # another recipe
    path.write_text(json.dumps({"seeds": "TUNING_SEEDS[:1]", "algorithms": {"bcq": row}}))
    assert module._kept(study, recipe) == {}  # other tracks

    made = []
    monkeypatch.setattr(driving, "side_by_side", lambda todo, **_: made.extend(todo) or iter(()))
    monkeypatch.setattr(offrl, "open_replay", lambda path: None)
    monkeypatch.setattr(Recipe, "data", lambda self: tmp_path)
    study.run(after_each=lambda: None, elsewhere={"bcq": {0}})
    assert made == ["bcq, seed 1"]


def test_the_page_shows_what_is_there(hooks, tmp_path):
    assert "`python -m benchmarks leaderboard`" in hooks.leaderboard()
    result = {
        "command": "c",
        "dataset": "carracing/mixed",
        "dataset_mean": 477.2,
        "seeds": "TUNING_SEEDS[3000:3100]",
        "n_step": 10,
        "batch_size": 64,
        "discount": 0.97,
        "transitions": 60_000,
        "updates": 4_000,
        "held_out": 0.1,
        "precision": "fp32",
        "runs": 3,
        "planned_algorithms": 3,
        "algorithms": leaderboard_rows(FOUND),
        "machine": {"processor": "<Abacus>"},
    }
    (tmp_path / "carracing").mkdir()
    (tmp_path / "carracing" / "leaderboard.json").write_text(json.dumps(result))
    shown = hooks.leaderboard()
    assert "whose mean return is 477: 60,000 transitions, 10% of the episodes held out, 4,000 updates" in shown
    assert "6 of 9 runs so far." in shown
    assert "| DQN | 1 | 100.0 (1 seed: too few for an interval) | 100.0, 100.0 | 0 of 1 | 0 | 1 | -750.0 |" in shown
    assert "| 2 of 2, 700 steps | 0: 0.0 points | 0: 0.0 points | 35.0 (-219.1 to 289.1) |" in shown
