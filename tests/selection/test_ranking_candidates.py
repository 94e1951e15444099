import numpy as np
import pytest
import torch
from naive_replay import make_episode, make_spec, save_frames
from two_rooms import SPEC, two_rooms

from offrl import DQN, Algorithm, DiscreteBCQ, TaskSpec
from offrl.algorithms import PolicyOutput
from offrl.errors import ConfigError, DatasetError, OfflineRLError, SpecMismatchError
from offrl.replay import Replay, open_replay
from offrl.selection import CRITERIA, Candidate, Criterion, FittingConfig, Ranked, Ranking, rank
from offrl.selection.ranking import _ranks


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


def test_where_no_candidate_has_a_number_none_is_taken(replay):
    nothing = scripted("error", [float("nan"), float("inf")], more_is_better=False)
    candidates = [candidate(name, replay.spec, 0) for name in "ab"]
    with pytest.raises(OfflineRLError, match="no candidate has a number as its error"):
        rank(candidates, replay.held_out(), [nothing], progress=False)


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
    assert "(equal to 2 others; of equals the best by error, of these the first is taken)" in found.reason()


def test_a_tie_that_the_first_statistic_decides_is_said_to_be_one(replay):
    candidates = [candidate(name, replay.spec, 0) for name in "ab"]
    first = scripted("error", [1.0, 2.0], more_is_better=False)
    second = scripted("value", [1.0, 2.0], more_is_better=True)
    found = rank(candidates, replay.held_out(), [first, second], progress=False)
    assert found.winner.name == "a"
    assert "mean rank of 1.5 is the best of 2 policies (equal to 1 other; of equals the best by error is taken)" in (
        found.reason()
    )


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
    some = Replay(replay.store, held_out=0.5, part="held_out", actions=[0, 1])
    with pytest.raises(ConfigError, match=r"rank: a replay from which actions=\(0, 1\) leaves out transitions"):
        rank([ours], some, [CRITERIA["agreement"]])
    other = Candidate("other", lambda: DQN(TaskSpec.vector(5, ("left", "right", "jump"))))
    with pytest.raises(SpecMismatchError, match="other: "):
        rank([other], replay.held_out(), [CRITERIA["agreement"]], progress=False)


def test_what_is_no_candidate_no_statistic_and_no_replay(replay, tmp_path):
    ours, held_out = candidate("a", replay.spec, 0), replay.held_out()
    for statistics in (["agreement"], "agreement", CRITERIA["agreement"], CRITERIA):
        with pytest.raises(
            ConfigError, match=r"rank: .* among the statistics; expected a list of CRITERIA\['agreement'"
        ):
            rank([ours], held_out, statistics)
    with pytest.raises(ConfigError, match=r"among the candidates; expected a list of offrl.selection.Candidate"):
        rank([DiscreteBCQ(replay.spec)], held_out, [CRITERIA["agreement"]])
    none = Replay(replay.store).held_out()
    with pytest.raises(ConfigError, match=r"rank.replay: None; .*open the data with held_out=0.2, say: else held_out"):
        rank([ours], none, [CRITERIA["agreement"]])
    with pytest.raises(ConfigError, match=r"a: load gives a NoneType; expected an offrl.Algorithm"):
        rank([Candidate("a", lambda: None)], held_out, [CRITERIA["agreement"]], progress=False)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"thresholds": ()}, r"Candidate.thresholds: \(\); expected one or more numbers in \[0, 1\), or None"),
        ({"thresholds": 0.5}, r"Candidate.thresholds: 0.5; "),
        ({"thresholds": (0.3, 1.0)}, r"Candidate.thresholds: \(0.3, 1.0\); "),
        ({"thresholds": (float("nan"),)}, r"Candidate.thresholds: \(nan,\); "),
        ({"thresholds": (-0.1,)}, r"Candidate.thresholds: \(-0.1,\); "),
        ({"reward_scale": 0.0}, r"Candidate.reward_scale: 0.0; expected a finite number other than 0"),
        ({"reward_scale": float("inf")}, r"Candidate.reward_scale: inf; "),
        ({"name": 3}, r"Candidate.name: 3; "),
        ({"load": DQN(SPEC)}, r"Candidate.load: a DQN; .*pass lambda: algorithm"),
    ],
)
def test_a_candidate_is_checked_before_its_turn_comes(wrong, said):
    with pytest.raises(ConfigError, match=said):
        Candidate(**{"name": "a", "load": lambda: 1 / 0, **wrong})
    assert Candidate("a", lambda: 1 / 0, thresholds=np.array([0.0, 0.5]), reward_scale=-2.0).thresholds[1] == 0.5


class Table(Algorithm):
    """Values from a table: of room A, then of room B."""

    name = "table"

    def __init__(self, q):
        super().__init__(SPEC)
        self.q = torch.nn.Parameter(torch.tensor(q))

    def values(self, observation):
        return observation @ self.q

    def forward(self, observation):
        return PolicyOutput(scores=self.values(observation), logits=torch.zeros(len(observation), 2))

    def loss(self, batch):
        raise NotImplementedError


ROOMS = [
    # Goes on to B and ends there: the best policy, and its own q.
    Candidate("exact", lambda: Table([[0.9, 0.3], [1.0, 0.81]])),
    # Stops in A, and believes that this is worth 0.6.
    Candidate("wrong", lambda: Table([[0.54, 0.6], [0.2, 0.54]])),
    Candidate("diverged", lambda: Table([[float("inf"), 0.3], [1.0, 0.81]])),
]
FITTED = [CRITERIA[name] for name in ("fqe", "sbv", "emsbe", "support")]
QUICK = FittingConfig(updates=600, refits=1, batch_size=64, device="cpu")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("offrl.system.files.sync", lambda path: None)
        yield two_rooms(tmp_path_factory.mktemp("rooms"), held_out=0.3)


