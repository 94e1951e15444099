"""The equations: pure functions of tensors, each with its paper. B is the batch, A the number of actions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
