"""Environments: by name, wrapped, CarRacing and its faster twin, and what plays in them."""

import lazy_loader

from offrl.envs._registration import register

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

register()
