"""The search for a cell: the bilevel step, and methods composed of parts."""

import lazy_loader

_PARTS = ("alignment", "hypergradients", "methods", "relaxations", "schedules", "smoothing", "terms")
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, _PARTS)
