import pytest
import torch
from torch import nn

from offrl import DQN, TaskSpec
from offrl.errors import ConfigError
from offrl.networks import (
    CompactEncoder,
    Head,
    ImpalaEncoder,
    MinAtarEncoder,
    MLPEncoder,
    NatureEncoder,
    ResidualEncoder,
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
        # 84 -> 42 -> 21 -> 11, 72 -> 36 -> 18 -> 9 (each half, rounded up), 32 channels
        (ImpalaEncoder((3, 84, 72)), (3, 84, 72), 32 * 11 * 9),
        (ImpalaEncoder((1, 1, 1)), (1, 1, 1), 32),
        # 96 -> 48 -> 24 -> 12 -> 6, 75 -> 37 (half, rounded down) -> 19 -> 10 -> 5 (rounded up)
        (ResidualEncoder((4, 96, 75)), (4, 96, 75), 32 * 6 * 5),
        (ResidualEncoder((1, 2, 3)), (1, 2, 3), 32),
        (MinAtarEncoder((4, 10, 10)), (4, 10, 10), 16 * 8 * 8),
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
    assert isinstance(default_encoder((4, 36, 36)), NatureEncoder)
    assert isinstance(default_encoder((4, 36, 35)), MinAtarEncoder)
    assert isinstance(default_encoder((7, 10, 10)), MinAtarEncoder)
    assert isinstance(default_encoder((4,)), MLPEncoder)


def test_nature_encoder_takes_pictures_from_36_pixels_on():
    assert NatureEncoder((1, 36, 36)).feature_dim == 64  # 36 -> 8 -> 3 -> 1
    with pytest.raises(ConfigError, match=r"NatureEncoder: frames of \(36, 35\) pixels"):
        NatureEncoder((1, 36, 35))


@pytest.mark.parametrize("hidden", [(-1,), (256, 0), (2.5,), (True,)])
def test_layers_of_no_width_are_refused(hidden):
    with pytest.raises(ConfigError, match=r"MLPEncoder.hidden: .*; expected whole numbers, 1 or more"):
        MLPEncoder((4,), hidden)


def test_widths_may_come_from_an_iterator():
    assert MLPEncoder((4,), map(int, "89")).feature_dim == 9


def weights(encoder):
    return sum(parameter.numel() for parameter in encoder.parameters())


def test_impala_has_the_papers_layers():
    # Of a block from C to D channels: one convolution (9 C D + D) and four (9 D D + D); C = 4, 16, 32, D = 16, 32, 32.
    assert weights(ImpalaEncoder((4, 84, 84))) == (592 + 4 * 2320) + (4640 + 4 * 9248) + (9248 + 4 * 9248)
    convolutions = [m for m in ImpalaEncoder((4, 84, 84)).modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size, m.stride) for m in convolutions] == [
        (inputs if i == 0 else outputs, outputs, (3, 3), (1, 1))
        for inputs, outputs in ((4, 16), (16, 32), (32, 32))
        for i in range(5)
    ]
    pools = [m for m in ImpalaEncoder((4, 84, 84)).modules() if isinstance(m, nn.MaxPool2d)]
    assert [(m.kernel_size, m.stride) for m in pools] == [(3, 2)] * 3


def test_impala_adds_what_its_residual_blocks_find_to_what_they_were_given():
    encoder = ImpalaEncoder((1, 8, 8))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.zero_()
            if name.endswith("weight") and parameter.shape[1] in (1, 16, 32) and "first" not in name:
                # Each output channel is its input channel (or the first), except in the residual blocks: there the
                # first convolution gives 0.5 everywhere, which the second one hands on.
                for channel in range(parameter.shape[0]):
                    parameter[channel, channel % parameter.shape[1], 1, 1] = 1
            if "first.bias" in name:
                parameter.fill_(0.5)
    # Each of the six residual blocks adds 0.5. The max-pools leave one pixel's 3 in all of the last picture, and count
    # nothing beyond the edge, where a 0 would be the most of negative pictures.
    picture = torch.full((1, 1, 8, 8), -4.0)
    picture[0, 0, 3, 3] = 3.0
    assert encoder(picture).reshape(32, 1).unique().tolist() == [3.0 + 6 * 0.5]
    assert encoder(torch.full((1, 1, 8, 8), -2.75)).unique().tolist() == [0.25]
    assert encoder(torch.full((1, 1, 8, 8), -4.0)).unique().tolist() == [0.0]  # -1, and a ReLU at the end


def test_impala_changes_no_observation():
    observation = -torch.ones(1, 4, 9, 9)
    ImpalaEncoder((4, 9, 9))(observation)
    assert torch.equal(observation, -torch.ones(1, 4, 9, 9))


def test_residual_is_impala_on_pictures_of_half_the_size():
    # The first convolution as above, and that of the first block is of its 16 channels in place of 4.
    stem = 16 * 4 * 16 + 16
    assert weights(ResidualEncoder((4, 84, 84))) == stem + weights(ImpalaEncoder((16, 42, 42)))
    encoder = ResidualEncoder((4, 84, 84))
    halved, rest = encoder.network[:2], encoder.network[2:]
    assert (halved[0].kernel_size, halved[0].stride, halved[0].padding) == ((4, 4), (2, 2), (1, 1))
    assert [*map(str, rest)] == [*map(str, ImpalaEncoder((16, 42, 42)).network)]
    observation = torch.randn(2, 4, 84, 84, generator=torch.Generator().manual_seed(0))
    assert torch.equal(encoder(observation), rest(halved(observation)))


def test_minatar_encoder_has_one_convolution():
    assert weights(MinAtarEncoder((4, 10, 10))) == 16 * 4 * 9 + 16
    encoder = MinAtarEncoder((1, 3, 4))
    with torch.no_grad():
        encoder.network[0].weight.fill_(1)
        encoder.network[0].bias.fill_(-30)
    picture = torch.arange(12.0).reshape(1, 1, 3, 4)  # sums of 3 x 3: 45 and 54
    assert encoder(picture)[0].tolist() == [15.0, 24.0] * 16


def test_impala_takes_about_7_times_the_operations_of_nature():
    shape = (4, 84, 84)
    assert 6.5 < multiplications(ImpalaEncoder(shape), shape) / multiplications(NatureEncoder(shape), shape) < 7.5


def test_residual_takes_two_to_three_times_the_operations_of_nature():
    shape = (4, 96, 96)
    assert 2.3 < multiplications(ResidualEncoder(shape), shape) / multiplications(NatureEncoder(shape), shape) < 2.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NatureEncoder((4,)), "expected \\(C, H, W\\); use MLPEncoder"),
        (lambda: MLPEncoder((4, 96, 96)), "expected \\(D,\\); use NatureEncoder"),
        (lambda: NatureEncoder((4, 20, 20)), "frames of \\(20, 20\\) pixels; expected larger ones; use MinAtarEncoder"),
        (lambda: MinAtarEncoder((4, 20, 2)), "frames of \\(20, 2\\) pixels; expected larger ones; pass an encoder of"),
        (
            lambda: ImpalaEncoder((4,)),
            "ImpalaEncoder: observation shape \\(4,\\); expected \\(C, H, W\\); use MLPEncoder",
        ),
        (
            lambda: ResidualEncoder((4, 1, 9)),
            "ResidualEncoder: frames of \\(1, 9\\) pixels; expected 2 or more in height and width; use ImpalaEncoder",
        ),
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
