"""What the processes have in common that a benchmark runs side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from offrl.system.signals import Interrupted

_SIGINT_EXIT_CODE = 130


@contextmanager
def ending_quietly() -> Iterator[None]:
    """Around a child's work: asked to end, it ends without a traceback. Its parent says what there is to say."""
    try:
        yield
    except KeyboardInterrupt as error:
        sys.exit(error.exit_code if isinstance(error, Interrupted) else _SIGINT_EXIT_CODE)
