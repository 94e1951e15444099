"""Devices by name, and how exactly they compute."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from threading import Lock

import torch

from offrl.errors import ConfigError


def resolve_device(device: torch.device | str) -> torch.device:
    """The torch device of that name; "auto" is a GPU where there is one.

    Raises:
        ConfigError: no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.zeros(1, device=resolved).item()  # "meta" makes tensors, but has no values
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigError(
            f"{device!r} cannot be used here", where="device", expected="'auto', 'cpu', or 'cuda' with a CUDA GPU"
        ) from error
    return resolved


class _Exactly:
    """Turns TF32 off while anybody is inside: first in, last out, in whatever order threads come and go.

    The switch is the whole process's; were each to set it back by itself, one would do so while another computes.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._before = True

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = torch.backends.cudnn.allow_tf32
                torch.backends.cudnn.allow_tf32 = False
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.backends.cudnn.allow_tf32 = self._before


_EXACTLY = _Exactly()


def exact_convolutions(device: torch.device) -> AbstractContextManager[None]:
    """Within it float32 convolutions on a CUDA device are that, where torch's default rounds to TF32's 11 bits."""
    return _EXACTLY if device.type == "cuda" else nullcontext()
