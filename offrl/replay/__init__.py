"""From shards to batches: the frame store made from a dataset, and the replay that draws from it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
