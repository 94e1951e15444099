"""Off-policy evaluation: what a policy is worth, from logged data alone."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
