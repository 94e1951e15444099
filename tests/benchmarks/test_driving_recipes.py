"""Recipes: what each is worth beside the first."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import offrl
from benchmarks import driving
from benchmarks.machines import merged
from benchmarks.recipes import (
    CRITIC_WEIGHTED,
    FIRST,
    OTHERWISE,
    TRACKS,
    TRIED,
    add_otherwise,
    most_runs,
    recipe_rows,
    recipes,
    still_tried,
)
from benchmarks.revisions import REVISIONS
from offrl import CRR
from offrl.envs import car_racing
from offrl.networks import CompactEncoder
from offrl.runs import describe_machine


def evaluation(mean):
    episode = {"seed": 1_006_000, "score": mean, "length": 700, "finished": mean > 900}
    return {"mean": mean, "finished": int(mean > 900), "mean_length": 700.0, "per_episode": [episode]}


OTHER = next(name for name in TRIED if name != FIRST)
FOUND = {
    FIRST: {"0, Xeon, bf16": evaluation(890.0), "1, Xeon, bf16": evaluation(900.0)},
    OTHER: {"0, Xeon, bf16": evaluation(915.0), "1, EPYC, bf16": evaluation(925.0), "1, Xeon, bf16": evaluation(920.0)},
}


def test_every_recipe_is_another_one():
    digests = [tried.recipe.digest for tried in TRIED.values()]
    assert len(set(digests)) == len(digests)


def test_a_recipe_is_compared_with_the_first():
    rows = recipe_rows(FOUND)
    assert most_runs(rows) == 2  # seeds 0 and 1, one of them on two processors
    assert most_runs({OTHER: {"per_run": {"2, Xeon, bf16": {}, "10, Xeon, bf16": {}}}}) == 11
    assert "minus_as_it_was" not in rows[FIRST]
    difference = rows[OTHER]["minus_as_it_was"]
    # Seeds count once, whatever their runs: 915 and 922.5 against 890 and 900.
    assert difference["mean"] == 23.75
    assert difference["low"] < 0 < difference["high"]
    assert difference["low"] + difference["high"] == pytest.approx(47.5)
    assert "minus_as_it_was" not in recipe_rows({OTHER: FOUND[OTHER]})[OTHER]


def test_a_row_counts_while_its_recipe_stays_the_same():
    rows = recipe_rows(FOUND)
    assert still_tried(rows) == rows
    every = {name: {**tried.recipe.to_dict(), "per_run": {}} for name, tried in TRIED.items()}
    assert [*still_tried(json.loads(json.dumps(every)))] == [*TRIED]
    assert still_tried({"no longer tried": rows[FIRST]}) == {}
    for section, setting, value in (("replay", "discount", 0.9), ("learner", "polyak", 0.5), ("settings", "beta", 1.0)):
        changed = {**rows[FIRST], section: {**rows[FIRST][section], setting: value}}
        assert still_tried({FIRST: changed, OTHER: rows[OTHER]}) == {OTHER: rows[OTHER]}


def test_runs_of_two_machines_stand_together():
    here = {FIRST: {"10, Xeon, bf16": evaluation(891.0), "0, Xeon, bf16": evaluation(892.0)}}
    found = merged(here, FOUND)
    means = [(run, found["mean"]) for run, found in found[FIRST].items()]
    assert means == [("0, Xeon, bf16", 892.0), ("1, Xeon, bf16", 900.0), ("10, Xeon, bf16", 891.0)]
    assert found[OTHER] == FOUND[OTHER]


def test_each_way_to_drive_keeps_its_scores_by_themselves():
    assert len({tracks.file_name for tracks in (TRACKS, *OTHERWISE.values())}) == 1 + len(OTHERWISE)


def test_crr_can_be_driven_by_the_policy_that_its_critic_weights(monkeypatch, tmp_path):
    driven, score = [], SimpleNamespace(to_dict=dict)
    crr = CRR(car_racing.spec(), encoder=CompactEncoder)
    monkeypatch.setattr(driving, "latest_checkpoint", lambda directory: directory)
    monkeypatch.setattr(driving, "load_algorithm", lambda path, device: crr)
    monkeypatch.setattr(offrl, "evaluate", lambda policy, *_, **how: driven.append(policy.algorithm.config) or score)
    for tracks in (TRACKS, *CRITIC_WEIGHTED.values()):
        tracks.judge(tmp_path, crr.spec)
    assert [(config.critic_weighted, config.beta) for config in driven] == [(False, 1.0), (True, 1.0), (True, 0.3)]


@pytest.mark.parametrize(("otherwise", "algorithm"), [("0.99", "BCQ"), ("critic-weighted", "CRR")])
def test_a_way_to_drive_that_no_recipe_asked_for_has_is_refused(otherwise, algorithm):
    other = "never full brake, CRR" if algorithm == "BCQ" else FIRST
    ended = CliRunner().invoke(recipes, ["--recipe", other, "--otherwise", otherwise])
    assert ended.exit_code == 2
    assert f"--otherwise {otherwise} is for recipes of {algorithm}" in ended.output


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
    assert "otherwise" not in hooks.tried()
    driven = {"1, EPYC, bf16": evaluation(899.0), "1, Xeon, bf16": evaluation(931.0)}
    driven["3, Xeon, bf16"] = evaluation(940.0)  # has not driven with its own yet
    add_otherwise(result["recipes"], "0.99", {OTHER: driven, "no run of it has": driven})
    add_otherwise(
        result["recipes"],
        "0.5",
        {OTHER: {"1, EPYC, bf16": evaluation(926.0)}, FIRST: {"7, Xeon, bf16": evaluation(900.0)}},
    )
    assert "otherwise" not in result["recipes"][FIRST]
    (tmp_path / "carracing" / "recipes.json").write_text(json.dumps(result))
    shown = hooks.tried()
    assert f"| {OTHER} | 1, EPYC, bf16 | 925.0, 1 | 926.0, 1 | 899.0, 0 |" in shown
    assert f"| {OTHER} | 1, Xeon, bf16 | 920.0, 1 |  | 931.0, 1 |" in shown
    assert f"| {OTHER} | 3, Xeon, bf16 |" not in shown
    assert "runs by EPYC, bf16 (1) and Xeon, bf16 (4)." in shown
    assert shown.index("920.0") < shown.index("895.0")
    assert "| +23.8 (" in shown


def test_runs_of_an_earlier_revision_lie_apart(monkeypatch):
    recipe = TRIED[FIRST].recipe
    before, rows = recipe.digest, recipe_rows(FOUND)
    monkeypatch.setitem(REVISIONS, "bcq", 1)
    assert recipe.digest != before
    assert still_tried(rows) == {}
