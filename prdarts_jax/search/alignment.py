"""Alignment of the layers' gradients: a diagnostic, and an inner term (Lambda-DARTS; Movahedi et al., ICLR 2023)."""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from prdarts_jax.fields import at_least, checked
from prdarts_jax.search.schedules import Linear

Tree = Any
Loss = Callable[..., tuple[jax.Array, Any]]  # (value, aux)


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


@checked
@dataclasses.dataclass(frozen=True)
class Alignment:
    """An inner term: the weights minimise L_train - weight * measure(dL_train/d op weights of the normal cells).

    Attributes:
      weight: lambda, a schedule.
      measure: `cosine` or `sign_correlation`.
    """

    weight: Annotated[Linear, at_least(0)]
    measure: Callable[[jax.Array], jax.Array] = cosine


def aligned_gradient(
    train_loss: Loss,
    alignment: Callable[[jax.Array], jax.Array],
    weight: jax.Array,
    params: Tree,
    layer_weights: jax.Array,
    grad: Callable = jax.grad,
) -> tuple[Tree, jax.Array, Any]:
    """The gradient in the weights of L_train - weight * alignment(dL_train/d layer_weights), exactly.

    With p = d alignment / dg at g = dL_train/d layer_weights, the gradient of the alignment is d/dt dL_train/dw at
    t = 0, for layer weights shifted by t p (Lambda-DARTS; Movahedi et al., 2023, section 4, where it is a finite
    difference).

    Args:
      train_loss: (params, layer_weights) -> (value, aux); params are w.
      alignment: of the gradients of all layers.
      weight: lambda, f32[].
      params: the weights.
      layer_weights: f32[layers, edges, ops].
      grad: takes derivatives of the loss; see `devices.grad`.

    Returns:
      (gradient in the weights, dL_train/d layer_weights, aux).
    """
    gradients, _ = grad(train_loss, argnums=1, has_aux=True)(params, layer_weights)
    direction = jax.grad(alignment)(gradients)
    gradient, of_alignment, aux = jax.jvp(
        lambda layer_weights: grad(train_loss, has_aux=True)(params, layer_weights),
        (layer_weights,),
        (direction,),
        has_aux=True,
    )
    return jax.tree.map(lambda g, a: g - weight * a, gradient, of_alignment), gradients, aux
