"""Hard-concrete gates, and the choice of the ops that run.

Arrays are [edges, ops], of one cell type. Functions consume their `key`. `candidates` are the ops to choose from,
bool[edges, ops]; functions that choose return the chosen ops in the same form.
"""

import math

import jax
import jax.numpy as jnp

from prdarts_jax import ops
from prdarts_jax.spaces import SearchSpace

A, B = -0.1, 1.1  # the interval to which a gate is stretched before it is clipped


def hard_concrete(key: jax.Array, logits: jax.Array, temperature: jax.Array, a: float = A, b: float = B) -> jax.Array:
    """Draws independent gates (Zhou et al., 2020, equation 7; Louizos et al., 2018).

    g = clip(a + (b - a) sigmoid((ln u - ln(1 - u) + beta) / tau), 0, 1),  u ~ U(0, 1), a < 0, b > 1.

    Logits are beta, the temperature is tau; by default a = -0.1 and b = 1.1. A gate that is clipped has the gradient 0.
    """
    noise = jax.random.logistic(key, logits.shape, logits.dtype)
    stretched = a + (b - a) * jax.nn.sigmoid((noise + logits) / temperature)
    return jnp.clip(stretched, 0.0, 1.0)


def activation_probability(logits: jax.Array, temperature: jax.Array, a: float = A, b: float = B) -> jax.Array:
    """P(g != 0) = sigmoid(beta - tau ln(-a / b)) of a hard-concrete gate (Zhou et al., 2020, Theorem 3)."""
    return jax.nn.sigmoid(logits - temperature * math.log(-a / b))


def saturation_probability(logits: jax.Array, temperature: jax.Array, a: float = A, b: float = B) -> jax.Array:
    """P(g = 1) = sigmoid(beta - tau ln((1 - a) / (b - 1))) of a hard-concrete gate."""
    return jax.nn.sigmoid(logits - temperature * math.log((1 - a) / (b - 1)))


def choose_random(key: jax.Array, candidates: jax.Array, k: int = 2) -> jax.Array:
    """Chooses k ops of every edge uniformly without replacement; all candidates of an edge that has no more than k."""
    score = jax.random.uniform(key, candidates.shape)
    return largest(jnp.where(candidates, score, -1.0), k) & candidates


def choose_largest(key: jax.Array, gates: jax.Array, candidates: jax.Array, drop: float, k: int = 2) -> jax.Array:
    """Chooses the k candidates of every edge with the largest gates, as PR-DARTS's released code does.

    From each gate 1 is subtracted with probability `drop`. Ties are frequent, since gates are clipped to [0, 1]; they
    are broken by a random order of the ops, the same for all edges.
    """
    key_drop, key_ties = jax.random.split(key)
    score = jnp.where(candidates, gates - jax.random.bernoulli(key_drop, drop, gates.shape), -2.0)
    ties = jnp.broadcast_to(jax.random.uniform(key_ties, gates.shape[-1:]), gates.shape)
    rank = jnp.lexsort((ties, score), axis=-1)
    return largest(jnp.argsort(rank, axis=-1), k) & candidates


def choose_cell(key: jax.Array, space: SearchSpace, candidates: jax.Array) -> jax.Array:
    """Draws a cell uniformly: `entries_per_node` different inputs of every node, each with an op.

    The op is one of the edge's candidates outside the group 'none'; each edge must have one. If every edge of a space
    keeps an op (NAS-Bench-201), it is one of all candidates of the edge.
    """
    key_op, key_edge = jax.random.split(key)
    if not space.entries_per_node:
        return choose_random(key_op, candidates, 1)
    chosen = choose_random(key_op, candidates & computes(space), 1)
    return chosen & strongest_inputs(space, jax.random.uniform(key_edge, candidates.shape[:1]))[:, None]


def draw_cell(key: jax.Array, space: SearchSpace, weights: jax.Array) -> jax.Array:
    """Draws a cell by the weights of its ops, f32[edges, ops], at least 0.

    Each edge draws an op in proportion to the weights; each node draws `entries_per_node` inputs, one after another, in
    proportion to the sum of the weights on their edges. Ops of the group 'none' are then left out; if every edge keeps
    an op (NAS-Bench-201), they are drawn like the others. An op of weight 0 is never chosen, and an edge whose ops all
    have the weight 0 has no op.
    """
    key_op, key_edge = jax.random.split(key)
    if space.entries_per_node:
        weights = jnp.where(computes(space), weights, 0.0)
    chosen = largest(jnp.log(weights) + jax.random.gumbel(key_op, weights.shape), 1) & (weights > 0)
    if not space.entries_per_node:
        return chosen
    # The largest u^(1 / sum) (Efraimidis, Spirakis, 2006), by its logarithm, since the power is 0 for small sums.
    uniform = jax.random.uniform(key_edge, weights.shape[:1], minval=jnp.finfo(jnp.float32).tiny)
    score = jnp.log(uniform) / jnp.sum(weights, axis=1)
    return chosen & strongest_inputs(space, score)[:, None]


def strongest_inputs(space: SearchSpace, score: jax.Array) -> jax.Array:
    """bool[edges]: for each node, the `entries_per_node` incoming edges with the largest `score` f32[edges].

    An edge of score -inf may be left out, even if the node then has fewer.
    """
    into = edges_into(space)
    return jnp.any(largest(jnp.where(into, score, -jnp.inf), space.entries_per_node) & into, axis=0)


def strongest_ops(space: SearchSpace, score: jax.Array, distinct_inputs: bool) -> jax.Array:
    """bool[edges, ops]: the ops that `discretizations.strongest` keeps by these scores; never one of score -inf."""
    if space.entries_per_node:
        score = jnp.where(computes(space), score, -jnp.inf)
    best = largest(score, 1) & (score > -jnp.inf)
    if not space.entries_per_node:
        return best
    score = jnp.where(best, score, -jnp.inf) if distinct_inputs else score
    into = edges_into(space)
    of_nodes = jnp.where(into[:, :, None], score, -jnp.inf).reshape(len(into), -1)
    kept = largest(of_nodes, space.entries_per_node) & (of_nodes > -jnp.inf)
    return jnp.any(kept, axis=0).reshape(score.shape)


def edges_into(space: SearchSpace) -> jax.Array:
    """bool[intermediate nodes, edges]: which edges lead into each node that is not an input."""
    return jnp.array([[target == node for _, target in space.edges] for node in range(space.inputs, space.nodes)])


def computes(space: SearchSpace) -> jax.Array:
    """bool[ops]: True for the ops outside the group 'none'."""
    return jnp.array([ops.group(op) != "none" for op in space.ops])


def largest(score: jax.Array, k: int) -> jax.Array:
    """bool of the score's shape: the k largest along the last axis; of equal ones the first."""
    places = jax.lax.top_k(score, min(k, score.shape[-1]))[1]
    return jnp.any(jax.nn.one_hot(places, score.shape[-1], dtype=bool), axis=-2)


def straight_through(chosen: jax.Array, gates: jax.Array) -> jax.Array:
    """Exactly 1, with the gradient of the gate, where chosen; 0, without a gradient, elsewhere."""
    return jnp.where(chosen, 1.0 + (gates - jax.lax.stop_gradient(gates)), 0.0)
