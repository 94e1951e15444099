"""The plain update is the same discrete BCQ as ours."""

from dataclasses import replace

import pytest
import torch

import offrl
from offrl import Batch, TaskSpec
from offrl.networks import NatureEncoder
from offrl.training import Learner, LearnerConfig

OUR_NAME = {
    "encoder.": "encoder.network.",
    "q_head.1": "q_head.hidden",
    "q_head.3": "q_head.output",
    "imitation_head.1": "imitation_head.hidden",
    "imitation_head.3": "imitation_head.output",
}


def ours_of(name):
    prefix = next(prefix for prefix in OUR_NAME if name.startswith(prefix))
    return OUR_NAME[prefix] + name.removeprefix(prefix)


@pytest.fixture
def pair():
    """Ours and the plain one with the same weights, and a target that differs from the online network."""
    from benchmarks.baseline import PlainBCQ

    spec = TaskSpec.pixels((4, 96, 96), ("a", "b", "c"))
    ours = offrl.DiscreteBCQ(spec, encoder=NatureEncoder, seed=3)
    other = offrl.DiscreteBCQ(spec, encoder=NatureEncoder, seed=4)
    ours.target_encoder.load_state_dict(other.encoder.state_dict())
    ours.target_q_head.load_state_dict(other.q_head.state_dict())
    plain = PlainBCQ(3)
    plain.network.load_state_dict({n: ours.state_dict()[ours_of(n)] for n in plain.network.state_dict()})
    plain.target.load_state_dict({n: other.state_dict()[ours_of(n)] for n in plain.target.state_dict()})
    return ours, plain


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (2, 6, 4, 96, 96), dtype=torch.uint8, generator=generator)
    discount = torch.tensor([0.9, 0.0, 0.9, 0.7, 0.9, 0.9])
    return Batch(pixels[0], torch.tensor([0, 1, 2, 2, 1, 0]), torch.arange(6.0) - 2, discount, pixels[1])


def parts(batch):
    return batch.observation, batch.action, batch.reward, batch.discount, batch.next_observation


def test_the_plain_loss_is_ours(pair, batch):
    ours, plain = pair
    floats = replace(batch, observation=batch.observation / 128 - 1, next_observation=batch.next_observation / 128 - 1)
    loss, _ = ours.loss(floats)
    assert plain.loss(*parts(floats)).item() == pytest.approx(loss.item(), rel=1e-6)


def test_the_plain_update_is_the_learners(pair, batch):
    ours, plain = pair
    learner = Learner(ours, LearnerConfig(precision="fp32"), total_updates=3)
    before = plain.network.q_head[3].weight.clone()
    for _ in range(2):
        learner.update(batch)
        plain.update(*parts(batch))
    state = learner.algorithm.state_dict()
    for name, weight in plain.network.state_dict().items():
        torch.testing.assert_close(weight, state[ours_of(name)], rtol=0, atol=2e-5)
    for name, weight in plain.target.state_dict().items():
        if not name.startswith("imitation"):
            torch.testing.assert_close(weight, state[f"target_{ours_of(name)}"], rtol=0, atol=1e-6)
    assert (plain.network.q_head[3].weight - before).abs().max() > 2e-4
