"""Differentiable architecture search as pure functions: PR-DARTS, DARTS and their relatives, and their bilevel step.

Its names are listed in `__init__.pyi`. Each is imported when it is first used, so that `import prdarts_jax` is quick
and the command line can answer Ctrl-C before JAX is imported.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
