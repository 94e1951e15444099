from functools import partial

import numpy as np
import pytest
import torch

from offrl import DiscreteBCQ, DiscreteBCQConfig, TaskSpec, TorchPolicy, envs
from offrl.errors import ConfigError
from offrl.evaluation import Trace, evaluate, trace_episode
from offrl.policies import OnnxPolicy, export_onnx
from offrl.spec import default_action_names

CART_POLE = partial(envs.make, "CartPole-v1")


def policy(threshold):
    spec = TaskSpec.vector(4, default_action_names(2))
    return TorchPolicy(DiscreteBCQ(spec, DiscreteBCQConfig(threshold=threshold), seed=1))


def test_a_trace_is_the_episode_that_evaluation_plays():
    acting = policy(0.3)
    trace = trace_episode(acting, CART_POLE, seed=7)
    played = evaluate(acting, CART_POLE, [7], workers=0)
    assert (trace.score, len(trace.actions)) == (played.scores[0], played.lengths[0])
    assert trace.scores.shape == trace.allowed.shape == (len(trace.actions), 2)


def test_a_trace_explains_every_action():
    trace = trace_episode(policy(0.9), CART_POLE, seed=7)
    best_allowed = np.where(trace.allowed, trace.scores, -np.inf).argmax(axis=1)
    assert trace.actions.tolist() == best_allowed.tolist()
    assert trace_episode(policy(0.0), CART_POLE, seed=7).allowed.all()


def test_the_first_scores_are_those_of_the_first_observation():
    acting = policy(0.3)
    env = CART_POLE()
    observation, _ = env.reset(seed=3)
    with torch.inference_mode():
        expected = acting.algorithm(torch.from_numpy(observation[None])).scores[0].numpy()
    np.testing.assert_array_equal(trace_episode(acting, CART_POLE, seed=3).scores[0], expected)


def test_max_steps_ends_the_trace_early():
    whole, start = (trace_episode(policy(0.3), CART_POLE, seed=7, max_steps=steps) for steps in (None, 4))
    assert len(start.actions) == len(start.scores) == 4
    assert start.actions.tolist() == whole.actions[:4].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_steps": 0}, "seed=7, max_steps=0; expected a seed of 0 or more; 1 or more steps, or None for all"),
        ({"max_steps": 2.5}, "seed=7, max_steps=2.5"),
        ({"seed": None}, "seed=None, max_steps=None"),
        ({"make_env": "CartPole-v1"}, "make_env is 'CartPole-v1'; expected a function"),
        ({"policy": policy(0.3).algorithm}, "DiscreteBCQ is an algorithm; expected a policy"),
    ],
)
def test_what_makes_no_trace_is_one_line(arguments, message):
    given = {"policy": policy(0.3), "make_env": CART_POLE, "seed": 7, **arguments}
    with pytest.raises(ConfigError, match=f"^trace_episode: {message}"):
        trace_episode(**given)


def test_the_trace_of_an_onnx_file_is_that_of_its_network(tmp_path):
    acting = policy(0.3)
    with torch.no_grad():
        acting.algorithm.imitation_head.output.bias.copy_(torch.tensor([9.0, 0.0]))  # action 0 is the only likely one
    file = OnnxPolicy(export_onnx(acting.algorithm, tmp_path / "m.onnx", contract="float"))
    ours, theirs = (trace_episode(each, CART_POLE, seed=7) for each in (acting, file))
    assert ours.actions.tolist() == theirs.actions.tolist() == [0] * len(ours.actions)
    assert ours.allowed.tolist() == theirs.allowed.tolist() == [[True, False]] * len(ours.actions)
    np.testing.assert_allclose(theirs.scores, ours.scores, rtol=1e-4, atol=1e-6)


def test_the_score_of_a_trace_is_its_undiscounted_return():
    scores = np.array([[1.0, 2.0], [4.0, 3.0], [0.0, 5.0]], np.float32)
    trace = Trace(scores, np.ones((3, 2), bool), np.array([1, 0, 1]), np.array([2.0, -0.5, 10.0]))
    assert trace.score == 11.5


def test_a_trace_says_when_a_step_is_done():
    steps = []
    trace = trace_episode(policy(0.3), CART_POLE, seed=7, on_step=lambda: steps.append(1))
    assert len(steps) == len(trace.actions)
