import numpy as np
import pytest

from offrl.errors import ConfigError
from offrl.replay import Sampler


def test_indices_depend_on_seed_and_step_alone():
    one, other = Sampler(1000, seed=7), Sampler(1000, seed=7)
    forwards = [one.indices(step, 16).tolist() for step in range(5)]
    backwards = [other.indices(step, 16).tolist() for step in reversed(range(5))]
    np.random.seed(0)  # noqa: NPY002 - the global state is what must not matter
    assert forwards == backwards[::-1]
    assert forwards == [one.indices(step, 16).tolist() for step in range(5)]


def test_seeds_and_steps_draw_differently():
    draws = [Sampler(10**6, seed).indices(step, 4).tolist() for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(draw) for draw in draws}) == 4
    assert Sampler(10**6, 3).indices(5, 4).tolist() != Sampler(10**6, 5).indices(3, 4).tolist()


def test_every_transition_is_as_likely():
    counts = np.bincount(Sampler(4, seed=0).indices(0, 40_000), minlength=4)
    # Four standard deviations of a binomial count, sqrt(40,000 * 1/4 * 3/4) = 87.
    assert (abs(counts - 10_000) < 4 * 87).all()


def test_types():
    indices = Sampler(3, seed=2**64 - 1).indices(2**63, 5)
    assert indices.dtype == np.int64
    assert indices.shape == (5,)


@pytest.mark.parametrize(("size", "seed"), [(0, 0), (5, -1), (5, 2**64)])
def test_settings_are_checked(size, seed):
    with pytest.raises(ConfigError, match=r"Sampler\.(size|seed)"):
        Sampler(size, seed)


@pytest.mark.parametrize(("step", "batch_size"), [(-1, 4), (0, 0)])
def test_arguments_are_checked(step, batch_size):
    with pytest.raises(ConfigError, match=r"Sampler\.indices"):
        Sampler(5, 0).indices(step, batch_size)


def test_transitions_are_drawn_in_proportion_to_their_weights():
    indices = Sampler(5, seed=0, weights=np.array([0.0, 2.0, 1.0, 1.0, 0.0])).indices(0, 40_000)
    counts = np.bincount(indices, minlength=5)
    assert counts[0] == counts[4] == 0
    # Four standard deviations: sqrt(40,000 * 1/2 * 1/2) = 100, sqrt(40,000 * 1/4 * 3/4) = 87.
    assert abs(counts[1] - 20_000) < 400
    assert (abs(counts[2:4] - 10_000) < 350).all()


def test_weighted_indices_depend_on_seed_and_step_alone():
    weights = np.arange(1.0, 11.0)
    one, other = Sampler(10, seed=7, weights=weights), Sampler(10, seed=7, weights=3 * weights)
    assert one.indices(4, 16).tolist() == other.indices(4, 16).tolist()
    assert one.indices(4, 16).dtype == np.int64
    assert one.indices(4, 16).tolist() != one.indices(5, 16).tolist()


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0, 0.0], [1.0, -1.0, 1.0], [1.0, np.nan, 1.0], [np.inf, 1.0, 1.0]])
def test_weights_are_checked(weights):
    with pytest.raises(ConfigError, match=r"Sampler\.weights.*not all 0"):
        Sampler(3, 0, np.array(weights))
