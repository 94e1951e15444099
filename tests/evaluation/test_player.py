"""What a policy is given and draws, whoever plays: evaluate, trace_episode, record_episode."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from offrl import BC, TaskSpec, TorchPolicy, evaluate
from offrl.errors import SpecMismatchError
from offrl.evaluation import Evaluation, trace_episode
from offrl.report import ActionPanel, record_episode, record_episodes

SPEC = TaskSpec.vector(1, ("left", "stay", "right"))


class Spelling(gymnasium.Env):
    """Twelve steps, whose scores spell the actions; `masks[t]` is stated after t steps, where it is not None."""

    observation_space = spaces.Box(0, 20, (1,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, masks=()):
        self.masks = masks

    def _shown(self):
        info = {"rgb": np.zeros((6, 6, 3), np.uint8)}
        if self.num_steps < len(self.masks) and self.masks[self.num_steps] is not None:
            info["action_mask"] = np.array(self.masks[self.num_steps], np.int8)
        return np.array([self.num_steps], np.float32), info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.num_steps = 0
        return self._shown()

    def step(self, action):
        self.num_steps += 1
        observation, info = self._shown()
        return observation, float(action) * 3.0**self.num_steps, False, self.num_steps == 12, info


def even_bc(**spec):
    """BC that takes "right", and finds every action as likely, nearly."""
    algorithm = BC(replace(SPEC, **spec))
    torch.nn.init.zeros_(algorithm.imitation_head.output.weight)
    algorithm.imitation_head.output.bias.data = torch.tensor([0.0, 0.0, 0.01])
    return algorithm


WAYS = pytest.mark.parametrize("how", [{"epsilon": 0.5}, {"stochastic": True}])


@WAYS
def test_random_actions_are_those_of_the_episodes_seed(how):
    policy = TorchPolicy(even_bc(), **how)
    seeds = [5, 3, 8, 3, 9]
    first = evaluate(policy, Spelling, seeds, num_envs=3, workers=0)
    policy(np.zeros((7, 1), np.float32))  # draws of its own are its own affair
    assert evaluate(policy, Spelling, seeds, num_envs=3, workers=0) == first
    assert first.scores[1] == first.scores[3]
    assert len(set(first.scores)) == 4
    assert evaluate(policy, Spelling, seeds[::-1], num_envs=2, workers=0).scores == first.scores[::-1]
    assert evaluate(TorchPolicy(even_bc(), **how, seed=1), Spelling, seeds, workers=0).scores != first.scores


@WAYS
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_the_scores_of_several_ranks_are_those_of_one_process(how, num_ranks):
    alone = evaluate(TorchPolicy(even_bc(), **how), Spelling, range(10), num_envs=4, workers=0)
    shares = [
        evaluate(TorchPolicy(even_bc(), **how), Spelling, range(rank, 10, num_ranks), num_envs=4, workers=0)
        for rank in range(num_ranks)
    ]
    assert Evaluation.of_shares(shares) == alone


@WAYS
def test_a_trace_and_a_film_draw_as_the_evaluation_does(how, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    policy = TorchPolicy(even_bc(), **how)
    (score,) = evaluate(policy, Spelling, [5], workers=0).scores
    assert trace_episode(policy, Spelling, 5).score == score
    assert record_episode(policy, Spelling, 5, tmp_path / "a.mp4").score == score


def test_random_actions_keep_to_the_legal_ones_and_take_all_of_them():
    policy = TorchPolicy(even_bc(action_masks=True), epsilon=1.0)
    trace = trace_episode(policy, lambda: Spelling([(1, 0, 1)] * 12), 5)
    assert set(trace.actions.tolist()) == {0, 2}


def test_greedy_policies_and_functions_are_played_as_they_are():
    seen = []

    class Watched(TorchPolicy):
        def __call__(self, observation, action_mask=None):
            seen.append(self)
            return super().__call__(observation, action_mask)

    policy = Watched(even_bc())
    evaluate(policy, Spelling, [1], workers=0)
    assert set(map(id, seen)) == {id(policy)}
    seen.clear()
    assert evaluate(Watched(even_bc(), epsilon=0.5), Spelling, [1], workers=0).lengths == (12,)
    assert len(seen) == 12  # a copy, of the user's own class


# After a reset "right" is illegal; later steps state nothing, so that all actions are legal there.
LEGAL_AT_FIRST = [(1, 1, 0), None, (0, 1, 0)]
EXPECTED = sum(3.0**step * (1 if step in (1, 3) else 2) for step in range(1, 13))


class Delegating:
    """A policy of a user's around another one, which acts by itself."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, observation, action_mask=None):
        return np.zeros(len(observation), np.int64)


