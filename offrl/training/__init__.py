"""From batches to a trained policy: the update, the loop around it, and the run on disk."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
