"""PR-DARTS's group-structured sparsity and path depth (Zhou et al., 2020, section 4).

`probability` is P(g != 0) of every gate of one cell type, f32[edges, ops] in the order of `space.edges` and
`space.ops`, and `candidates` bool[edges, ops] says which ops there are on an edge. Results are scalars. The functions
with `chosen` are those of the authors' released code, which looks only at the gates that were selected in the draw; 0
where a group has none. At the end what other methods add.
"""

import math

import jax
import jax.numpy as jnp

from prdarts_jax.spaces import SearchSpace


def _columns(space, *groups):
    return jnp.array(space.op_indices(*groups), jnp.int32)


def _chain(space):
    """Positions of the edges that join neighbours, from the previous cell on: 1 -> 2 -> ... -> h-1 of two inputs."""
    return jnp.array([space.edges.index((t - 1, t)) for t in range(space.inputs, space.nodes)])


def _mean(values, counted):
    """The mean of what is counted, 0 if nothing is."""
    return jnp.sum(values * counted) / jnp.maximum(jnp.sum(counted), 1)


def skip_sparsity(space: SearchSpace, probability: jax.Array, candidates: jax.Array) -> jax.Array:
    """L_skip: mean over edges of P(skip gate != 0)."""
    columns = _columns(space, "skip")
    return _mean(probability[:, columns], candidates[:, columns])


def nonskip_sparsity(space: SearchSpace, probability: jax.Array, candidates: jax.Array) -> jax.Array:
    """L_nonskip: mean over edges and all ops but skip of P(gate != 0)."""
    columns = _columns(space, "none", "noise", "conv", "pool")
    return _mean(probability[:, columns], candidates[:, columns])


def path_depth(space: SearchSpace, probability: jax.Array) -> jax.Array:
    """L_path: product over the chain 1 -> 2 -> ... -> h-1 of the sum over the parameterised ops of P(gate != 0)."""
    return jnp.prod(jnp.sum(probability[_chain(space)][:, _columns(space, "conv")], axis=1))


def chosen_sparsity(space: SearchSpace, probability: jax.Array, chosen: jax.Array, *groups: str) -> jax.Array:
    """Mean of P(gate != 0) over the chosen gates, bool[edges, ops], of some groups of ops."""
    columns = _columns(space, *groups)
    return _mean(probability[:, columns], chosen[:, columns])


def chosen_path_depth(space: SearchSpace, probability: jax.Array, chosen: jax.Array) -> jax.Array:
    """Product over the edges of the chain that have a chosen parameterised op of the mean of P(gate != 0) over those
    ops.

    0 where no edge of the chain has one.
    """
    rows, columns = _chain(space)[:, None], _columns(space, "conv")
    mask = chosen[rows, columns]
    count = jnp.sum(mask, axis=1)
    mean = jnp.sum(probability[rows, columns] * mask, axis=1) / jnp.maximum(count, 1)
    return jnp.any(mask) * jnp.prod(jnp.where(count > 0, mean, 1.0))


def zero_one(probability: jax.Array, candidates: jax.Array) -> jax.Array:
    """Fair DARTS's L_0-1: minus the mean of (sigmoid - 1/2)^2 (Chu et al., 2020, equation 8)."""
    return -_mean(jnp.square(probability - 0.5), candidates)


def layer_alignment(gradients: jax.Array) -> jax.Array:
    """Lambda-DARTS's Lambda: the mean cosine of the gradients of two layers (Movahedi et al., 2023, equation 8).

    Args:
      gradients: of a loss in the op weights of each layer, f32[layers, edges, ops].

    Returns:
      f32[] in [-1, 1]; 0 of a single layer. A gradient of 0 has the cosine 0 with any.
    """
    flat = gradients.reshape(len(gradients), math.prod(gradients.shape[1:]))
    squares = jnp.sum(jnp.square(flat), axis=1, keepdims=True)
    # The inner `where` keeps the derivative of the root at 0 out of the gradient.
    unit = jnp.where(squares > 0, flat * jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
    pairs = len(flat) * (len(flat) - 1)
    return (jnp.sum(jnp.square(jnp.sum(unit, axis=0))) - jnp.sum(jnp.square(unit))) / max(pairs, 1)


def sign_correlation(gradients: jax.Array) -> jax.Array:
    """The variant `signcorr`: the mean over pairs of layers of sum(g_i g_j) / sum|g_i g_j|.

    Args and returns as `layer_alignment`.
    """
    flat = gradients.reshape(len(gradients), math.prod(gradients.shape[1:]))
    i, j = jnp.triu_indices(len(flat), 1)
    products = flat[i] * flat[j]
    sizes = jnp.sum(jnp.abs(products), axis=1)
    ratios = jnp.where(sizes > 0, jnp.sum(products, axis=1) / jnp.where(sizes > 0, sizes, 1.0), 0.0)
    return jnp.sum(ratios) / max(len(i), 1)