class Left(TorchPolicy):
    """One that has nothing of its base's but the kind."""

    def __init__(self):
        self.spec = SPEC

    def __call__(self, observation, action_mask=None):
        return np.zeros(len(observation), np.int64)


def test_what_acts_by_itself_is_asked_itself():
    for policy in (Delegating(TorchPolicy(even_bc(), epsilon=0.5)), Left()):
        assert evaluate(policy, Spelling, [5, 3], workers=0).scores == (0.0, 0.0)


def test_a_mask_that_is_missing_stands_for_all_actions_whoever_plays(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    policy = TorchPolicy(even_bc(action_masks=True), threshold=0.9)

    def make_env():
        return Spelling(LEGAL_AT_FIRST)

    def panel_of(seed):
        return ActionPanel.of_episode(policy, make_env, seed)

    with torch.no_grad():
        policy.algorithm.imitation_head.output.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    assert evaluate(policy, make_env, [1, 2], workers=0).scores == (EXPECTED, EXPECTED)
    trace = trace_episode(policy, make_env, 1)
    assert trace.score == EXPECTED
    assert np.isneginf(trace.scores).sum(axis=1).tolist() == [1, 0, 2] + [0] * 9
    films = record_episodes(policy, make_env, [1, 2], tmp_path / "a.mp4", panel_of=panel_of, fps=50)
    assert [each.score for each in films] == [EXPECTED, EXPECTED]


def test_an_environment_that_states_no_masks_is_refused_whoever_plays(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    policy = TorchPolicy(even_bc(action_masks=True))
    for play in (
        lambda: evaluate(policy, Spelling, [1, 2], workers=0),
        lambda: trace_episode(policy, Spelling, 1),
        lambda: record_episode(policy, Spelling, 1, tmp_path / "a.mp4"),
    ):
        with pytest.raises(SpecMismatchError, match="policy: no action_mask; expected bool"):
            play()


def test_masks_of_several_lengths_are_refused_whoever_plays(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    policy = TorchPolicy(even_bc(action_masks=True))

    def make_env():
        return Spelling([[1, 1, 1], [1, 1]])

    for play in (
        lambda: evaluate(policy, make_env, [1, 2], workers=0),
        lambda: trace_episode(policy, make_env, 1),
        lambda: record_episode(policy, make_env, 1, tmp_path / "a.mp4"),
    ):
        with pytest.raises(SpecMismatchError, match="an action_mask for 2 actions after one for 3; expected one for"):
            play()


def test_a_policy_may_keep_what_it_is_given():
    kept = []

    def policy(observations):
        kept.append(observations)
        return np.zeros(len(observations), np.int64)

    evaluate(policy, Spelling, [1, 2], num_envs=2, workers=0)
    assert [each.tolist() for each in kept] == [[[t], [t]] for t in range(12)]


class Rounded(Spelling):
    """Integers after a reset, and halves after a step."""

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        return observation.astype(np.int64), info

    def step(self, action):
        observation, *rest = super().step(action)
        return observation + np.float32(0.5), *rest


class Grown(Spelling):
    """One number after a reset, and two after a step."""

    def step(self, action):
        observation, *rest = super().step(action)
        return np.tile(observation, 2), *rest


@pytest.mark.parametrize(
    ("make_env", "change"),
    [(Rounded, r"float32 \[1\] after int64 \[1\]"), (Grown, r"float32 \[2\] after float32 \[1\]")],
)
def test_observations_that_change_their_kind_are_refused(make_env, change):
    with pytest.raises(
        SpecMismatchError, match=rf"the environment's observations: {change}; expected one shape and kind"
    ):
        evaluate(lambda observations: np.zeros(len(observations), np.int64), make_env, [1], workers=0)
