"""The leaderboard: paired by training seed, the best first, shown as far as it goes."""

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

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


RECIPE = Recipe(replay={"held_out": 0.1})
BY_ALGORITHM = {name: replace(RECIPE, algorithm=name) for name in ("bcq", "bc", "crr")}
TRACKS = Tracks("TUNING_SEEDS", 3000, 1)


def write_kept(tmp_path, seeds=str(TRACKS), **changed):
    """Of another machine: two runs of BCQ, one of BC."""
    runs = {"bcq": ("0, Abacus, fp32", "1, Abacus, fp32"), "bc": ("0, Abacus, fp32",)}
    rows = leaderboard_rows({name: {key: evaluation(900.0) for key in keys} for name, keys in runs.items()})
    rows = {name: {**BY_ALGORITHM[name].to_dict(), **row, **changed} for name, row in rows.items()}
    (tmp_path / "leaderboard.json").write_text(json.dumps({"seeds": seeds, "algorithms": rows}))


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """What would be trained is put on a list; the dataset is a stand-in."""
    made = []

    def side_by_side(todo, **how):
        made.extend(todo)
        yield from ()

    store = SimpleNamespace(store=None)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "Study", partial(Study, work=tmp_path / "work"))
    monkeypatch.setattr(module.Recipe, "of_size", classmethod(lambda cls, size, **changes: replace(RECIPE, **changes)))
    monkeypatch.setattr(driving, "side_by_side", side_by_side)
    monkeypatch.setattr(offrl, "open_replay", lambda path, progress=True: store)
    monkeypatch.setattr(module, "inspect_dataset", lambda store: SimpleNamespace(mean_return=SimpleNamespace(mean=1.0)))
    monkeypatch.setattr(Recipe, "data", lambda self: tmp_path)
    return made


def test_it_goes_on_where_another_machine_has_stopped_and_loses_nothing(kept, tmp_path):
    write_kept(tmp_path)
    asked = ["--algorithm", "crr", "--algorithm", "bcq", "--runs", "3", "--episodes", "1"]
    ended = CliRunner().invoke(module.leaderboard, asked, catch_exceptions=False)
    assert kept == ["crr, seed 0", "crr, seed 1", "crr, seed 2", "bcq, seed 2"]
    assert "2 of 6 runs are there already" in ended.output
    found = json.loads((tmp_path / "leaderboard.json").read_text())
    assert {name: [*row["per_run"]] for name, row in found["algorithms"].items()} == {
        "bcq": ["0, Abacus, fp32", "1, Abacus, fp32"],
        "bc": ["0, Abacus, fp32"],
    }
    assert (found["command"], found["runs"]) == ("python -m benchmarks leaderboard --episodes 1", 3)
    assert found["planned_algorithms"] > 10


@pytest.mark.parametrize("other", [{"seeds": "TUNING_SEEDS[:1]"}, {"updates": 1}])
def test_a_result_of_other_runs_is_not_overwritten(kept, tmp_path, other):
    write_kept(tmp_path, **other)
    before = (tmp_path / "leaderboard.json").read_text()
    ended = CliRunner().invoke(module.leaderboard, ["--episodes", "1"])
    assert ended.exit_code == 1
    assert "has runs of another recipe or of other tracks: move it away" in ended.output
    assert (kept, (tmp_path / "leaderboard.json").read_text()) == ([], before)


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
