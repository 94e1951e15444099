import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from benchmarks import demo_runs
from benchmarks.demo_runs import _write
from benchmarks.driving import Recipe, Run, Study, Tracks
from benchmarks.laps import points_lost, summary
from benchmarks.readme import beside_expert, example_updated, headline
from benchmarks.ship import halve_weights, ship
from offrl import OnnxPolicy, TaskSpec, export_onnx
from offrl.algorithms import DiscreteBCQ
from offrl.envs import SCORE_SEEDS
from offrl.networks import MLPEncoder
from offrl.policies._onnx_seal import sealed


def episode(score, finished, length=700):
    return {"score": score, "finished": finished, "length": length}


def evaluation(*episodes):
    mean = float(np.mean([each["score"] for each in episodes]))
    episodes = [{"seed": number, **each} for number, each in enumerate(episodes)]
    finished = sum(each["finished"] for each in episodes)
    return {"mean": mean, "finished": finished, "mean_length": 800.0, "per_episode": episodes}


RUNS = {
    0: evaluation(episode(930.0, True, 700), episode(890.0, False, 1000)),  # a lap, and one that misses three tiles
    1: evaluation(episode(920.0, True, 800), episode(300.0, False, 400)),  # a lap, and off the road
}


def test_a_score_is_over_runs_and_says_where_it_is_lost():
    found = summary(RUNS)
    # (910 + 610) / 2; standard deviation 212.13, times 12.706 / sqrt(2) is 1905.9.
    assert found["mean"] == 760.0
    assert found["t_interval_95"] == pytest.approx([760 - 1905.9, 760 + 1905.9], abs=0.1)
    assert (found["lowest"], found["highest"]) == (610.0, 910.0)
    assert [found[name] for name in ("laps_with_every_tile", "laps_that_miss_one_to_three_tiles", "others")] == [
        2,
        1,
        1,
    ]
    assert found["steps_of_finished_laps"] == 750
    # Laps with every tile score 925: of four episodes one loses 35 and another one 625.
    assert points_lost(found) == [(1, 35 / 4), (1, 625 / 4)]
    assert points_lost(found, (900, 300)) == [(0, 0), (2, 660 / 4), (0, 0)]
    assert points_lost(summary({0: evaluation(episode(890.0, False, 1000))})) is None


def test_a_recipe_is_the_example_but_for_what_it_changes():
    demo = Recipe.of_size("demo", learner={"precision": "fp32"})
    assert (demo.transitions, demo.updates, demo.replay_settings()["n_step"]) == (60_000, 8_000, 3)
    longer = Recipe(replay={"discount": 0.995}, learner={"precision": "fp32"})
    assert longer.replay_settings() == {**demo.replay_settings(), "discount": 0.995}
    config = longer.learner_config()
    assert (config.schedule, config.threads, config.compile, config.precision) == ("cosine", 1, "off", "fp32")
    sizes = {"transitions": 60_000, "updates": 8_000, "batch_size": 64, "n_step": 3, "discount": 0.995}
    assert longer.sizes() == {**sizes, "held_out": 0.0}


def test_runs_that_were_trained_differently_lie_apart(tmp_path):
    ways = [
        Recipe(),
        Recipe(updates=5_000),
        Recipe(transitions=200_000),
        Recipe(batch_size=256),
        Recipe(encoder="compact"),
        Recipe(algorithm="cql"),
        Recipe(replay={"discount": 0.9}),
        Recipe(learner={"augment_shift": 1}),
        Recipe(settings={"threshold": 0.1}),
    ]
    assert len({Run(tmp_path, recipe, 0).directory for recipe in ways}) == len(ways)
    assert Run(tmp_path, Recipe(), 0).directory == Run(tmp_path, Recipe.of_size("demo"), 0).directory
    assert Run(tmp_path, Recipe(), 0).directory != Run(tmp_path, Recipe(), 1).directory


def test_a_run_counts_as_driven_on_its_tracks_only(tmp_path):
    tracks = Tracks("SCORE_SEEDS", 0, 2)
    study = Study({"demo": Recipe()}, 3, tracks, tmp_path)
    assert study.evaluations() == {}
    path = Run(tmp_path, Recipe(), 1).evaluation_path(tracks)
    path.parent.mkdir()
    path.write_text('{"mean": 900.0}')
    assert study.evaluations() == {"demo": {1: {"mean": 900.0}}}
    tuning = Tracks("TUNING_SEEDS", 1000, 2)
    assert Study({"demo": Recipe()}, 3, tuning, tmp_path).evaluations() == {}
    assert [*tuning.range] == [1_001_000, 1_001_001]
    assert (str(tracks), str(tuning)) == ("SCORE_SEEDS[:2]", "TUNING_SEEDS[1000:1002]")


def test_one_run_is_a_headline_without_an_interval(tmp_path):
    (tmp_path / "demo").mkdir()
    runs = {"transitions": 60_000, "updates": 4_000, "algorithms": {"bcq": summary({0: RUNS[0]})}}
    (tmp_path / "demo" / "runs.json").write_text(json.dumps(runs))
    (tmp_path / "demo" / "evaluation.json").write_text(json.dumps({"dataset": {"mean": 477.0}}))
    assert "910 in the best (1 seed: too few for an interval)" in headline(tmp_path)


