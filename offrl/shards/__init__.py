"""Data at rest: shards in two layouts, the manifest beside them, and copies of what lies elsewhere."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
