"""What is reported of scores over tasks and runs, by numbers that can be worked out by hand."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def statistics():
    from benchmarks.scoring import statistics

    return statistics


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end(statistics):
    assert statistics.interquartile_mean(np.array([[100.0, 1, 2], [3, -50, 4], [5, 6, 0]])) == 3.0  # 1, 2, 3, 4, 5
    assert statistics.interquartile_mean(np.array([[0.0, 1, 2, 9]])) == 1.5


def test_the_probability_of_improvement_counts_pairs_within_a_task(statistics):
    # First task: 3 beats 1 and 2, 2 beats 1 and ties with 2: 3.5 of 4. Second: 1000 above nobody's 2000: 0 of 4.
    ours, theirs = np.array([[3.0, 2], [1000, 1000]]), np.array([[1.0, 2], [2000, 2000]])
    assert statistics.probability_of_improvement(ours, theirs) == (3.5 / 4 + 0) / 2
    assert statistics.probability_of_improvement(theirs, ours) == (0.5 / 4 + 1) / 2


def test_runs_are_drawn_again_within_their_task(statistics):
    scores = np.array([[1.0, 1, 1], [5, 5, 5]])  # drawn across tasks, the mean would vary
    assert statistics.estimate(lambda drawn: float(drawn.mean()), scores) == (3.0, 3.0, 3.0)
    low_and_high = statistics.estimate(lambda drawn: float(drawn.mean()), np.array([[0.0, 1]]))
    assert low_and_high == (0.5, 0.0, 1.0)


def test_a_cell_is_trained_scored_and_not_made_again(tmp_path):
    from benchmarks.scoring import cells
    from offrl import envs
    from offrl.collection import collect

    cell = cells.Cell("CartPole-v1", "random", "bve", 3, 4)
    from functools import partial

    make_env = partial(envs.make, "CartPole-v1")
    data = cells.dataset(tmp_path, "CartPole-v1", "random")
    collect(make_env, envs.RandomBehaviour(), data, transitions=300, workers=1, progress=False)
    assert cell.score(tmp_path) is None
    cells.run(tmp_path, cell)
    score = cell.score(tmp_path)
    assert len(score["scores"]) == 100
    assert score["score"] == pytest.approx(np.mean(score["scores"]))
    assert (score["algorithm"], score["seed"], score["updates"]) == ("bve", 3, 4)
    assert not (cell.directory(tmp_path) / "run").exists()


def test_the_result_is_a_table(hooks, tmp_path):
    cell = {"mean": 9.5, "interval_95": [9.0, 10.0], "runs": [9.0, 10.0]}
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    row = {"cells": {"CartPole-v1/expert": cell}, "seconds_per_run": 12.3, "interquartile_mean": estimate}
    found = {
        "command": "c",
        "datasets": {"CartPole-v1/expert": {"mean_return": 499.0}},
        "algorithms": {"bc": row, "cql": {**row, "probability_of_improvement_over_bc": estimate}},
        "runs": 2,
        "updates": 20000,
        "transitions": 100000,
        "batch_size": 128,
        "evaluation_seeds": [10, 109],
        "machine": {
            "processor": "<Abacus>",
            "cores": 1,
            "python": "3.11",
            "gpu": None,
            "versions": {"torch": "2.13.0"},
        },
    }
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "results.json").write_text(json.dumps(found))
    drawn = hooks.shelf()
    assert "| CartPole-v1, expert | 499.0 | 9.5 (9.0 to 10.0) | 9.5 (9.0 to 10.0) |" in drawn
    assert "| better than BC |  |  | 0.50 (0.40 to 0.60) |" in drawn
    assert "2 training runs a cell, 20,000 updates each" in drawn
    assert "100 episodes a run" in drawn
