import json

import pytest

from offrl.report import ScoreDifference, ScoreRow, ScoreTable, score_table


def test_an_algorithm_is_a_row_over_its_training_seeds(several):
    table = score_table(several)
    assert isinstance(table, ScoreTable)
    assert all(isinstance(row, ScoreRow) for row in table.rows)
    assert [(row.name, row.run_means, row.training_seeds) for row in table.rows] == [
        ("BC", (90.0, 125.0), ((0, 0), (1, 1))),
        ("BCQ", (100.0, 110.0, 120.0), ((0, 0), (1, 1), (2, 2))),
        ("DQN", (5.0,), ((0, 0),)),
    ]
    bcq = table.rows[1].to_dict()
    # Of three runs, t is 4.303; the standard deviation is 10; 4.303 * 10 / sqrt(3) = 24.84.
    assert bcq["mean"] == 110.0
    assert bcq["interval_95"] == pytest.approx([85.16, 134.84], abs=0.01)
    assert (bcq["interval_over"], bcq["num_runs"]) == ("training seeds", 3)
    assert (bcq["num_episodes"], bcq["mean_length"]) == (6, 20)
    dqn = table.rows[2].to_dict()
    assert (dqn["interval_over"], dqn["interval_95"]) == ("episodes", None)


def test_the_same_training_seeds_are_paired(several, write_scores):
    write_scores("bc-2", "bc", 2, 112.0)
    (difference,) = score_table(several).differences  # DQN has one seed only: nothing to pair
    assert isinstance(difference, ScoreDifference)
    assert (difference.best, difference.other, difference.paired_by) == ("BCQ", "BC", "training seed")
    # 100 - 90, 110 - 125, 120 - 112: mean 1, standard deviation 13.9; 13.9 * 4.303 / sqrt(3) = 34.5.
    assert difference.to_dict()["mean"] == 1.0
    assert difference.to_dict()["interval_95"] == pytest.approx([-33.5, 35.5], abs=0.05)


def test_the_table_in_words(several, write_scores):
    write_scores("bcq-new", "bcq", 3)
    lines = score_table(several).to_text().splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "algorithm mean 95 % interval training seeds lowest run highest run steps an episode episodes",
        "BC 107.5 -114.9 to 329.9 2 90.0 125.0 20 2 each",
        "BCQ 110.0 85.2 to 134.8 3 100.0 120.0 20 2 each",
        "DQN 5.0 2 episodes: too few for an interval one training run - - 20 2",
        "",
        "Not evaluated, and so not in the table: bcq-new.",
    ]
    assert len({len(line) for line in lines[:4]}) == 1  # columns end below each other


def test_policies_of_one_run_have_their_median_laps_and_the_data(example):
    table = score_table(example)
    assert not table.is_over_seeds
    lines = table.to_text().splitlines()
    assert lines[0].split("  ")[0] == "policy"
    assert lines[1].split() == ["the", "data", "120.0", "110.0", "to", "130.0"]
    expected = "BCQ 225.0 2 episodes: too few for an interval 225.0 125.0 20 2 1 of 2"
    assert " ".join(lines[3].split()) == expected
    assert lines[-1] == "BCQ - BC, paired by episode seed: +25.0, 2 episodes: too few for an interval."
    found = table.to_dict()
    assert found["dataset"] == {"mean": 120.0, "interval_95": [110.0, 130.0], "num_episodes": None}
    assert [row.get("finished_share") for row in found["scores"]] == [None, 0.5]  # BC's episodes do not say
    json.dumps(found)


def test_a_run_that_was_not_evaluated_has_no_row(several, write_scores):
    table = score_table(write_scores("new", "dqn", 7))
    assert table.to_dict() == {"scores": [], "differences": [], "dataset": None, "remarks": []}
    assert table.to_text().startswith("Not played yet: offrl evaluate RUN --out RUN/evaluation.json\nBy logs alone: ")
