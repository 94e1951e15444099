import json
from dataclasses import replace

import numpy as np
import pytest
from naive_replay import make_episode, make_spec, rows_of, save_frames, save_stacked, stacked_members

from offrl.datasets import DatasetSummary, Drawn, Feature, inspect_dataset, sample_stacks
from offrl.replay import ingest
from offrl.report import plot_returns
from offrl.shards import Episode, write_dataset
from offrl.statistics import Interval


def episode(rewards, actions, terminated):
    frames = np.random.default_rng(len(rewards)).integers(256, size=(len(rewards) + 1, 2, 3), dtype=np.uint8)
    return Episode(frames, np.array(actions), np.array(rewards, np.float32), terminated, not terminated)


@pytest.fixture
def store(tmp_path):
    first = episode([1, 2, 3], [0, 0, 2], terminated=True)
    second = episode([10], [0], terminated=False)
    third = episode([-1, 0], [2, 2], terminated=True)
    save_frames(tmp_path, [[first, second], [third]], make_spec())
    return ingest(tmp_path)


def test_statistics_by_hand(store):
    summary = inspect_dataset(store)
    assert (summary.num_transitions, summary.num_episodes, summary.num_frames) == (6, 3, 9)
    assert summary.returns.tolist() == [6, 10, -1]
    assert summary.lengths.tolist() == [3, 1, 2]
    assert summary.action_counts.tolist() == [3, 0, 3]
    assert (summary.num_terminated, summary.num_truncated) == (2, 1)
    assert summary.mean_return == (5, None, None)  # three episodes are too few for an interval
    (line,) = summary.warnings
    assert line.startswith("1 of 3 actions never occur: right; train BCQ")


def test_text_shows_the_actions_by_name_and_the_warnings(store):
    lines = inspect_dataset(store).to_text().splitlines()
    assert "episodes     3: 2 terminated, 1 truncated" in lines
    assert "  0 left                   50.0 %         3 ##############################" in lines
    assert "  1 right                   0.0 %         0" in lines
    assert lines[-2] == ""
    assert lines[-1].startswith("warning: 1 of 3 actions never occur: right; train BCQ")
    histogram = lines[lines.index("return, up to     episodes") + 1 :][:10]
    assert [int(line.split()[1]) for line in histogram] == [1, 0, 0, 0, 0, 0, 1, 0, 0, 1]  # of -1, 6 and 10


def test_features_by_hand(tmp_path, store):
    write_dataset(
        tmp_path / "customers",
        observations=np.array([[1, 5], [3, 5], [1, 5], [3, 5], [9, 9]], np.float32),  # nothing was done in the last
        actions=[0, 1, 0, 1],
        rewards=[1.0, 2.0, 3.0, 4.0],
        terminated=[False, False, False, True],
        feature_names=("visits", "age"),
    )
    summary = inspect_dataset(ingest(tmp_path / "customers"))
    assert summary.features == (Feature("visits", 2, 1, 1, 3), Feature("age", 5, 0, 5, 5))
    assert summary.to_dict()["features"][1] == {"name": "age", "mean": 5, "deviation": 0, "lowest": 5, "highest": 5}
    shown = [line.split() for line in summary.to_text().splitlines()]
    assert ["visits", "2", "1", "1", "3"] in shown
    assert inspect_dataset(store).features is None  # pixels


def test_returns_that_differ_by_rounding_are_in_one_bin(store, tmp_path):
    returns = 8.0 + np.array([0, 1, 2]) * np.spacing(8.0)
    summary = replace(inspect_dataset(store), returns=returns)
    lines = summary.to_text().splitlines()
    assert lines[lines.index("return, up to     episodes") + 1].split()[1] == "3"
    assert plot_returns(returns, tmp_path / "returns.png").stat().st_size > 0


def test_dictionary_is_ready_for_json(store):
    summary = json.loads(json.dumps(inspect_dataset(store).to_dict()))
    assert summary["action_counts"] == {"left": 3, "right": 0, "jump": 3}
    assert summary["returns"] == [6, 10, -1]
    assert summary["warnings"] == list(inspect_dataset(store).warnings)
    assert "problems" not in summary


