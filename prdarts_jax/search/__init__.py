"""How a cell is found: the bilevel step, and methods made of parts."""

import lazy_loader

_PARTS = ("alignment", "methods", "relaxations", "schedules", "terms")
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, _PARTS)
