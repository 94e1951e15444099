from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from offrl import DiscreteBCQ, TaskSpec
from offrl.algorithms import Algorithm, PolicyOutput
from offrl.errors import ConfigError, OfflineRLError, SpecMismatchError
from offrl.policies import ActingPolicy, Choices, NetworkPolicy, OnnxPolicy, TorchPolicy, export_onnx
from offrl.policies.choices import Actor, choose_from, explore


class Fixed(Algorithm):
    """Action 1 has the best score and a tenth of the likelihood of action 0."""

    name = "fixed"
    threshold = 0.3

    def __init__(self, spec):
        super().__init__(spec, None)
        self.unused = nn.Parameter(torch.zeros(1))
        self.seen = []

    def loss(self, batch):
        raise AssertionError("a policy needs no loss")

    def forward(self, observation):
        self.seen.append(observation)
        scores = torch.tensor([[1.0, 5.0, 0.0]]).repeat(len(observation), 1)
        return PolicyOutput(scores, torch.log(torch.tensor([[0.7, 0.07, 0.23]])).repeat(len(observation), 1))


PIXELS = TaskSpec.pixels((4, 8, 8), ("left", "right", "stay"))


def test_acts_on_raw_observations_with_the_algorithms_threshold():
    algorithm = Fixed(PIXELS)
    raw = np.full((2, 4, 8, 8), 64, dtype=np.uint8)
    actions = TorchPolicy(algorithm)(raw)
    assert actions.tolist() == [0, 0]
    assert actions.dtype == np.int64
    assert algorithm.seen[0].unique().tolist() == [-0.5]
    assert not algorithm.training


def test_another_threshold_without_training_again():
    assert TorchPolicy(Fixed(PIXELS), threshold=0.05)(np.zeros((1, 4, 8, 8), np.uint8)).tolist() == [1]


def test_read_only_observations_are_welcome():
    raw = np.zeros((1, 4, 8, 8), np.uint8)
    raw.setflags(write=False)
    assert TorchPolicy(Fixed(PIXELS))(raw).tolist() == [0]


def test_epsilon_replaces_its_share_of_the_actions_and_is_seeded():
    actions = np.zeros(20_000, dtype=np.int64)
    explored = explore(actions, 4, 0.2, np.random.default_rng(0))
    # A random action is another one in 3 of 4 cases: 0.15; the standard error is 0.0025.
    assert np.mean(explored != 0) == pytest.approx(0.15, abs=0.01)
    assert np.array_equal(explored, explore(actions, 4, 0.2, np.random.default_rng(0)))
    assert explore(actions, 4, 0.0, np.random.default_rng(0)) is actions


@pytest.mark.parametrize("settings", [{"threshold": 1.0}, {"threshold": -1}, {"epsilon": 1.5}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=rf"TorchPolicy.{next(iter(settings))}: .*expected 0 <="):
        TorchPolicy(Fixed(PIXELS), **settings)


@pytest.mark.parametrize("raw", [np.zeros((1, 4, 9, 8), np.uint8), np.zeros((1, 4, 8, 8), np.float32), np.zeros(4)])
def test_observations_of_another_task_are_refused(raw):
    with pytest.raises(SpecMismatchError, match=r"observation: .*; expected uint8 \[N, 4, 8, 8\]; give the policy raw"):
        TorchPolicy(Fixed(PIXELS))(raw)


def test_a_policy_of_ones_own_needs_no_more_than_what_it_chooses_from():
    class LikesTheLast(ActingPolicy):
        """Likes the last action best, and allows the legal ones."""

        spec = TaskSpec.vector(1, ("left", "right", "stay"))
        _actor = Actor(epsilon=0.0, stochastic=False, seed=0)

        def _choices(self, observation, legal):
            scores = torch.tensor([[1.0, 2.0, 3.0]]).repeat(len(observation), 1)
            allowed = torch.ones(scores.shape, dtype=torch.bool) if legal is None else torch.from_numpy(legal)
            return Choices(scores, allowed, scores)

    observation, legal = np.zeros((2, 1), np.float32), np.array([[1, 1, 1], [1, 1, 0]])
    assert LikesTheLast()(observation).tolist() == [2, 2]
    assert LikesTheLast()(observation, legal).tolist() == [2, 1]
    assert LikesTheLast().probabilities(observation, legal).tolist() == [[0, 0, 1], [0, 1, 0]]


def test_what_networks_say_is_good_for_every_threshold(tmp_path):
    spec = replace(TaskSpec.vector(3, ("left", "right", "stay")), action_masks=True)
    bcq = DiscreteBCQ(spec, seed=0)
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(50, 3)).astype(np.float32)
    masks = rng.random((50, 3)) < 0.7
    masks[:, 1] = True
    file = export_onnx(bcq, tmp_path / "bcq.onnx", contract="uint8")
    for policy in (TorchPolicy(bcq), OnnxPolicy(file)):
        assert isinstance(policy, NetworkPolicy)
        outputs = policy.outputs(observations, masks)
        for threshold in (0.0, 0.3, 0.97):
            other = policy.with_threshold(threshold)
            assert other.networks is policy.networks
            expected = other.probabilities(observations, masks)
            np.testing.assert_array_equal(other.probabilities_of(outputs, masks), expected)
        with pytest.raises(SpecMismatchError, match="no action_mask"):
            policy.probabilities_of(outputs)


def test_networks_that_give_nan_do_not_act():
    spec = TaskSpec.vector(1, ("left", "right"))
    policy = TorchPolicy(Fixed(spec))
    with pytest.raises(OfflineRLError, match="policy: the networks give NaN"):
        choose_from(torch.tensor([[1.0, float("nan")]]), torch.zeros(1, 2), 0.3, None)
    assert policy.spec == spec


@pytest.mark.parametrize(
    ("observation", "hint"),
    [
        (
            np.zeros(2, np.float32),
            r"float32 \[2\]; expected float32 \[N, 2\]; a policy acts on a batch: pass observation",
        ),
        (np.zeros((3, 2)), r"float64 \[3, 2\]; .* pass observation.astype\(numpy.float32\)"),
        ([[0, 0]], r"int64 \[1, 2\]; .*astype"),
        (np.zeros((3, 5), np.float32), "raw observations of the task that it was trained for"),
    ],
)
def test_observations_of_another_form_are_refused_with_the_way_out(observation, hint):
    policy = TorchPolicy(Fixed(TaskSpec.vector(2, ("left", "right"))))
    with pytest.raises(SpecMismatchError, match=hint):
        policy(observation, np.ones(2, bool))  # the observation is named first, the mask is wrong as well
