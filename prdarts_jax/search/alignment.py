"""Alignment of the layers' gradients: a diagnostic, and an inner term (Lambda-DARTS; Movahedi et al., ICLR 2023)."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from prdarts_jax.search.schedules import Linear


def cosine(gradients: jax.Array) -> jax.Array:
    """Lambda: the cosine of the gradients of two layers, a mean over all pairs of different layers (equation 8).

    Args:
      gradients: of a loss in the op weights of each layer, f32[layers, edges, ops].

    Returns:
      f32[] in [-1, 1]; 0 if there is a single layer. The cosine of a gradient of 0 with any other is 0.
    """
    flat = gradients.reshape(len(gradients), math.prod(gradients.shape[1:]))
    squares = jnp.sum(jnp.square(flat), axis=1, keepdims=True)
    # The inner `where` keeps the derivative of the root at 0 out of the gradient.
    unit = jnp.where(squares > 0, flat * jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
    pairs = len(flat) * (len(flat) - 1)
    return (jnp.sum(jnp.square(jnp.sum(unit, axis=0))) - jnp.sum(jnp.square(unit))) / max(pairs, 1)


def sign_correlation(gradients: jax.Array) -> jax.Array:
    """The variant `signcorr` of `cosine` in the authors' code: the mean over pairs of layers of sum(g_i g_j) /
    sum|g_i g_j|, with 0 / 0 = 0."""
    flat = gradients.reshape(len(gradients), math.prod(gradients.shape[1:]))
    i, j = jnp.triu_indices(len(flat), 1)
    products = flat[i] * flat[j]
    sizes = jnp.sum(jnp.abs(products), axis=1)
    ratios = jnp.where(sizes > 0, jnp.sum(products, axis=1) / jnp.where(sizes > 0, sizes, 1.0), 0.0)
    return jnp.sum(ratios) / max(len(i), 1)


@dataclasses.dataclass(frozen=True)
class Alignment:
    """An inner term: the weights minimise L_train - weight * measure(dL_train/d op weights of the normal cells).

    Attributes:
      weight: lambda, a schedule.
      measure: `cosine` or `sign_correlation`.
    """

    weight: Linear
    measure: Callable[[jax.Array], jax.Array] = cosine
