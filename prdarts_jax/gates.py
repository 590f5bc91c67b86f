"""From logits to op weights: softmax, hard-concrete gates, and the choice of the ops that run.

Arrays are [edges, ops], of one cell type, except where said otherwise.
"""

import math

import jax
import jax.numpy as jnp

A, B = -0.1, 1.1  # the interval to which a gate is stretched before it is clipped


def softmax(logits: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """DARTS's op weights of every cell type: the softmax over the ops of an edge (Liu et al., 2019, equation 2)."""
    return {cell_type: jax.nn.softmax(beta, axis=-1) for cell_type, beta in logits.items()}


def hard_concrete(key: jax.Array, logits: jax.Array, temperature: jax.Array) -> jax.Array:
    """Draws independent gates (Zhou et al., 2020, equation 7; Louizos et al., 2018).

    g = clip(a + (b - a) sigmoid((ln u - ln(1 - u) + beta) / tau), 0, 1),  u ~ U(0, 1).

    Args:
      key: consumed.
      logits: beta.
      temperature: tau, scalar.

    Returns:
      Gates in [0, 1] of the shape of the logits. Where a gate is clipped its gradient is 0.
    """
    noise = jax.random.logistic(key, logits.shape, logits.dtype)
    stretched = A + (B - A) * jax.nn.sigmoid((noise + logits) / temperature)
    return jnp.clip(stretched, 0.0, 1.0)


def activation_probability(logits: jax.Array, temperature: jax.Array) -> jax.Array:
    """P(g != 0) = sigmoid(beta - tau ln(-a / b)) of a hard-concrete gate (Zhou et al., 2020, Theorem 3)."""
    return jax.nn.sigmoid(logits - temperature * math.log(-A / B))


def saturation_probability(logits: jax.Array, temperature: jax.Array) -> jax.Array:
    """P(g = 1) = sigmoid(beta - tau ln((1 - a) / (b - 1))) of a hard-concrete gate."""
    return jax.nn.sigmoid(logits - temperature * math.log((1 - A) / (B - 1)))


def choose_random(key: jax.Array, shape: tuple[int, int], k: int = 2) -> jax.Array:
    """Chooses k ops of every edge uniformly, without replacement.

    Args:
      key: consumed.
      shape: (edges, ops).
      k: how many.

    Returns:
      bool[edges, ops], k of each row true.
    """
    return _largest(jax.random.uniform(key, shape), k)


def choose_largest(key: jax.Array, gates: jax.Array, drop: float, k: int = 2) -> jax.Array:
    """Chooses the k ops of every edge with the largest gates, as PR-DARTS's released code does.

    From each gate 1 is subtracted with probability `drop`; ties, frequent since gates are clipped, are broken at
    random.

    Args:
      key: consumed.
      gates: in [0, 1].
      drop: probability.
      k: how many.

    Returns:
      bool[edges, ops], k of each row true.
    """
    key_drop, key_ties = jax.random.split(key)
    score = gates - jax.random.bernoulli(key_drop, drop, gates.shape)
    ties = jax.random.uniform(key_ties, gates.shape)
    rank = jnp.lexsort((ties, score), axis=-1)
    return _largest(jnp.argsort(rank, axis=-1), k)


def _largest(score, k):
    places = jax.lax.top_k(score, k)[1]
    return jnp.any(jax.nn.one_hot(places, score.shape[-1], dtype=bool), axis=-2)


def straight_through(chosen: jax.Array, gates: jax.Array) -> jax.Array:
    """Exactly 1 where chosen, with the gradient of the gate, and 0 elsewhere."""
    return jnp.where(chosen, 1.0 + (gates - jax.lax.stop_gradient(gates)), 0.0)
