"""The leaderboard: paired by training seed, the best first, shown as far as it goes."""

import json

import pytest

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
