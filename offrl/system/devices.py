"""Devices by name."""

from __future__ import annotations

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
