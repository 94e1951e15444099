"""Recipes: what each is worth beside the first."""

import json

import pytest

from benchmarks.recipes import FIRST, TRIED, recipe_rows
from offrl.runs import describe_machine


def evaluation(mean):
    episode = {"seed": 1_006_000, "score": mean, "length": 700, "finished": mean > 900}
    return {"mean": mean, "finished": int(mean > 900), "mean_length": 700.0, "per_episode": [episode]}


OTHER = next(name for name in TRIED if name != FIRST)
FOUND = {
    FIRST: {0: evaluation(890.0), 1: evaluation(900.0)},
    OTHER: {0: evaluation(915.0), 1: evaluation(925.0), 2: evaluation(920.0)},
}


def test_every_recipe_is_another_one():
    digests = [tried.recipe.digest for tried in TRIED.values()]
    assert len(set(digests)) == len(digests)


def test_a_recipe_is_compared_with_the_first():
    rows = recipe_rows(FOUND)
    assert "minus_as_it_was" not in rows[FIRST]
    difference = rows[OTHER]["minus_as_it_was"]
    # 920 - 895; variances 25 / 3 and 50 / 2, so an error of 5.77; 1.51 degrees of freedom.
    assert difference["mean"] == 25.0
    assert difference["low"] < 0 < difference["high"]
    assert difference["low"] + difference["high"] == pytest.approx(50.0)
    assert "minus_as_it_was" not in recipe_rows({OTHER: FOUND[OTHER]})[OTHER]


def test_the_page_shows_the_best_first(hooks, tmp_path):
    assert "`python -m benchmarks recipes`" in hooks.tried()
    result = {
        "command": "c",
        "seeds": "TUNING_SEEDS[6000:6060]",
        "precision": "bf16",
        "recipes": recipe_rows(FOUND),
        "machine": describe_machine(),
    }
    (tmp_path / "carracing").mkdir()
    (tmp_path / "carracing" / "recipes.json").write_text(json.dumps(result))
    shown = hooks.tried()
    assert shown.index("920.0") < shown.index("895.0")
    assert "| +25.0 (" in shown
