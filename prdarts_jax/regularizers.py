"""PR-DARTS's group-structured sparsity and path depth (Zhou et al., 2020, section 4).

`probability` is P(g != 0) of every gate of one cell type, f32[edges, ops] in the order of `space.edges` and
`space.ops`. Results are scalars. The functions with `chosen` are those of the authors' released code, which looks only
at the gates that were selected in the draw; 0 where a group has none.
"""

import jax
import jax.numpy as jnp

from prdarts_jax.spaces import SearchSpace


def _columns(space, *groups):
    return jnp.array(sorted(i for kind in groups for i in space.op_indices(kind)), jnp.int32)


def _chain(space):
    """Positions of the edges 1 -> 2 -> ... -> h-1: the previous cell, then each pair of neighbours."""
    return jnp.array([space.edges.index((t - 1, t)) for t in range(2, space.nodes)])


def skip_sparsity(space: SearchSpace, probability: jax.Array) -> jax.Array:
    """L_skip: mean over edges of P(skip gate != 0)."""
    return jnp.mean(probability[:, _columns(space, "skip")])


def nonskip_sparsity(space: SearchSpace, probability: jax.Array) -> jax.Array:
    """L_nonskip: mean over edges and all ops but skip of P(gate != 0)."""
    return jnp.mean(probability[:, _columns(space, "none", "conv", "pool")])


def path_depth(space: SearchSpace, probability: jax.Array) -> jax.Array:
    """L_path: product over the chain 1 -> 2 -> ... -> h-1 of the sum over the parameterised ops of P(gate != 0)."""
    return jnp.prod(jnp.sum(probability[_chain(space)][:, _columns(space, "conv")], axis=1))


def chosen_sparsity(space: SearchSpace, probability: jax.Array, chosen: jax.Array, *groups: str) -> jax.Array:
    """Mean of P(gate != 0) over the chosen gates, bool[edges, ops], of some groups of ops."""
    columns = _columns(space, *groups)
    mask = chosen[:, columns]
    return jnp.sum(probability[:, columns] * mask) / jnp.maximum(jnp.sum(mask), 1)


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
