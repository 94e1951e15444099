import pytest

from benchmarks.judging.candidates import TASKS, Candidate
from benchmarks.select import BEST, gains


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


@pytest.mark.parametrize("task", TASKS)
def test_every_set_of_candidates_is_large_and_apart_from_the_others(task):
    sets = [[*TASKS[task].candidates(part)] for part in ("first", "second", "runs")]
    assert [len(each) >= 20 for each in sets] == [True] * 3
    assert len({*sets[0], *sets[1], *sets[2]}) == sum(map(len, sets))
    assert all(each.step % 10 == 0 for each in sets[2])
