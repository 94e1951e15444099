"""Thresholds of trained policies; in a file of its own, since worker processes import the other with its toys."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from offrl import DiscreteBCQ, DiscreteBCQConfig, OnnxPolicy, TaskSpec, TorchPolicy, evaluate, export_onnx
from offrl.errors import ConfigError
from offrl.evaluation import sweep_thresholds


class Sights(gymnasium.Env):
    """Ten random observations; the reward names the action among the other rewards."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self._observation(), {}

    def step(self, action):
        self._steps += 1
        return self._observation(), float(action * 3 ** (self._steps - 1)), False, self._steps == 10, {}

    def _observation(self):
        return self.np_random.standard_normal(3, dtype=np.float32)


def choosy_bcq(threshold):
    """BCQ whose logits differ enough for every threshold to rule other actions out."""
    algorithm = DiscreteBCQ(TaskSpec.vector(3, ("a", "b", "c")), DiscreteBCQConfig(threshold), seed=3)
    with torch.no_grad():
        algorithm.imitation_head.output.weight.mul_(12)
    return algorithm


@pytest.mark.parametrize("contract", ["float", "uint8"])
def test_a_sweep_of_a_file_is_that_of_its_algorithm_and_its_rows_are_single_evaluations(tmp_path, contract):
    algorithm = choosy_bcq(0.6)
    path = export_onnx(algorithm, tmp_path / "m.onnx", contract=contract)
    thresholds = [0.0, 0.1, 0.3, 0.6, 0.9]
    play = partial(sweep_thresholds, thresholds=thresholds, make_env=Sights, seeds=range(8), workers=0)
    found, expected = play(OnnxPolicy(path, epsilon=0.1)), play(TorchPolicy(algorithm, epsilon=0.1))
    assert found == expected
    assert found.baseline == 0.6
    assert len({each.scores for each in found.evaluations.values()}) == 5  # each threshold has a say of its own
    for threshold, row in found.evaluations.items():
        assert row == evaluate(OnnxPolicy(path, threshold=threshold, epsilon=0.1), Sights, range(8), workers=0)
    assert play(OnnxPolicy(path)).evaluations[0.6] == evaluate(OnnxPolicy(path), Sights, range(8), workers=0)


def test_a_file_without_logits_has_no_other_threshold(tmp_path):
    path = export_onnx(choosy_bcq(0.0), tmp_path / "m.onnx", contract="float")
    assert OnnxPolicy(path).threshold == 0
    with pytest.raises(
        ConfigError, match=r"OnnxPolicy.threshold: 0.3 for .*m.onnx, which was exported with threshold 0"
    ):
        sweep_thresholds(OnnxPolicy(path), [0.0, 0.3], Sights, workers=0)


def test_thresholds_that_six_digits_do_not_tell_apart_have_an_entry_each():
    policy = TorchPolicy(choosy_bcq(0.3))
    sweep = sweep_thresholds(policy, [0.3, 0.3000001, 0.1], Sights, [1, 2], workers=0)
    assert list(sweep.to_dict()["policies"]) == ["threshold 0.3", "threshold 0.3000001", "threshold 0.1"]
    assert [line.split()[0] for line in sweep.to_text().splitlines()[1:4]] == ["0.3", "0.3000001", "0.1"]
