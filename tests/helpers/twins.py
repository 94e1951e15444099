"""Two algorithms from the same weights, compared bit for bit: how a limit case of one is the other."""

from dataclasses import replace

import torch

from offrl import Batch, TaskSpec
from offrl.training import Learner, LearnerConfig

SPEC = TaskSpec.vector(3, ("left", "right", "stay"))


def make_batch(seed: int = 0, size: int = 32, **fields: torch.Tensor) -> Batch:
    """Random transitions, some of which terminate; what follows is logged."""
    rng = torch.Generator().manual_seed(seed)
    batch = Batch(
        observation=torch.randn(size, 3, generator=rng),
        action=torch.randint(3, (size,), generator=rng),
        reward=2 * torch.randn(size, generator=rng),
        discount=0.9 * (torch.rand(size, generator=rng) > 0.3),
        next_observation=torch.randn(size, 3, generator=rng),
        next_action=torch.randint(3, (size,), generator=rng),
    )
    return replace(batch, **fields)


def with_other_targets(algorithm, seed=9):
    """The algorithm, whose target networks are no longer its online ones."""
    other = type(algorithm)(algorithm.spec, algorithm.config, seed=seed)
    for (_, target), (online, _) in zip(algorithm.targets(), other.targets(), strict=True):
        target.load_state_dict(online.state_dict())
    return algorithm


def after_updates(algorithm, count=5, **settings):
    """All its tensors after some updates; the last one moves the targets too."""
    config = LearnerConfig(precision="fp32", compile="off", learning_rate=1e-2, polyak=0.25, **settings)
    learner = Learner(algorithm, config, total_updates=count)
    for step in range(count):
        learner.update(make_batch(step))
    return {name: tensor.detach().clone() for name, tensor in algorithm.state_dict().items()}


def assert_same(ours, theirs):
    """The tensors that both have are equal, bit for bit."""
    shared = ours.keys() & theirs.keys()
    assert any(name.startswith("target_q_head") for name in shared)
    for name in shared:
        assert torch.equal(ours[name], theirs[name]), name
