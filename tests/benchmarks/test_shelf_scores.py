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


def test_scores_of_other_data_or_settings_are_not_taken_over(tmp_path, monkeypatch):
    from benchmarks.scoring import cells, peers

    data = cells.dataset(tmp_path, "CartPole-v1", "random")
    data.mkdir(parents=True)
    (data / "manifest.json").write_text("{}")
    cell = cells.Cell("CartPole-v1", "random", "cql", 0, 9)
    [theirs] = peers.peer_cells(["CartPole-v1"], ["random"], ["bc"], 1, 9, ["ours"])
    save_score(cell.directory(tmp_path) / "score.json", 7.0, 1)
    save_score(theirs.path(tmp_path), 8.0, 1)
    assert (cell.score(tmp_path)["score"], theirs.score(tmp_path)["score"]) == (7.0, 8.0)
    assert cell._replace(device="cuda").score(tmp_path) is None
    with monkeypatch.context() as changed:
        changed.setitem(cells.LEARNER, "learning_rate", 1.0)
        assert (cell.score(tmp_path), theirs.score(tmp_path)) == (None, None)
    (data / "manifest.json").write_text('{"another": 1}')
    assert (cell.score(tmp_path), theirs.score(tmp_path)) == (None, None)


def test_a_cell_that_was_interrupted_goes_on_to_the_same_score_and_knows_no_time(tmp_path, monkeypatch):
    from dataclasses import replace
    from functools import partial

    import offrl
    from benchmarks.scoring import cells
    from offrl import envs
    from offrl.collection import collect

    monkeypatch.setattr(cells, "SEEDS", cells.SEEDS[:3])
    make_env = partial(envs.make, "CartPole-v1")
    data = cells.dataset(tmp_path, "CartPole-v1", "random")
    collect(make_env, envs.RandomBehaviour(), data, transitions=300, workers=1, progress=False)
    cell = cells.Cell("CartPole-v1", "random", "dqn", 0, 40)
    cells.run(tmp_path, cell)
    whole = cell.score(tmp_path)
    (cell.directory(tmp_path) / "score.json").unlink()
    fit = offrl.fit

    def interrupted(model, replay, config, **others):
        fit(model, replay, replace(config, updates=20), **others)
        raise KeyboardInterrupt

    with monkeypatch.context() as changed:
        changed.setattr(offrl, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cells.run(tmp_path, cell)
    cells.run(tmp_path, cell)
    again = cell.score(tmp_path)
    assert whole["cpu_seconds"] > 0
    assert again == {**whole, "cpu_seconds": None}


def test_pixels_are_refused_before_other_libraries_are_installed():
    from benchmarks.scoring import peers

    with pytest.raises(peers.PeerError, match="CarRacing-v3 has pixels; --peers compares on vectors only"):
        peers.prepare(["CarRacing-v3"])


def test_a_device_that_is_not_here_is_one_line_before_anything_is_made(tmp_path):
    from click.testing import CliRunner

    from benchmarks.scores import scores

    ended = CliRunner().invoke(scores, ["--device", "meta", "--work", str(tmp_path / "work")])
    assert ended.exit_code == 1
    assert ended.output.startswith("device: 'meta' cannot be used here")
    assert not (tmp_path / "work").exists()


@pytest.fixture(scope="module")
def comparison():
    from benchmarks.scoring import comparison

    return comparison


def test_two_sets_of_runs_are_compared_by_welchs_test(comparison):
    # Both variances are 2, so that t = -10 / sqrt(2) has 2 degrees of freedom, for which p = 1 - t / sqrt(2 + t**2).
    found = comparison.welch([0.0, 2.0], [10.0, 12.0])
    assert found.mean == -10.0
    assert found.p == pytest.approx(1 - 50**0.5 / 52**0.5, abs=1e-12)
    half = 4.302652729911275 * 2**0.5
    assert (found.low, found.high) == pytest.approx((-10 - half, -10 + half), abs=1e-9)
    # One side does not vary: 1 degree of freedom, whose distribution is Cauchy's, p = 1 - 2 / pi * atan(t).
    found = comparison.welch([3.0, 3.0, 3.0], [1.0, 2.0])
    assert found.p == pytest.approx(1 - 2 / np.pi * np.arctan(1.5 / 0.5), abs=1e-12)


def test_runs_that_do_not_vary_or_are_too_few_are_no_division_by_zero(comparison):
    assert comparison.welch([500.0] * 3, [500.0] * 3) == (0.0, 0.0, 0.0, 1.0)
    assert comparison.welch([500.0] * 3, [400.0] * 3) == (100.0, 100.0, 100.0, 0.0)
    assert comparison.welch([500.0], [400.0, 300.0]) == (150.0, None, None, None)


def test_p_values_are_corrected_for_their_number_by_holm(comparison):
    assert comparison.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3 * 0.01, 2 * 0.03, then no less
    assert comparison.holm([0.6, 0.5]) == [1.0, 1.0]
    assert comparison.holm([]) == []


def save_score(path, score, seconds):
    found = {"score": score, "cpu_seconds": seconds, "versions": {"d3rlpy": "2.8.1"}}
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(found))


