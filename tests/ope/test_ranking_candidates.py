import numpy as np
import pytest
from naive_replay import make_episode, make_spec, save_frames

from offrl import DQN, DiscreteBCQ, TaskSpec
from offrl.errors import ConfigError, SpecMismatchError
from offrl.ope import CRITERIA, Candidate, Criterion, Ranked, Ranking, rank
from offrl.ope.selection import _ranks
from offrl.replay import open_replay


@pytest.fixture
def replay(tmp_path):
    save_frames(tmp_path, [[make_episode(seed, 4, pixels=0) for seed in range(6)]], make_spec(pixels=0))
    return open_replay(tmp_path, progress=False, held_out=0.5)


def candidate(name, spec, seed, **options):
    return Candidate(name, lambda: DiscreteBCQ(spec, seed=seed), **options)


def test_ranks_of_equals_and_of_what_is_no_number():
    values = np.array([3.0, np.nan, 1.0, 3.0, 7.0, np.inf])
    assert _ranks(values, True).tolist() == [2.5, 5.5, 4.0, 2.5, 1.0, 5.5]
    assert _ranks(values, False).tolist() == [2.5, 5.5, 1.0, 2.5, 4.0, 5.5]


def test_every_threshold_is_a_policy_and_the_best_one_comes_first(replay):
    candidates = [candidate("a", replay.spec, 0, thresholds=(0.0, 0.9)), candidate("b", replay.spec, 1)]
    found = rank(candidates, replay.held_out(), [CRITERIA["td_error"]], progress=False)
    assert sorted((each.name, each.threshold) for each in found.policies) == [("a", 0.0), ("a", 0.9), ("b", 0.3)]
    errors = [each.statistics["td_error"] for each in found.policies]
    assert errors == sorted(errors)
    assert (found.num_transitions, found.num_episodes) == (12, 3)
    taken = (
        f"{found.winner.name} with threshold {found.winner.threshold:g}: its td_error of {errors[0]:.4g} is the best"
    )
    assert found.reason().startswith(taken)
    assert found.reason().endswith("of 3 policies, on 12 held-out transitions of 3 episodes")


def scripted(name, values, *, more_is_better):
    """Gives these values to the candidates in turn."""
    turn = iter(values)
    return Criterion(name, lambda reading, log: next(turn), more_is_better, needs_values=False)


def test_several_statistics_decide_by_the_mean_of_their_ranks(replay):
    candidates = [candidate(name, replay.spec, 0) for name in "abc"]
    # Ranks by the first: a 1, b 2, c 3; by the second: a 3, b 1, c 2. Means: 2, 1.5, 2.5.
    first = scripted("error", [1.0, 2.0, 3.0], more_is_better=False)
    second = scripted("value", [1.0, 30.0, 20.0], more_is_better=True)
    found = rank(candidates, replay.held_out(), [first, second], progress=False)
    assert [each.name for each in found.policies] == ["b", "a", "c"]
    assert [each.mean_rank for each in found.policies] == [1.5, 2.0, 2.5]
    assert "its mean rank of 1.5 is the best of 3 policies, on" in found.reason()
    assert found.reason().endswith(": error 2 (rank 2), value 30 (rank 1)")
    header, best, *_ = found.to_text().splitlines()
    assert header.split() == ["policy", "threshold", "error", "rank", "value", "rank", "mean", "rank"]
    assert best.split() == ["b", "0.3", "2", "2", "30", "1", "1.5"]


def test_of_equals_the_first_statistic_decides_and_then_the_order(replay):
    candidates = [candidate(name, replay.spec, 0) for name in "abc"]
    first = scripted("error", [2.0, 1.0, 1.0], more_is_better=False)  # ranks 3, 1.5, 1.5
    second = scripted("value", [9.0, 2.0, 2.0], more_is_better=True)  # ranks 1, 2.5, 2.5: all means are 2
    found = rank(candidates, replay.held_out(), [first, second], progress=False)
    assert [each.name for each in found.policies] == ["b", "c", "a"]
    assert "(equal to 1 other; of equals the first is taken)" in found.reason()


def test_the_scale_of_rewards_that_a_candidate_was_trained_with_is_divided_out(replay):
    plain, scaled = candidate("a", replay.spec, 0), candidate("b", replay.spec, 0, reward_scale=0.5)
    found = rank([plain, scaled], replay.held_out(), [CRITERIA["initial_value"]], progress=False)
    values = {each.name: each.statistics["initial_value"] for each in found.policies}
    assert values["b"] == pytest.approx(2 * values["a"])


def test_what_is_no_number_is_null_in_json():
    policies = [Ranked("a", 0.0, {"x": 1.0}, {"x": 1.0}), Ranked("b", 0.0, {"x": float("nan")}, {"x": 2.0})]
    found = Ranking(policies, 10, 2).to_dict()
    assert [each["statistics"]["x"] for each in found["policies"]] == [1.0, None]
    assert found["winner"]["policy"] == "a"


def test_what_cannot_be_ranked(replay):
    ours = candidate("a", replay.spec, 0)
    with pytest.raises(ConfigError, match="no candidates"):
        rank([], replay.held_out(), [CRITERIA["agreement"]])
    with pytest.raises(ConfigError, match="no statistics"):
        rank([ours], replay.held_out(), [])
    with pytest.raises(ConfigError, match=r"the episodes that are trained on; .*pass replay.held_out\(\)"):
        rank([ours], replay, [CRITERIA["agreement"]])
    other = Candidate("other", lambda: DQN(TaskSpec.vector(5, ("left", "right", "jump"))))
    with pytest.raises(SpecMismatchError, match="other: "):
        rank([other], replay.held_out(), [CRITERIA["agreement"]], progress=False)
