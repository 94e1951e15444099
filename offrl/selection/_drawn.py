"""Held-out episodes that are drawn again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Drawn(NamedTuple):
    """Whole episodes, some of them several times."""

    rows: NDArray[np.int64]
    """Their transitions, in order."""
    episodes: NDArray[np.int64]
    """Their numbers."""