def test_equal_rewards_and_one_episode_are_shown_too(tmp_path):
    save_frames(tmp_path, [[episode([0, 0, 0], [0, 1, 2], terminated=False)]], make_spec())
    summary = inspect_dataset(ingest(tmp_path))
    (problem,) = summary.problems
    assert problem.what == "every reward is 0"
    assert summary.mean_return == (0, None, None)
    assert f"warning: every reward is 0; {problem.hint}" in summary.to_text().splitlines()


def test_a_shuffled_log_is_noticed(tmp_path):
    rows = rows_of([make_episode(0, 12, terminated=False)], stack=2)
    np.savez(tmp_path / "log.npz", **stacked_members(rows[::-1]))
    assert any("shuffled" in line for line in inspect_dataset(ingest(tmp_path)).warnings)


def test_a_done_at_every_row_is_in_the_health_check(tmp_path):
    save_stacked(tmp_path, [[make_episode(i, 1) for i in range(4)]], 2)
    with pytest.warns(UserWarning, match="dones is true"):
        store = ingest(tmp_path)
    assert "dones is true in 100%" in inspect_dataset(store).warnings[0]


def test_sample_stacks_belong_to_their_actions(tmp_path):
    save_frames(tmp_path, [[make_episode(0, 30)]], make_spec())
    store = ingest(tmp_path)
    observations, actions = sample_stacks(store, 8, seed=1)
    everything = [(o.tolist(), a) for o, a in zip(store.observations(np.arange(30)), store.actions, strict=True)]
    assert all((o.tolist(), a) in everything for o, a in zip(observations, actions, strict=True))
    assert len({o.tobytes() for o in observations}) > 1
    again, _ = sample_stacks(store, 8, seed=1)
    assert again.tolist() == observations.tolist()


def test_what_a_strategy_draws_by_hand(store):
    # The best of three episodes has one transition, of action 0 and return 10.
    best = inspect_dataset(store, "top-returns:0.3").drawn
    assert (best.sampling, best.share, best.effective, best.mean_return) == ("top-returns:0.3", 1 / 6, 1.0, 10.0)
    assert best.action_shares.tolist() == [1, 0, 0]
    # Two thirds: episodes of 1 and 3 transitions with returns 10 and 6.
    two = inspect_dataset(store, "top-returns:0.6").drawn
    assert (two.share, two.effective, two.mean_return) == (4 / 6, 4.0, pytest.approx(28 / 4))
    assert two.action_shares.tolist() == [3 / 4, 0, 1 / 4]
    assert inspect_dataset(store).drawn is None


def test_what_a_strategy_draws_is_shown_beside_the_data(store):
    summary = inspect_dataset(store, "top-returns:0.6")
    lines = summary.to_text().splitlines()
    start = lines.index("top-returns:0.6 draws from 66.7% of the transitions, as varied as 4 drawn equally often")
    assert lines[start + 1 : start + 6] == [
        "mean return of their episodes 7.0",
        "action                       in the data     drawn",
        "  0 left                          50.0%     75.0%",
        "  1 right                          0.0%      0.0%",
        "  2 jump                          50.0%     25.0%",
    ]
    drawn = json.loads(json.dumps(summary.to_dict()))["drawn"]
    assert drawn["action_shares"] == {"left": 0.75, "right": 0, "jump": 0.25}


def test_a_summary_made_by_hand_is_ready_for_json():
    summary = DatasetSummary(
        num_transitions=4,
        num_episodes=2,
        num_frames=6,
        returns=np.array([1.0, 3.0]),
        lengths=np.array([1, 3]),
        action_names=("left", "right"),
        action_counts=np.array([3, 1]),
        num_terminated=1,
        num_truncated=1,
        mean_return=Interval(2.0, 1.0, 3.0),
        largest_rounding_error=0.0,
        problems=(),
        drawn=Drawn("top-returns:0.5", 0.75, 3.0, 3.0, np.array([1.0, 0.0])),
    )
    values = json.loads(json.dumps(summary.to_dict()))
    assert values["action_counts"] == {"left": 3, "right": 1}
    assert values["mean_return"] == {"mean": 2.0, "low": 1.0, "high": 3.0}
    assert values["drawn"]["action_shares"] == {"left": 1.0, "right": 0.0}
    assert "  0 left                          75.0%    100.0%" in summary.to_text().splitlines()
