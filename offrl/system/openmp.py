"""How long OpenMP's threads spin while they wait for each other."""

from __future__ import annotations

import os
import sys

_SPINS = "10000"


def give_way() -> None:
    """Lets a waiting thread sleep after a fraction of a millisecond, where nobody has chosen and torch is not loaded.

    An update waits for all its threads hundreds of times. GNU's OpenMP spins some 10 ms at each of these barriers:
    where another process has taken the core of one thread, the others keep theirs busy with waiting, and the update
    takes many times as long. A fraction of a millisecond still bridges the gaps between an update's parallel regions.
    The library reads the variable once, when it is loaded, and so do the processes that are started from here.
    """
    if "torch" not in sys.modules and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS
