import json

import pytest

from benchmarks.judging.candidates import TASKS, Candidate
from benchmarks.select import BEST, gains
from offrl.runs import describe_machine


def run(seed, *returns):
    return {Candidate("bcq", seed, 10 * (age + 1), None): float(value) for age, value in enumerate(returns)}


def test_what_is_gained_over_the_last_checkpoint():
    returns = {**run(0, 5, 9, 7), **run(1, 3, 1, 2)}
    found = gains(
        returns, {"good": [0, 9, 0, 9, 0, 0], "bad": [9, 0, 0, 0, 9, 0], "equal": [1] * 6, "none": [float("nan")] * 6}
    )
    assert found["last"]["runs"] == [7, 2]
    rows = found["gains"]
    assert rows["good"]["runs"] == [2, 1]
    assert rows["good"]["steps"] == [20, 10]
    assert rows["good"] == rows[BEST]
    assert rows["bad"]["runs"] == [-2, -1]
    for name in ("equal", "none"):  # what says nothing takes the last
        assert rows[name]["runs"] == [0, 0]
    assert rows["good"]["mean"] == pytest.approx(1.5)


def test_two_statistics_together_rank_the_checkpoints_of_each_run():
    returns = {**run(0, 5, 9, 7), **run(1, 3, 1, 2)}
    found = gains(returns, {"fqe": [1, 2, 3, 10, 20, 30], "agreement": [0, 9, 8, 0, 0, 0]})["gains"]
    # Of run 0 the ranks' sums are 2, 5 and 5; of run 1 agreement says nothing. Of equals the later one is taken.
    assert found["fqe and agreement"]["steps"] == [30, 30]
    found = gains(returns, {"fqe": [1, 3, 3, 10, 30, 20], "agreement": [0, 9, 8, 0, 0, 0]})["gains"]
    assert found["fqe and agreement"]["steps"] == [20, 20]


def test_the_page_has_the_tasks_side_by_side(hooks, tmp_path):
    shared = {"runs": 2, "updates": 100, "checkpoints": 3, "episodes_played": 20, "machine": describe_machine()}
    (tmp_path / "selection").mkdir()
    for name, scale in (("cartpole", 10), ("minatar", 0.1)):
        found = gains({**run(0, 5 * scale, 9 * scale, 7 * scale), **run(1, 3 * scale, scale, 2 * scale)}, {})
        result = {"task": name, "command": f"c {name}", **shared, **found}
        (tmp_path / "selection" / f"{name}.json").write_text(json.dumps(result))
    shown = hooks.gained()
    # 7 and 2: mean 4.5, standard deviation 3.54, times 12.706 / sqrt(2) is 31.8.
    assert "| the last checkpoint's return | 45.0 (-272.7 to 362.7) | 0.45 (-2.73 to 3.63) |" in shown
    assert "| (the truly best) | +15.0 (-48.5 to +78.5) | +0.15 (-0.49 to +0.79) |" in shown
    assert "20 episodes a checkpoint. `c minatar`; " in shown


@pytest.mark.parametrize("task", TASKS)
def test_every_set_of_candidates_is_large_and_apart_from_the_others(task):
    sets = [[*TASKS[task].candidates(part)] for part in ("first", "second", "runs")]
    assert [len(each) >= 20 for each in sets] == [True] * 3
    assert len({*sets[0], *sets[1], *sets[2]}) == sum(map(len, sets))
    assert all(each.step % 10 == 0 for each in sets[2])
