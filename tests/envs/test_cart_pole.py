import numpy as np

from offrl import envs
from offrl.envs import CartPoleDriver, CartPoleMixture


def score(behaviour, seed):
    env = envs.make("CartPole-v1")
    observation, _ = env.reset(seed=seed)
    behaviour.begin(env, np.random.default_rng(seed))
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(behaviour(observation)[0])
        total, ended = total + reward, terminated or truncated
    return total


def test_an_episodes_actions_follow_from_its_generator():
    assert score(CartPoleMixture(), 7) == score(CartPoleMixture(), 7)


def test_the_driver_balances_to_the_end():
    assert score(CartPoleDriver(), 0) == 500


def test_the_mixture_is_mixed():
    scores = [score(CartPoleMixture(), seed) for seed in range(60)]
    assert min(scores) < 30
    assert max(scores) == 500
    assert 100 < np.mean(scores) < 250
