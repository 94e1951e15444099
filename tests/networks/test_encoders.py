import pytest
import torch
from torch import nn

from offrl import DQN, TaskSpec
from offrl.errors import ConfigError
from offrl.networks import (
    CompactEncoder,
    Head,
    MLPEncoder,
    NatureEncoder,
    default_encoder,
    feature_dim,
    initialise,
    seeded,
)


@pytest.mark.parametrize(
    ("encoder", "shape", "features"),
    [
        # 96 -> 23 -> 10 -> 8, 64 channels; 96 -> 23 -> 10 -> 4, 32 channels
        (NatureEncoder((4, 96, 96)), (4, 96, 96), 64 * 8 * 8),
        (CompactEncoder((4, 96, 96)), (4, 96, 96), 32 * 4 * 4),
        (NatureEncoder((4, 84, 84)), (4, 84, 84), 64 * 7 * 7),
        (MLPEncoder((3,), hidden=(16, 8)), (3,), 8),
    ],
)
def test_feature_dim_is_what_comes_out(encoder, shape, features):
    assert feature_dim(encoder) == features
    assert encoder(torch.zeros(2, *shape)).shape == (2, features)


def multiplications(encoder, shape):
    count = 0

    def add(module, inputs, output):
        nonlocal count
        count += output[0].numel() * module.weight[0].numel()

    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    encoder(torch.zeros(1, *shape))
    return count


def test_compact_encoder_takes_about_a_quarter_of_the_operations():
    shape = (4, 96, 96)
    # With the first layer of two heads, which is most of a network's weights.
    nature, compact = NatureEncoder(shape), CompactEncoder(shape)
    full = multiplications(nature, shape) + 2 * nature.feature_dim * 512
    small = multiplications(compact, shape) + 2 * compact.feature_dim * 512
    assert 3.5 < full / small < 5.5


def test_default_encoder_fits_the_observation():
    assert isinstance(default_encoder((4, 96, 96)), NatureEncoder)
    assert isinstance(default_encoder((4,)), MLPEncoder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NatureEncoder((4,)), "expected \\(C, H, W\\); use MLPEncoder"),
        (lambda: MLPEncoder((4, 96, 96)), "expected \\(D,\\); use NatureEncoder"),
        (lambda: NatureEncoder((4, 20, 20)), "frames of \\(20, 20\\) pixels; expected larger"),
        (lambda: feature_dim(nn.Linear(1, 1)), "Linear has feature_dim None"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_seeded_weights_are_equal_and_leave_the_global_state_alone():
    state = torch.random.get_rng_state()
    with seeded(3):
        first = nn.Linear(4, 4)
    assert torch.equal(torch.random.get_rng_state(), state)
    with seeded(3):
        second = nn.Linear(4, 4)
    with seeded(4):
        third = nn.Linear(4, 4)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, third.weight)


def test_orthogonal_rows_are_orthogonal_and_scaled():
    layer = nn.Linear(8, 4)
    initialise(layer, "orthogonal")
    torch.testing.assert_close(layer.weight @ layer.weight.T, 2 * torch.eye(4))
    assert layer.bias.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("scheme", "bound"), [("kaiming", (6 / 64) ** 0.5), ("xavier", (6 / (64 + 32)) ** 0.5)])
def test_uniform_schemes_fill_their_range(scheme, bound):
    layer = nn.Linear(64, 32)
    initialise(layer, scheme, seed=0)
    assert layer.weight.abs().max() <= bound
    assert layer.weight.abs().max() > 0.98 * bound


def test_drawing_weights_anew_depends_on_the_seed_alone_and_targets_can_follow():
    one, other = (DQN(TaskSpec.vector(2, ("left", "right")), seed=seed) for seed in (0, 1))
    for algorithm in (one, other):
        initialise(algorithm, "orthogonal", seed=5)
        algorithm.copy_to_targets()
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(one.q_head.output.weight, one.target_q_head.output.weight)


def test_unknown_scheme_is_refused():
    with pytest.raises(ConfigError, match="'he'; expected one of"):
        initialise(nn.Linear(1, 1), "he")


def test_head_answers_in_float32_also_under_bf16():
    with seeded(0):
        head = Head(16, 3)
    features = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = head(features)
    assert low.dtype == torch.float32
    # The output layer itself was not rounded to bf16, which keeps 8 bits.
    assert not torch.equal(low, low.bfloat16().float())
    torch.testing.assert_close(low, head(features), atol=0.02, rtol=0.02)