def test_the_headline_is_the_mean_over_runs(tmp_path):
    (tmp_path / "demo").mkdir()
    runs = {"transitions": 60_000, "updates": 4_000, "algorithms": {"bcq": summary(RUNS)}}
    (tmp_path / "demo" / "runs.json").write_text(json.dumps(runs))
    (tmp_path / "demo" / "evaluation.json").write_text(json.dumps({"dataset": {"mean": 477.0}}))
    text = headline(tmp_path)
    assert "over **two training runs** on the same 2 tracks: **BCQ 760** on average, 610 in the worst" in text
    assert text.endswith("2 of 4 laps without a missed tile. The data: 477.\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "runs.json").write_text(json.dumps({**runs, "updates": 50_000}))
    longer = "With `ARGS=--full` (60,000 transitions, 50,000 updates) two runs score 610 to 910."
    assert headline(tmp_path).endswith(f"The data: 477. {longer}\n")


def test_the_example_names_the_runs_on_its_own_tracks(tmp_path):
    (tmp_path / "demo").mkdir()
    drawn = SCORE_SEEDS[:20]
    driven = {
        seed: evaluation(*({**episode(score, True), "seed": track} for track in drawn), elsewhere(10.0))
        for seed, score in enumerate((910.0, 890.0))
    }
    (tmp_path / "demo" / "runs.json").write_text(json.dumps({"algorithms": {"bcq": summary(driven)}}))
    assert example_updated("OVER_RUNS: dict = {}\n", tmp_path) == 'OVER_RUNS: dict = {"demo": (2, 890, 910)}\n'


def elsewhere(score):
    return {**episode(score, True), "seed": SCORE_SEEDS[50]}


def test_runs_of_other_machines_stay_in_the_result(tmp_path, monkeypatch):
    tracks = Tracks("SCORE_SEEDS", 0, 2)
    study = Study({"bcq": Recipe()}, 2, tracks, tmp_path / "work")
    path = Run(tmp_path / "work", Recipe(), 0).evaluation_path(tracks)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(RUNS[0]))
    target = tmp_path / "runs.json"
    (row,) = _write(target, study, "c").values()
    (here,) = row["per_run"]
    kept = json.loads(target.read_text())
    kept["algorithms"]["bcq"]["per_run"] = {"0, Xeon, fp32": RUNS[1], here: RUNS[1]}
    target.write_text(json.dumps(kept))
    (row,) = _write(target, study, "c").values()
    assert {name: run["mean"] for name, run in row["per_run"].items()} == {"0, Xeon, fp32": 610.0, here: 910.0}
    for group, setting in (("replay", "discount"), ("learner", "learning_rate"), ("learner", "polyak")):
        other = json.loads(json.dumps(kept))
        other["algorithms"]["bcq"][group][setting] = 0.5  # of another recipe
        target.write_text(json.dumps(other))
        (row,) = _write(target, study, "c").values()
        assert [*row["per_run"]] == [here]
    kept["algorithms"]["bcq"]["dataset"] = "carracing/bold"
    target.write_text(json.dumps(kept))
    assert [*_write(target, study, "c")["bcq"]["per_run"]] == [here]


def test_runs_stand_beside_the_expert_on_its_tracks_only():
    def driven(seed):
        return {
            0: evaluation({**episode(900.0, True), "seed": seed}),
            1: evaluation({**episode(920.0, True), "seed": seed}),
        }

    expert = {"mean": 925.0, "finished": 1, "episodes": 1, "mean_length": 750.4, "per_episode": [{"seed": 7}]}
    said = beside_expert(expert, {"algorithms": {"bcq": summary(driven(7))}})
    # 25 and 5: mean 15, standard deviation 14.14, times 12.706 / sqrt(2) is 127.1.
    assert (
        "scores 925.0 on the same tracks (1 of 1 laps, 750 steps): BCQ's runs are 15.0 below it (-112.1 to 142.1)"
        in said
    )
    assert beside_expert(expert, {"algorithms": {"bcq": summary(driven(8))}}) == ""
    assert beside_expert(None, {"algorithms": {"bcq": summary(driven(7))}}) == ""
    assert beside_expert(expert, {"algorithms": {}}) == ""


def test_halved_weights_act_alike_in_half_the_size(tmp_path):
    bcq = DiscreteBCQ(TaskSpec.vector(4, ("left", "right", "stay")), encoder=MLPEncoder)
    path = export_onnx(bcq, tmp_path / "whole.onnx", contract="uint8")
    model = onnx.load(path)
    halve_weights(model)
    (tmp_path / "half.onnx").write_bytes(sealed(model))
    assert (tmp_path / "half.onnx").stat().st_size < 0.55 * path.stat().st_size
    observations = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    whole, half = OnnxPolicy(path).choices(observations), OnnxPolicy(tmp_path / "half.onnx").choices(observations)
    assert np.abs(whole.scores.numpy() - half.scores.numpy()).max() < 2e-3  # float16 keeps 11 bits


@pytest.mark.parametrize(("options", "words"), [([], "--tuning"), (["--full"], "--full --tuning")])
def test_without_runs_of_that_size_nothing_is_shipped(monkeypatch, tmp_path, options, words):
    asked = []

    def study(size, algorithms, runs, tracks):
        asked.append(size)
        return Study({"bcq": Recipe()}, 2, tracks, tmp_path)

    monkeypatch.setattr(demo_runs, "study", study)
    ended = CliRunner().invoke(ship, options)
    assert asked == ["full" if options else "demo"]
    assert ended.exit_code == 1
    assert f"no run to ship: python -m benchmarks demo-runs {words} --algorithm bcq makes them" in ended.output
