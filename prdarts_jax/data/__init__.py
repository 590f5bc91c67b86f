"""Reading and augmenting images."""

from prdarts_jax.data.arrays import from_arrays, from_grain
from prdarts_jax.data.sources import find, load

__all__ = ["find", "from_arrays", "from_grain", "load"]
