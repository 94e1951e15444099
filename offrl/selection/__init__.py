"""Which of some policies to take: statistics on held-out episodes, and rankings by them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
