import pickle
import subprocess
import sys
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from offrl.algorithms import DiscreteBCQ, DiscreteBCQConfig
from offrl.envs import ExactGrayStack, GrayStack, car_racing
from offrl.envs.seeds import episode_rng
from offrl.errors import ExportError, SpecMismatchError, UnknownEnvironmentError
from offrl.evaluation import grader
from offrl.networks import CompactEncoder
from offrl.policies import TorchPolicy, export_onnx


def naive_action(q, logits):
    """The rule for one observation, as one would write it down."""
    odds = np.exp(logits - logits.max())
    probability = odds / odds.sum()
    allowed = [a for a in range(len(q)) if probability[a] / probability.max() > 0.3]
    return max(allowed, key=lambda action: q[action])


def test_the_rule_is_the_naive_one():
    rng = np.random.default_rng(0)
    q, logits = rng.normal(size=(500, 25)), 2 * rng.normal(size=(500, 25))
    expected = [naive_action(*row) for row in zip(q, logits, strict=True)]
    assert grader.grader_actions(torch.tensor(q), torch.tensor(logits)).tolist() == expected
    assert (q.argmax(axis=1) != expected).any()  # the threshold had a say


def test_the_rule_by_hand():
    logits = torch.log(torch.tensor([[0.60, 0.17, 0.23], [0.50, 0.25, 0.25]]))
    q = torch.tensor([[1.0, 99.0, 2.0], [1.0, 99.0, 100.0]])
    assert grader.grader_actions(q, logits).tolist() == [2, 2]  # 0.17 / 0.60 is below 0.3, 0.23 / 0.60 is not


class Colours(gymnasium.Env):
    """Frames of one colour each."""

    observation_space = spaces.Box(0, 255, (2, 3, 3), np.uint8)
    action_space = spaces.Discrete(2)
    colours = ((255, 0, 0), (10, 20, 30), (0, 0, 255))

    def reset(self, *, seed=None, options=None):
        self.shown = 0
        return np.full((2, 3, 3), self.colours[0], np.uint8), {}

    def step(self, action):
        self.shown += 1
        return np.full((2, 3, 3), self.colours[self.shown], np.uint8), 0.0, False, False, {}


def test_gray_is_not_rounded():
    env = ExactGrayStack(GrayStack(Colours()), stack=2)
    first, _ = env.reset(seed=0)
    second, *_ = env.step(0)
    third, *_ = env.step(0)
    red, mixed, blue = 76.245 / 128 - 1, (2.99 + 11.74 + 3.42) / 128 - 1, 29.07 / 128 - 1
    assert first.dtype == np.float32
    assert first.shape == env.observation_space.shape == (2, 2, 3)
    for observation, expected in ((first, (red, red)), (second, (red, mixed)), (third, (mixed, blue))):
        np.testing.assert_allclose(observation[:, 0, 0], expected, rtol=0, atol=6e-8)
        assert (observation == observation[:, :1, :1]).all()


def test_frames_in_colour_are_needed():
    class Gray(Colours):
        observation_space = spaces.Box(0, 255, (2, 3), np.uint8)

        def reset(self, *, seed=None, options=None):
            return np.zeros((2, 3), np.uint8), {}

    with pytest.raises(UnknownEnvironmentError, match=r'ExactGrayStack: no info\["rgb"\]'):
        ExactGrayStack(GrayStack(Gray())).reset(seed=0)


def peaked_bcq(hud="visible", threshold=0.6):
    """BCQ whose logits differ enough for the threshold to rule actions out."""
    spec = car_racing.spec(hud)
    algorithm = DiscreteBCQ(spec, DiscreteBCQConfig(threshold), encoder=CompactEncoder, seed=1)
    with torch.no_grad():
        algorithm.imitation_head.output.weight.mul_(30)
    return algorithm


def test_in_the_graders_hands_a_policy_acts_by_its_own_threshold(tmp_path):
    algorithm = peaked_bcq()
    policy = grader.GraderPolicy(export_onnx(algorithm, tmp_path / "m.onnx", contract="float"))
    raw = np.random.default_rng(0).integers(0, 256, (40, 4, 96, 96), dtype=np.uint8)
    actions = policy(raw / np.float32(128) - np.float32(1)).tolist()
    assert actions == TorchPolicy(algorithm)(raw).tolist()
    assert actions != TorchPolicy(algorithm, threshold=0.3)(raw).tolist()


def naive_score(session, seed, num_steps, epsilon):
    """An episode by the grader's rule with nothing of offrl but the table of actions and the seeds of epsilon."""
    env = gymnasium.make("CarRacing-v3", max_episode_steps=num_steps)
    frame, _ = env.reset(seed=seed)
    rng = episode_rng(seed)
    frames, score, ended = [frame] * 4, 0.0, False
    while not ended:
        gray = [0.299 * f[..., 0] + 0.587 * f[..., 1] + 0.114 * f[..., 2] for f in frames[-4:]]
        q, logits = session.run(["q", "logits"], {"observation": (np.array([gray]) / 128 - 1).astype(np.float32)})
        action = rng.integers(25) if rng.random() < epsilon else naive_action(q[0], logits[0])
        frame, reward, terminated, truncated, _ = env.step(car_racing.ACTION_TABLE[action])
        frames.append(frame)
        score, ended = score + float(reward), terminated or truncated
    env.close()
    return score


def test_a_grade_is_that_of_a_naive_loop(tmp_path, monkeypatch):
    pytest.importorskip("Box2D")
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(car_racing, "make", partial(car_racing.make, max_episode_steps=40))
    monkeypatch.setattr(grader, "EPSILON", 0.2)
    algorithm = peaked_bcq()
    path = export_onnx(algorithm, tmp_path / "m.onnx", contract="float")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    seeds = [11, 12]
    graded = grader.grade(path, seeds, workers=0)
    assert graded.scores == tuple(naive_score(session, seed, 40, 0.2) for seed in seeds)
    assert graded.lengths == (40, 40)
    assert grader.grade(algorithm, seeds, workers=0) == graded


def test_what_plays_for_the_grader_loads_no_torch(tmp_path, monkeypatch):
    """A worker process that did would take seconds longer to start, and 200 MB more."""
    sent = []
    monkeypatch.setattr(grader, "evaluate", lambda policy, make_env, *rest, **settings: sent.append(make_env))
    grader.grade(export_onnx(peaked_bcq(), tmp_path / "m.onnx", contract="float"))
    code = f"import pickle, sys; pickle.loads({pickle.dumps(sent[0])!r}); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("hud", "contract", "error", "message"),
    [
        ("visible", "uint8", ExportError, "m.onnx: a file of the uint8 contract, .* --contract float"),
        ("hidden", "float", SpecMismatchError, "m.onnx: hud is hidden; expected visible; the grader plays"),
    ],
)
def test_files_that_the_grader_does_not_take(tmp_path, hud, contract, error, message):
    path = export_onnx(peaked_bcq(hud), tmp_path / "m.onnx", contract=contract)
    with pytest.raises(error, match=message):
        grader.grade(path)


def test_an_algorithm_of_another_task_is_refused():
    with pytest.raises(SpecMismatchError, match="bcq: hud is hidden; expected visible"):
        grader.grade(peaked_bcq("hidden"))