def test_fitted_statistics_know_what_policies_are_worth_and_how_wrong_their_values_are(rooms):
    found = rank(ROOMS, rooms.held_out(), FITTED, fitting=QUICK, progress=False)
    statistics = {each.name: each.statistics for each in found.policies}
    assert found.winner.name == "exact"
    assert statistics["exact"]["fqe"] == pytest.approx(0.9, abs=0.03)
    assert statistics["wrong"]["fqe"] == pytest.approx(0.3, abs=0.03)
    # The errors of the wrong one by room and action: 0.54 - 0.9 * 0.54, 0.6 - 0.3, 0.2 - 1, 0.54 - 0.9 * 0.6.
    held_out = rooms.held_out()
    in_b, action = held_out.store.observations(held_out.rows)[:, 1], held_out.store.actions[held_out.rows]
    errors = np.array([[0.054, 0.3], [-0.8, 0.0]])[in_b.astype(int), action]
    for name in ("sbv", "emsbe"):
        assert statistics["exact"][name] == pytest.approx(0, abs=0.003)
        assert statistics["wrong"][name] == pytest.approx(np.mean(errors**2), rel=0.1)
        assert np.isnan(statistics["diverged"][name])  # and the others' regressions are none the worse for it
    assert statistics["exact"]["support"] == statistics["wrong"]["support"] == 1.0  # the behaviour is uniform
    assert np.isnan(statistics["diverged"]["support"])  # 0 times infinity is NaN, and no action is its best one


def test_a_candidate_whose_networks_give_nan_comes_last_with_a_remark(rooms):
    """Whatever an argmax of NaN is: here it would be the action of the best policy."""
    broken = Candidate("broken", lambda: Table([[float("nan"), 0.3], [float("nan"), 0.81]]), thresholds=(0.0, 0.5))
    statistics = [CRITERIA["fqe"], CRITERIA["agreement"]]
    found = rank([broken, *ROOMS[:2]], rooms.held_out(), statistics, fitting=QUICK, progress=False)
    assert [each.name for each in found.policies] == ["exact", "wrong", "broken", "broken"]
    last = found.policies[-1]
    assert np.isnan([*last.statistics.values()]).all()
    assert last.first_in == 0
    assert found.to_text().splitlines()[-2:] == ["", f"broken: {last.remark}"]
    assert last.remark.startswith("its networks give NaN on the data: last")
    assert found.to_dict()["policies"][-1]["remark"] == last.remark
    assert found.winner.remark == ""
    with pytest.raises(OfflineRLError, match="no candidate has a number as its agreement"):
        rank([broken], rooms.held_out(), statistics[1:], progress=False)


def test_the_same_seed_gives_the_same_ranking(rooms):
    few = FittingConfig(updates=20, batch_size=16, device="cpu", seed=3)
    first, second = (rank(ROOMS[:2], rooms.held_out(), FITTED, fitting=few, progress=False) for _ in range(2))
    assert first == second


def test_models_are_fitted_on_training_episodes_only(rooms, monkeypatch):
    seen, sizes = [], set()
    gather = type(rooms).gather

    def watched(self, indices):
        seen.extend(self.rows[np.asarray(indices)])
        sizes.add(len(indices))
        return gather(self, indices)

    monkeypatch.setattr("offrl.ope.fitting._Rows.gather", watched)
    few = FittingConfig(updates=20, refits=2, batch_size=16, device="cpu")
    rank(ROOMS[:2], rooms.held_out(), FITTED, fitting=few, progress=False)
    assert max(sizes) == 16  # fit tries a few rows first
    assert not np.intersect1d(seen, rooms.held_out().rows).size


def test_what_cannot_be_fitted_is_refused_before_it_costs_anything(rooms, tmp_path):
    never = Candidate("never loaded", lambda: 1 / 0)
    with pytest.raises(DatasetError, match="soft_opc: a reward of 0.3 as the last one"):
        rank([never], rooms.held_out(), [CRITERIA["fqe"], CRITERIA["soft_opc"]], progress=False)
    whole = two_rooms(tmp_path, num_episodes=3)
    with pytest.raises(ConfigError, match="a replay without training episodes; expected some to fit what sbv needs"):
        rank([never], whole, [CRITERIA["td_error"], CRITERIA["sbv"]], progress=False)


def test_fitted_q_is_the_mean_of_its_refits(rooms, monkeypatch):
    held_out = rooms.held_out()
    num_episodes = len(np.unique(held_out.store.segment_end[held_out.rows]))
    asked, found = [], iter([np.full((num_episodes, 2, 2), each) for each in (1.0, 2.0, 6.0)])

    def fit_q(tables, replay, updates, **how):
        asked.append((how["seed"], str(how["sampling"])))

    monkeypatch.setattr("offrl.ope.fitted_q.fit_q", fit_q)
    monkeypatch.setattr("offrl.selection.fits._first_q", lambda model, replay: next(found))
    fitting = FittingConfig(updates=1, refits=3, seed=5, device="cpu")
    ranking = rank(ROOMS[:2], held_out, [CRITERIA["fqe"]], fitting=fitting, progress=False)
    assert asked == [(5, "uniform"), (6, "episodes-again:6"), (7, "episodes-again:7")]
    assert [each.statistics["fqe"] for each in ranking.policies] == [3.0, 3.0]
