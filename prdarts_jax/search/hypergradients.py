"""Second derivatives of losses in weights and logits, by forward mode over reverse mode.

Losses are functions of pytrees and know nothing of supernets, so each function here can be checked on a problem of a
few numbers.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

Tree = Any
Loss = Callable[..., tuple[jax.Array, Any]]  # (value, aux)


def unrolled_gradient(
    train_loss: Callable[[Tree, Tree], jax.Array],
    val_gradient: Callable[[Tree, Tree], tuple[tuple[Tree, Tree], Any]],
    move: Callable[[Tree], Tree],
    params: Tree,
    arch: Tree,
    grad: Callable = jax.grad,
) -> tuple[Tree, Any]:
    """The gradient of the validation loss after a step of the weights (DARTS; Liu et al., 2019, equation 7), exactly.

    With w'(a) = move(dL_train/dw (w, a)) and v the product of dL_val/dw' (w', a) with the Jacobian of `move`,
      d/da L_val(w'(a), a) = dL_val/da (w', a) + d/dt dL_train/da (w + t v, a) at t = 0.
    For SGD, where move(g) = w - xi (g + ...), v is -xi dL_val/dw', as in the paper.

    Args:
      train_loss: of (params, arch), that is w and a.
      val_gradient: (params, arch) -> ((gradient in params, gradient in arch), aux).
      move: the gradient of the training loss in the weights -> the weights after the step.
      grad: takes derivatives of the training loss; see `devices.grad`.

    Returns:
      (gradient in arch, aux).
    """
    moved, pull_back = jax.vjp(move, grad(train_loss)(params, arch))
    (dmoved, darch), aux = val_gradient(moved, arch)
    (direction,) = pull_back(dmoved)
    _, mixed = jax.jvp(lambda params: grad(train_loss, argnums=1)(params, arch), (params,), (direction,))
    return jax.tree.map(jnp.add, darch, mixed), aux


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


def dominant_eigenvalue(gradient: Callable[[Tree], Tree], at: Tree, key: jax.Array, steps: int) -> jax.Array:
    """The eigenvalue of largest absolute value of a Hessian, from products with vectors alone (Lanczos's method).

    Args:
      gradient: the function whose derivative is the Hessian.
      at: the point at which the Hessian is taken; entries that are not finite are left out.
      key: for the first vector; consumed.
      steps: number of products with the Hessian; as many as there are entries give the exact value.
    """
    flat, unravel = ravel_pytree(at)
    free = jnp.isfinite(flat)

    def product(vector):
        tangent = unravel(vector)
        return jnp.where(free, ravel_pytree(jax.jvp(gradient, (at,), (tangent,))[1])[0], 0.0)

    def step(i, carry):
        basis, diagonal, beside, size = carry
        vector = product(basis[i])
        diagonal, size = diagonal.at[i].set(vector @ basis[i]), jnp.maximum(size, jnp.linalg.norm(vector))
        # Twice, since after the first time rounding leaves a part of the earlier vectors.
        for _ in range(2):
            vector -= basis.T @ (basis @ vector)
        norm = jnp.linalg.norm(vector)
        # A vector that is only a rounding error is no new direction: all that can be reached has been.
        new = norm > 10 * flat.size * jnp.finfo(flat.dtype).eps * size
        vector = jnp.where(new, vector / jnp.where(new, norm, 1.0), 0.0)
        return basis.at[i + 1].set(vector), diagonal, beside.at[i].set(jnp.where(new, norm, 0.0)), size

    steps = min(steps, flat.size)
    first = jnp.where(free, jax.random.normal(key, flat.shape, flat.dtype), 0.0)
    basis = jnp.zeros((steps + 1, flat.size), flat.dtype).at[0].set(first / jnp.linalg.norm(first))
    zeros = jnp.zeros(steps, flat.dtype)
    _, diagonal, beside, _ = jax.lax.fori_loop(0, steps, step, (basis, zeros, zeros, jnp.zeros((), flat.dtype)))
    beside = beside[:-1]
    values = jnp.linalg.eigvalsh(jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1))
    return values[jnp.argmax(jnp.abs(values))]
