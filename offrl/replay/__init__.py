"""Logged transitions: shards on disk, the frame store made from them, and the batches drawn from it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offrl.replay.inspect import DatasetSummary as DatasetSummary
    from offrl.replay.inspect import inspect_dataset as inspect_dataset
    from offrl.replay.replay import Replay as Replay
    from offrl.replay.replay import open_replay as open_replay
    from offrl.replay.source import ReplaySource as ReplaySource
    from offrl.replay.store import FrameStore as FrameStore

_MODULES = {
    "DatasetSummary": "inspect",
    "FrameStore": "store",
    "Replay": "replay",
    "ReplaySource": "source",
    "inspect_dataset": "inspect",
    "open_replay": "replay",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """Imports on first use: collection workers read `offrl.replay.shards` without paying for torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
