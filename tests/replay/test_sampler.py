import numpy as np
import pytest

from offrl.errors import ConfigError
from offrl.replay.sampler import Sampler


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
