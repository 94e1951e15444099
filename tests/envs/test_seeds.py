import numpy as np
import pytest

from offrl.envs import DATA_SEEDS, SCORE_SEEDS, TUNING_SEEDS
from offrl.envs.seeds import episode_rng, require_evaluation_seeds
from offrl.errors import ConfigError


def test_the_ranges_are_disjoint():
    assert TUNING_SEEDS.stop <= SCORE_SEEDS.start
    assert SCORE_SEEDS.stop <= DATA_SEEDS.start


@pytest.mark.parametrize(
    "seeds",
    [
        [0, 999_999],
        TUNING_SEEDS[:3],
        SCORE_SEEDS[-3:],
        [5, SCORE_SEEDS[0]],
        [np.int64(3_000_000)],
        [DATA_SEEDS.start - 1],
        [DATA_SEEDS.stop],
        np.arange(3),
        (5, 6),
        [],
    ],
)
def test_seeds_to_evaluate_on(seeds):
    require_evaluation_seeds(seeds, "here")


@pytest.mark.parametrize(
    ("seeds", "choosing", "message"),
    [
        ([1, DATA_SEEDS[0]], False, "here: seed 1000000000, on which data is collected; expected seeds outside"),
        ([np.int64(DATA_SEEDS[-1])], False, "here: seed 1999999999, on which data"),
        ([TUNING_SEEDS[-1], SCORE_SEEDS[0]], False, "here: seed 1999999, which .* beside seed 2000000, which"),
        (3, False, r"here: seeds is 3; expected a sequence of seeds, .*; pass TUNING_SEEDS\[:3\], say"),
        (None, False, "here: seeds is None; expected a sequence"),
        ({3, 4}, False, r"here: seeds is \{3, 4\}; expected a sequence of seeds"),
        ("12", False, "here: seeds is '12'; expected a sequence"),
        (np.array(3), False, r"here: seeds is array\(3\); expected a sequence"),
        ([3, -1], False, "here: seed -1; expected 0 or more, a whole number"),
        ([3, 1.5], False, "here: seed 1.5; expected 0 or more, a whole number"),
        ([True], False, "here: seed True; expected 0 or more"),
        ([None], False, "here: seed None; expected 0 or more"),
        (["a"], False, "here: seed 'a'; expected 0 or more"),
        (np.array([3.0]), False, r"here: seed np.float64\(3.0\); expected 0 or more"),
        ([SCORE_SEEDS[-1]], True, "here: seed 2999999, which is kept for scores, where .* TUNING_SEEDS"),
    ],
)
def test_seeds_that_are_refused(seeds, choosing, message):
    with pytest.raises(ConfigError, match=message):
        require_evaluation_seeds(seeds, "here", choosing=choosing)


def test_an_episodes_own_stream_is_not_the_environments():
    drawn = episode_rng(7).random(3).tolist()
    assert drawn == episode_rng(7).random(3).tolist()
    assert drawn != episode_rng(8).random(3).tolist()
    assert drawn != np.random.default_rng(7).random(3).tolist()
