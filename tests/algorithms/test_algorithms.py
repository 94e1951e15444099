"""What every algorithm promises."""

import copy

import pytest
import torch

from offrl import Batch, OfflineRLError, TaskSpec
from offrl.algorithms import BC, DQN, DiscreteBCQ, ParameterGroup

SPEC = TaskSpec.vector(3, ("left", "right", "stay"))


def make_batch(seed: int, size: int = 16) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    return Batch(
        observation=torch.randn(size, 3, generator=rng),
        action=torch.randint(3, (size,), generator=rng),
        reward=torch.randn(size, generator=rng),
        discount=torch.full((size,), 0.9) * (torch.rand(size, generator=rng) > 0.3),
        next_observation=torch.randn(size, 3, generator=rng),
    )


@pytest.fixture(params=[BC, DQN, DiscreteBCQ])
def algorithm(request):
    return request.param(SPEC, seed=1)


def test_loss_is_a_finite_scalar_with_gradients_for_all_that_is_trained(algorithm):
    loss, metrics = algorithm.loss(make_batch(0))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    loss.backward()
    for name, parameter in algorithm.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    assert all(value.shape == () for value in metrics.values())


def test_targets_are_frozen_copies_of_parts_that_are_trained(algorithm):
    for online, target in algorithm.targets():
        assert all(p.requires_grad for p in online.parameters())
        for ours, theirs in zip(online.parameters(), target.parameters(), strict=True):
            assert torch.equal(ours, theirs)
            assert not theirs.requires_grad
            assert ours.data_ptr() != theirs.data_ptr()


def test_the_seed_decides_the_weights(algorithm):
    again, other = type(algorithm)(SPEC, seed=1), type(algorithm)(SPEC, seed=2)
    observation = make_batch(0).observation
    assert torch.equal(algorithm(observation).scores, again(observation).scores)
    assert not torch.equal(algorithm(observation).scores, other(observation).scores)


def test_a_row_does_not_depend_on_the_others(algorithm):
    observation = make_batch(0).observation
    whole, alone = algorithm(observation), algorithm(observation[3:4])
    torch.testing.assert_close(whole.scores[3:4], alone.scores)
    torch.testing.assert_close(whole.logits[3:4], alone.logits)


def test_values_are_the_scores_or_there_are_none():
    observation = make_batch(0).observation
    for algorithm in (DQN(SPEC), DiscreteBCQ(SPEC)):
        assert torch.equal(algorithm.values(observation), algorithm(observation).scores)
    with pytest.raises(OfflineRLError, match="bc learns no values; use an algorithm with q"):
        BC(SPEC).values(observation)


def test_a_copy_trains_apart():
    algorithm = DiscreteBCQ(SPEC)
    twin = copy.deepcopy(algorithm)
    twin.encoder.network[0].weight.data.add_(1)
    assert not torch.equal(algorithm(make_batch(0).observation).scores, twin(make_batch(0).observation).scores)


def test_what_is_trained_is_one_group_with_the_learners_rate(algorithm):
    (group,) = algorithm.parameter_groups()
    assert isinstance(group, ParameterGroup)
    assert group.learning_rate_scale == 1.0
    # Target networks are frozen copies, and not trained by the optimiser.
    trained = [name for name, _ in algorithm.named_parameters() if not name.startswith("target")]
    assert len(group.parameters) == len(trained) > 0
