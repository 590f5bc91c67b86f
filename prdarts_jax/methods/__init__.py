"""Search methods, one file each, all behind the interface `Method`."""

from prdarts_jax.methods.base import Method
from prdarts_jax.methods.darts import Darts
from prdarts_jax.methods.pr_darts import PRDarts

__all__ = ["Darts", "Method", "PRDarts"]
