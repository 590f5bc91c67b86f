"""Search spaces, the genotypes found in them, and how logits become genotypes."""

from prdarts_jax.spaces.space import *  # noqa: F403
