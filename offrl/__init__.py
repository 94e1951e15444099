"""offrl: offline reinforcement learning for discrete actions and pixels.

The names below load on first use, so that `import offrl` costs nothing and has no side effects.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