def test_each_cell_is_ours_minus_theirs(tmp_path):
    from benchmarks.scoring import cells, peers

    for kind in ("random", "expert"):
        cells.dataset(tmp_path, "CartPole-v1", kind).mkdir(parents=True)
        (cells.dataset(tmp_path, "CartPole-v1", kind) / "manifest.json").write_text("{}")
    ours = [cells.Cell("CartPole-v1", kind, "cql", seed, 9) for seed in range(2) for kind in ("random", "expert")]
    theirs = peers.peer_cells(["CartPole-v1"], ["random", "expert"], ["cql"], 2, 9, ["ours"])
    assert [cell.library for cell in theirs] == ["d3rlpy", "Tianshou"] * 4
    for cell in ours:
        save_score(cell.directory(tmp_path) / "score.json", 100.0 + 2 * cell.seed, 10)
    for cell in theirs:
        if cell.library == "d3rlpy":  # the other one was not run
            save_score(cell.path(tmp_path), (110 if cell.kind == "random" else 100) + 2.0 * cell.seed, 30)
    found = peers.compare(tmp_path, ours, theirs)
    assert list(found) == ["d3rlpy"]
    row = found["d3rlpy"]["ours"]["cql"]
    assert (row["time_over_ours"], row["versions"]) == (3.0, {"d3rlpy": "2.8.1"})
    random, expert = row["cells"]["CartPole-v1/random"], row["cells"]["CartPole-v1/expert"]
    assert random["runs"] == [110.0, 112.0]
    assert random["ours_minus_theirs"]["mean"] == -10.0
    assert random["p_holm"] == pytest.approx(2 * (1 - 50**0.5 / 52**0.5))
    assert (expert["ours_minus_theirs"]["mean"], expert["p_holm"]) == (0.0, 1.0)
    peers.show(found)
    [worse] = peers.below(found, "ours")  # p is 0.04 after the correction
    assert (worse.library, worse.algorithm, worse.dataset) == ("d3rlpy", "cql", "CartPole-v1/random")
    random["p_holm"], expert["p_holm"] = 0.06, 0.04  # the one is not significant, the other no worse
    assert peers.below(found, "ours") == []


def test_other_libraries_learn_from_the_episodes_that_ours_learn_from_and_play_the_same_ones(tmp_path):
    from functools import partial

    from benchmarks.peers import cell
    from benchmarks.scoring import cells, peers
    from offrl import envs, evaluate, open_replay
    from offrl.collection import collect

    make_env = partial(envs.make, "CartPole-v1")
    data = cells.dataset(tmp_path, "CartPole-v1", "random")
    collect(make_env, envs.RandomBehaviour(), data, transitions=300, workers=1, progress=False)
    replay = open_replay(data, progress=False, **cells.REPLAY)
    with np.load(peers.arrays(tmp_path, "CartPole-v1", "random")) as found:
        assert len(found["actions"]) == len(replay) < len(replay.store)
        assert len(found["ends"]) == len(np.unique(replay.store.segment_end[replay._subset]))
        assert found["terminated"][found["ends"][:-1]].all()  # all but what was cut at the end of the data
        batch = replay.gather([0, 7])
        assert np.array_equal(found["next_observations"][[0, 7]], batch.next_observation)

    class LeftAndRight:
        """Pushes where the pole leans to."""

        def act(self, observation):
            return int(observation[2] > 0)

    def policy(observations):
        return (observations[:, 2] > 0).astype(np.int64)

    seeds = range(2_003_000, 2_003_005)
    ours = evaluate(policy, make_env, seeds, workers=0, progress=False).scores
    assert tuple(cell.play(LeftAndRight(), "CartPole-v1", seeds)) == ours


