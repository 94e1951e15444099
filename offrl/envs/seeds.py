"""Seeds of environments: what the data, the choice of settings and reported scores are played on never meet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from offrl.checks import is_whole
from offrl.errors import ConfigError

TUNING_SEEDS = range(1_000_000, 2_000_000)
"""For choosing settings; a score on seeds that settings were chosen on flatters."""
SCORE_SEEDS = range(2_000_000, 3_000_000)
"""For scores that are reported."""
DATA_SEEDS = range(1_000_000_000, 2_000_000_000)
"""Data is collected on these; what is learnt on a track says little about others."""
_RANGES = (DATA_SEEDS, TUNING_SEEDS, SCORE_SEEDS)


def require_evaluation_seeds(seeds: Sequence[int], where: str, *, choosing: bool = False) -> None:
    """Checks that these seeds may be evaluated on.

    Seeds outside the three ranges are the user's own.

    Args:
        seeds: of the episodes.
        where: who asks.
        choosing: whether a setting is chosen by the scores, which `SCORE_SEEDS` are too good for.

    Raises:
        ConfigError: no sequence of whole numbers from 0 on; seeds of the data; of tuning and of scores together; or of
            scores for choosing a setting.
    """
    is_list = isinstance(seeds, Sequence) and not isinstance(seeds, str)
    if not is_list and not (isinstance(seeds, np.ndarray) and seeds.ndim == 1):
        raise ConfigError(
            f"seeds is {seeds!r}",
            where=where,
            expected="a sequence of seeds, one for each episode",
            hint=f"pass TUNING_SEEDS[:{seeds}], say" if is_whole(seeds) else "pass TUNING_SEEDS[:20], say",
        )
    for seed in seeds:
        if not is_whole(seed) or seed < 0:
            raise ConfigError(f"seed {seed!r}", where=where, expected="0 or more, a whole number")
    # As plain integers: `in` would search a range for one of numpy's number by number.
    plain = [int(seed) for seed in seeds]
    data, tuning, score = (next((seed for seed in plain if seed in each), None) for each in _RANGES)
    if data is not None:
        raise ConfigError(
            f"seed {data}, on which data is collected",
            where=where,
            expected=f"seeds outside {DATA_SEEDS.start} to {DATA_SEEDS[-1]}",
            hint="take SCORE_SEEDS for scores, TUNING_SEEDS for choosing settings",
        )
    if choosing and score is not None:
        raise ConfigError(
            f"seed {score}, which is kept for scores, where a setting is chosen",
            where=where,
            expected=f"TUNING_SEEDS ({TUNING_SEEDS.start} to {TUNING_SEEDS[-1]}) or seeds of your own",
            hint="choose there, then score what was chosen on SCORE_SEEDS",
        )
    if tuning is not None and score is not None:
        raise ConfigError(
            f"seed {tuning}, which is for choosing settings, beside seed {score}, which is kept for scores",
            where=where,
            expected="seeds of one of the two ranges",
        )


def episode_rng(seed: int) -> np.random.Generator:
    """What is random in an episode beside the environment; another stream than the environment draws from its seed."""
    return np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
