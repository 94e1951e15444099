import threading
from contextlib import closing
from functools import partial

import pytest

from offrl.algorithms import BC
from offrl.envs import SCORE_SEEDS, TUNING_SEEDS, car_racing, make, task_spec
from offrl.errors import ConfigError, OfflineRLError
from offrl.evaluation import EpisodeEvaluator, evaluate
from offrl.policies import TorchPolicy

CART_POLE = partial(make, "CartPole-v1")


@pytest.fixture(scope="module")
def algorithm():
    with closing(CART_POLE()) as env:
        return BC(task_spec(env))


def test_it_plays_what_evaluate_plays(algorithm):
    evaluator = EpisodeEvaluator(CART_POLE, TUNING_SEEDS[:6], workers=0)
    found = evaluate(TorchPolicy(algorithm), CART_POLE, TUNING_SEEDS[:6], workers=0)
    assert evaluator(algorithm) == {
        "score": found.mean.mean,
        "low": found.mean.low,
        "high": found.mean.high,
        "median": found.median,
        "length": found.mean_length,
    }


def test_few_episodes_have_no_interval(algorithm):
    found = EpisodeEvaluator(CART_POLE, TUNING_SEEDS[:2], workers=0)(algorithm)
    assert found.keys() == {"score", "median", "length"}


def test_it_says_what_was_played():
    assert EpisodeEvaluator(CART_POLE, [5, 6, 9]).settings() == {
        "environment": "CartPole-v1",
        "episodes": 3,
        "first_seed": 5,
        "last_seed": 9,
    }


def test_seeds_that_are_kept_for_scores_are_refused():
    with pytest.raises(ConfigError, match="which is kept for scores, where a setting is chosen"):
        EpisodeEvaluator(CART_POLE, SCORE_SEEDS[:3])


@pytest.mark.parametrize("make_env", ["CartPole-v1", None])
def test_what_makes_no_environments_is_refused_before_training(make_env, algorithm):
    with pytest.raises(
        ConfigError, match=r"EpisodeEvaluator: make_env is .*; pass functools.partial\(offrl.envs.make, ID\)"
    ):
        EpisodeEvaluator(make_env)
    with pytest.raises(ConfigError, match="evaluate: make_env is"):
        evaluate(TorchPolicy(algorithm), make_env, [5], workers=0)


def test_a_run_records_the_environment_whatever_makes_it():
    assert EpisodeEvaluator(partial(car_racing.make, hud="visible"), [5]).settings()["environment"].endswith(".make")
    assert EpisodeEvaluator(car_racing.make, [5]).settings()["environment"] == "offrl.envs.car_racing.make"
    with pytest.raises(ConfigError, match="EpisodeEvaluator: no seeds"):
        EpisodeEvaluator(CART_POLE, [])


def test_what_plays_in_another_thread_can_be_stopped(algorithm):
    plays, asked = threading.Event(), []

    class Watched(EpisodeEvaluator):
        def __call__(self, algorithm):
            with algorithm.register_forward_pre_hook(lambda *_: plays.set()):
                try:
                    asked.append(super().__call__(algorithm))
                except OfflineRLError as error:
                    asked.append(str(error))

    evaluator = Watched(CART_POLE, TUNING_SEEDS[:500_000], workers=0)
    thread = threading.Thread(target=evaluator, args=(algorithm,))
    thread.start()
    plays.wait(60)
    evaluator.stop()
    thread.join()
    assert asked == ["EpisodeEvaluator: stopped"]
    assert "score" in EpisodeEvaluator(CART_POLE, TUNING_SEEDS[:2], workers=0)(algorithm)  # it left nothing behind