def test_the_result_is_a_table(hooks, tmp_path):
    cell = {"mean": 9.5, "interval_95": [9.0, 10.0], "runs": [9.0, 10.0]}
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    row = {"cells": {"CartPole-v1/expert": cell}, "cpu_seconds_per_run": 12.3, "interquartile_mean": estimate}
    found = {
        "command": "c",
        "environment": "CartPole-v1",
        "datasets": {
            "CartPole-v1/expert": {
                "mean_return": 499.0,
                "tq": 0.98,
                "saco": 0.05,
                "random_return": 20.0,
                "best_return": 500.0,
            }
        },
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
    assert "Ours minus" not in drawn_of(hooks, tmp_path, found)
    difference = {"mean": 2.0, "low": 1.0, "high": 3.0, "p": 0.01}
    peer = {
        "cells": {"CartPole-v1/expert": {"ours_minus_theirs": difference, "p_holm": 0.02}},
        "time_over_ours": 1.5,
    }
    single = {"CartPole-v1/expert": {"ours_minus_theirs": {"mean": -2.0, "low": None, "high": None, "p": None}}}
    found["peers"] = {"d3rlpy": {"ours": {"cql": peer, "bc": {**peer, "cells": single}}}}
    found["rliable"] = {"version": "1.2.0", "aggregates": 3, "largest_difference": 1.1e-16}
    drawn = drawn_of(hooks, tmp_path, found)
    assert "### CartPole-v1, beside other libraries" in drawn
    assert "| algorithm | expert | interquartile mean | better than BC | seconds of one core |" in drawn
    assert "| *mean of the data* | 499.0 |" in drawn
    assert "| *SACo* | 0.05 |" in drawn
    assert "| bc | 9.5 (9.0 to 10.0) | 0.50 (0.40 to 0.60) |  | 12 |" in drawn
    assert "| cql | 9.5 (9.0 to 10.0) | 0.50 (0.40 to 0.60) | 0.50 (0.40 to 0.60) | 12 |" in drawn
    assert "Random actions return 20.0, the best online policy 500.0." in drawn
    assert "With ours, offrl is below another library in none of them." in drawn
    assert "2 training runs a cell, 20,000 updates each" in drawn
    assert "100 episodes a run" in drawn
    assert "Ours minus d3rlpy's, with our learning rate, discount, network and target rule:" in drawn
    assert "| expert | +2.0* (+1.0 to +3.0) | -2.0 |" in drawn
    assert "| its seconds of one core over ours | 1.50 | 1.50 |" in drawn
    (tmp_path / "scores" / "CartPole-v1.json").write_text(json.dumps({k: v for k, v in found.items() if k != "peers"}))
    assert hooks.shelf().count("| bc | 9.5 (9.0 to 10.0)") == 1  # of the same runs, once
    assert "rliable 1.2.0 computes the same 3 aggregates, with a largest difference of 1e-16." in drawn


def test_algorithms_that_every_environment_has_are_summed_up_over_all(hooks, tmp_path, monkeypatch):
    from benchmarks import scores

    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}

    def result(environment, returns, best):
        cell = {"mean": 0.0, "interval_95": None, "runs": returns}
        row = {"cells": {f"{environment}/mixed": cell}, "cpu_seconds_per_run": 1.0, "interquartile_mean": estimate}
        algorithms = {"bc": row} | ({} if environment == "CartPole-v1" else {"iql": row})
        about = {"mean_return": 1.0, "tq": 0.5, "saco": 1.0, "random_return": 100.0, "best_return": best}
        about_all = {"datasets": {f"{environment}/mixed": about}, "algorithms": algorithms, "environment": environment}
        sizes = {"runs": 2, "updates": 1, "transitions": 1, "batch_size": 1, "evaluation_seeds": [0, 0], "command": "c"}
        sizes["device"] = "cpu"
        machine = {"processor": "", "cores": 1, "python": "", "gpu": None, "versions": {}}
        return {**about_all, **sizes, "machine": machine}

    # Both of the first at 0.5, both of the second that count at 1: 0.5, 0.5, 1, 1 without a quarter at each end.
    # Another algorithm than BC has no number where an environment lacks it.
    (tmp_path / "scores").mkdir()
    for found in (result("CartPole-v1", [150.0, 150.0], 200.0), result("LunarLander-v3", [300.0, 300.0, 0.0], 300.0)):
        (tmp_path / "scores" / f"{found['environment']}.json").write_text(json.dumps(found))
    monkeypatch.setattr(scores, "RESULTS", tmp_path / "scores")
    scores.write_over_all(check_with_rliable=False)
    assert (tmp_path / "scores" / "all.png").exists()
    _, over_all = hooks.shelf().split("### All environments")
    assert "| bc | 0.75 (0.75 to 0.75) |  |" in over_all
    assert "iql" not in over_all


def drawn_of(hooks, tmp_path, found):
    (tmp_path / "scores").mkdir(exist_ok=True)
    (tmp_path / "scores" / "CartPole-v1-peers.json").write_text(json.dumps(found))
    return hooks.shelf()
