"""What an edge may compute: kernels, and a registry of candidate ops."""

from prdarts_jax.ops.candidates import *  # noqa: F403
