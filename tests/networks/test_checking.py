from functools import partial

import pytest
import torch
from torch import nn

from offrl import BC, DQN, TaskSpec
from offrl.errors import ConfigError
from offrl.networks import MLPEncoder

SPEC = TaskSpec.vector(4, ("left", "right"))


class Wide(nn.Module):
    """Features [B, 6], whatever it says."""

    def __init__(self, observation_shape, says=6):
        super().__init__()
        self.layer = nn.Linear(observation_shape[0], 6)
        self.dropout = nn.Dropout()
        self.feature_dim = says
        self.calls = 0

    def forward(self, observation):
        self.calls += 1
        return self.dropout(self.layer(observation))


class Flattening(Wide):
    def forward(self, observation):
        return super().forward(observation).flatten()


class Viewing(nn.Module):
    """Flattens as what lies row by row can be, and pictures in training do not."""

    feature_dim = 4 * 6 * 6

    def __init__(self, observation_shape):
        super().__init__()
        self.layer = nn.Conv2d(observation_shape[0], 4, 3)

    def forward(self, observation):
        return self.layer(observation).view(len(observation), -1)


def test_a_view_of_pictures_whose_channels_lie_last_is_refused():
    spec = TaskSpec.pixels((2, 8, 8), ("left", "right"))
    with pytest.raises(ConfigError, match=r"encoder: Viewing fails on .*; flatten with .flatten\(1\)"):
        BC(spec, encoder=Viewing)


class Lazy(nn.Module):
    """Its layer takes its size from what it sees first."""

    feature_dim = 6

    def __init__(self, observation_shape):
        super().__init__()
        self.layer = nn.LazyLinear(6)

    def forward(self, observation):
        return self.layer(observation)


def test_lazy_layers_draw_their_weights_from_the_seed():
    first, again, other = (DQN(SPEC, encoder=Lazy, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.encoder.layer.weight, again.encoder.layer.weight)
    assert torch.equal(first.encoder.layer.weight, first.target_encoder.layer.weight)
    assert not torch.equal(first.encoder.layer.weight, other.encoder.layer.weight)


def test_a_wrong_feature_dim_is_one_line_that_names_the_right_one():
    with pytest.raises(ConfigError) as raised:
        BC(SPEC, encoder=partial(Wide, says=5))
    assert str(raised.value) == (
        "encoder: Wide has feature_dim 5 and turns observations [2, 4] into features [2, 6]; expected [2, 5]; "
        "set self.feature_dim = 6"
    )


def test_features_without_the_axis_of_the_batch_are_refused():
    with pytest.raises(ConfigError, match=r"into features \[12\]; expected \[2, 6\]; flatten all axes but the first"):
        BC(SPEC, encoder=Flattening)


def test_an_encoder_that_fails_is_named():
    def narrow(observation_shape):
        return Wide((observation_shape[0] - 1,))

    with pytest.raises(ConfigError, match=r"encoder: Wide fails on observations \[2, 4\] \(RuntimeError: .*shapes"):
        BC(SPEC, encoder=narrow)


def test_the_check_leaves_no_trace_on_the_encoder_and_the_weights_after_it():
    bc = BC(SPEC, encoder=Wide, seed=3)
    assert bc.encoder.calls == 0
    assert bc.encoder.training
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = Wide((4,))
        head = nn.Linear(6, 512)
    assert torch.equal(bc.encoder.layer.weight, first.layer.weight)
    assert torch.equal(bc.imitation_head.hidden.weight, head.weight)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (MLPEncoder((4,)), "encoder: a MLPEncoder that was made already; .*; pass encoder=MLPEncoder, or functools"),
        ("nature", "encoder: 'nature'; expected an encoder's class"),
        (lambda: None, "encoder: <lambda> cannot be constructed with the observation shape .*takes 0 positional"),
        (lambda shape: shape, r"encoder: <lambda> made \(4,\); expected an nn.Module"),
    ],
)
def test_what_makes_no_encoder_is_refused(encoder, message):
    with pytest.raises(ConfigError, match=message):
        BC(SPEC, encoder=encoder)
